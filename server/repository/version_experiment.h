// What the versions that share a model's traffic have shown since the shares or the models last changed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "server/metrics/registry.h"
#include "server/repository/model_version.h"
#include "server/routing/experiment_statistics.h"
#include "server/routing/routing.h"

namespace octet {

/// One version's part.
struct VersionArm {
  int64_t number = 0;
  double weight = 0;
  uint64_t drawn =
      0;  ///< Requests that named no version and were drawn for it, sticky ones not among them.
  uint64_t sticky = 0;  ///< Of those with a key, that the weights have for it.
  Moments seconds;      ///< Of all its requests, in every precision: arrival to answer.
  std::optional<Estimate> seconds_over_baseline;  ///< Mean, less the baseline's.
};

struct VersionExperimentFacts {
  std::string model;
  int64_t started_ms = 0;        ///< Since the epoch.
  int64_t baseline = 0;          ///< The version of the largest weight, the lowest of several.
  std::vector<VersionArm> arms;  ///< By number; those that are ready.
  std::optional<SampleRatio> sample_ratio;  ///< Of `drawn`; nullopt as TestSampleRatio.
};

/// Counts the draws between the versions of a model (routing.versions), and remembers what their metrics were when it
/// began. Goes on through loads that change neither the shares nor a version's experiment. Thread-safety: safe.
class VersionExperiment {
 public:
  /// Begins now. Requires: as many versions as shares, in the same order, that have their experiments.
  VersionExperiment(std::span<const VersionShare> shares,
                    std::span<const std::shared_ptr<const ModelVersion>> versions);

  /// True when these go on with it.
  bool GoesOnWith(std::span<const VersionShare> shares,
                  std::span<const std::shared_ptr<const ModelVersion>> versions) const;

  /// A request was drawn for this version, which has a share, or its key is this version's.
  void Count(int64_t number, bool sticky);

  /// Counts are read one after the other while requests finish: off by those of this moment at most.
  VersionExperimentFacts Read() const;

 private:
  struct Observed {
    std::shared_ptr<const VariantMetrics> metrics;
    Moments begin;
  };
  struct Arm {
    VersionShare share;
    std::shared_ptr<const Experiment> experiment;  ///< Held, so that no other one has its address.
    std::vector<Observed> variants;
    Counter drawn;
    Counter sticky;
  };

  int64_t started_ms_;
  std::string model_;
  std::vector<Arm> arms_;
};

}  // namespace octet
