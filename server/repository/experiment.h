// What the traffic of a version has shown since its routing or its models last changed.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/graph/precision.h"
#include "server/metrics/registry.h"
#include "server/repository/variant_guard.h"
#include "server/routing/experiment_statistics.h"

namespace octet {

struct ModelVersion;

/// One precision's part in an experiment, or all of a pipeline's requests.
struct ExperimentArm {
  Precision precision = Precision::kFp32;  ///< A pipeline has none.
  bool ready = false;
  std::string
      reason;  ///< Why it is not ready, what of it is not as its file says, or why it is not the default; or "".
  double weight = 0;    ///< Of the split; 0 without one.
  double share = 0;     ///< Of the requests that ask for no precision, now: as SharesOf.
  uint64_t drawn = 0;   ///< Requests that the split drew, sticky ones not among them.
  uint64_t sticky = 0;  ///< Requests whose key the split has for it, or whose sequence it drew.
  uint64_t asked = 0;   ///< Requests that asked for it, or that came by default.
  uint64_t errors = 0;  ///< Of all its requests, failed through our fault.
  std::array<uint64_t, RefusalLabel::kValues.size()> refused{};  ///< Did not run, by Refusal.
  uint64_t rows = 0;                                             ///< Computed.
  uint64_t batches = 0;
  double waiting = 0;  ///< Requests, now.
  std::optional<double>
      int8_mac_ratio;         ///< Share of its multiply-adds that runs in int8, where it is known.
  HistogramCounts latency{};  ///< Seconds from arrival to answer.
  Moments seconds;            ///< The same.
  /// Interpolated within the buckets of `latency`, each 1.8 times as wide as the one before: off by up to that.
  double p50_seconds = 0;
  double p99_seconds = 0;
  std::optional<Estimate> seconds_over_baseline;  ///< Mean, less the baseline's.
  std::optional<GuardReport> guard;               ///< Of a precision with rules.
};

/// What shadow copies have shown of a pair.
struct ExperimentPair {
  Precision precision = Precision::kFp32;  ///< Of the copies.
  Precision against = Precision::kFp32;
  uint64_t compared = 0;
  uint64_t dropped = 0;
  uint64_t failed = 0;
  uint64_t class_rows = 0;
  uint64_t top1_agreed = 0;
  uint64_t ratios = 0;  ///< SQNRs.
  double mean_sqnr_db = 0;
};

struct ExperimentFacts {
  int64_t started_ms = 0;             ///< Since the epoch.
  std::optional<Precision> baseline;  ///< What answers by default.
  std::vector<ExperimentArm> arms;
  std::optional<ExperimentArm> pipeline;  ///< All of its requests, of a version that is one.
  std::vector<ExperimentPair> pairs;
  /// nullopt without a split, with too few draws, with a ramp, and once a guard moved shares: they are
  /// not the weights' then.
  std::optional<SampleRatio> sample_ratio;
};

/// Remembers what the metrics were when it began. Immutable; a reload that changes neither routing
/// nor models goes on with the one before. Thread-safety: safe.
class Experiment {
 public:
  /// Begins now. Requires: the version is whole but for this.
  explicit Experiment(const ModelVersion& version);

  /// Of the version that has this experiment. Counts are read one after the other while requests
  /// finish: off by those of this moment at most.
  ExperimentFacts Read(const ModelVersion& version) const;

 private:
  struct ArmSums {
    uint64_t drawn = 0;
    uint64_t sticky = 0;
    uint64_t asked = 0;
    uint64_t errors = 0;
    std::array<uint64_t, RefusalLabel::kValues.size()> refused{};
    uint64_t rows = 0;
    uint64_t batches = 0;
    uint64_t moves = 0;  ///< Of a guard, that changed a share.
    HistogramCounts seconds{};
  };
  struct PairSums {
    ExperimentPair counts;
    double sqnr_sum_db = 0;
  };
  static ArmSums SumsOf(const VariantMetrics& metrics);
  static PairSums SumsOf(const ShadowMetrics& metrics);

  static ExperimentArm ReadArm(const VariantMetrics& metrics, const ArmSums& before);
  ExperimentArm ReadVariant(const ModelVersion& version, size_t variant) const;

  int64_t started_ms_;
  std::vector<ArmSums> arms_;  ///< In the order of the version's variants; one of a pipeline.
  std::map<Precision, PairSums> pairs_;
};

/// True when `next` goes on with the experiment of `before`: the same routing, the same models.
bool IsSameExperiment(const ModelVersion& before, const ModelVersion& next);

}  // namespace octet
