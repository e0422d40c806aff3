// Mixtures of int8 and float layers, run on samples that their ranges have not seen, or of which a calibration file does not say so.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/insert_integers.h"
#include "engine/quantize/latency_meter.h"
#include "engine/quantize/mixed_precision_figures.h"
#include "engine/quantize/output_noise.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/statistics.h"

namespace octet {

/// Layers that stay in float, some of them marked for bf16 (Node::in_bf16).
struct FloatLayers {
  std::set<NodeId> all;
  std::set<NodeId> in_bf16;  ///< Of `all`.
  auto operator<=>(const FloatLayers&) const = default;
};

/// A file that could be written, and what it measured.
struct Mixture {
  QuantizeResult result;
  MixedPoint point;  ///< But for us_per_sample.
  double time = 1;   ///< Of one run on one thread, over that of int8 alone.
};

/// INVALID_ARGUMENT when the floor asks for labels or class scores that are not there, or one of them is no class.
absl::Status CheckFloor(const AccuracyFloor& floor, const Graph& graph, const CalibrationData& set,
                        const std::vector<int64_t>& labels);

/// Everything that mixtures of one model share: ranges and moments from one part of the calibration set, the fp32 model's answers
/// to the other, weights that were rounded before. Not thread-safe.
class Mixtures {
 public:
  /// Samples held back, at most, and multiply-adds of one run over them.
  static constexpr int64_t kMostHeldBack = 512;
  static constexpr int64_t kMostMacs = int64_t{1} << 40;

  /// Splits the set, gathers statistics and equalizes the graph; where statistics are in files, which samples of the set are held back is drawn from all of them. Errors: INVALID_ARGUMENT when the model has no F32
  /// output; as CheckFloor, HoldBack, FileStatistics, GatherStatistics and Calibrate.
  static absl::StatusOr<Mixtures> Prepare(Graph graph, const QuantizeRecipe& recipe,
                                          const CalibrationData& set, const CalibrationRun& run);

  const Graph& graph() const { return graph_; }
  const Statistics& statistics() const { return statistics_; }
  const Selection& all() const { return statistics_.selection; }
  int64_t held_back() const { return held_back_count_; }
  /// "SQNR of at least 20 dB".
  std::string FloorText() const;
  /// How far a mixture is from the floor: "an SQNR of 17.3 dB".
  std::string Reached(const MixedPoint& point) const;
  int runs() const { return runs_; }
  /// Multiply-adds of a node for one sample, the set's first, 0 where shapes are open.
  int64_t MacsOf(NodeId node) const { return macs_.at(static_cast<size_t>(node)); }
  /// Activations that the node reads, elements of one sample, 0 where shapes are open.
  int64_t ReadsOf(NodeId node) const { return reads_.at(static_cast<size_t>(node)); }

  /// Noise over signal in the outputs with `kept` in float, on few samples.
  absl::StatusOr<double> Noise(const FloatLayers& kept, const QuantizeRecipe& ranges);
  /// Runs a mixture on all samples held back, and times it. Requires: the first one has no layer in float, the reference of all times.
  absl::StatusOr<Mixture> Run(const FloatLayers& kept, const QuantizeRecipe& ranges);
  /// Runs a graph that was made of `kept` on them.
  absl::StatusOr<MixedPoint> Measure(const FloatLayers& kept, const Graph& graph);
  /// The steps' times with `kept` in float beside those of the reference. Requires: a mixture has run.
  absl::StatusOr<LatencyMeter::Turn> Compare(const FloatLayers& kept, const QuantizeRecipe& ranges);
  /// Time of one run of a graph that was made of a mixture, over the reference's.
  absl::StatusOr<double> TimeOf(const Graph& graph);
  /// us for a sample of the mixture of int8 alone.
  double reference_us() const;

 private:
  Mixtures() = default;

  bool Holds(const MixedPoint& point) const;
  bool IsCoarse() const;
  absl::Status CountMacs(const CalibrationData& set);
  absl::Status AskFp32(const std::vector<int64_t>& labels);
  absl::StatusOr<QuantizeResult> Make(const FloatLayers& kept, const QuantizeRecipe& ranges);
  absl::StatusOr<double> KnownTimeOf(const FloatLayers& kept, bool fewer_roundings,
                                     const Graph& mixture);
  void CompareClasses(const std::vector<std::optional<size_t>>& classes, MixedPoint& point) const;

  Graph graph_;
  AccuracyFloor floor_;
  CalibrationRun run_;
  Statistics statistics_;
  std::map<std::string, RangeTable> tables_;  ///< By RangesName.
  RoundedWeights rounded_;
  std::vector<QuantizeRecord> records_;  ///< Of what was done before any mixture.
  CalibrationData held_back_;
  CalibrationData few_;
  int64_t held_back_count_ = 0;
  std::unique_ptr<KeptOutputs> outputs_;             ///< Of fp32, on what is held back.
  bool scores_ = false;                              ///< The first output ranks classes.
  std::vector<std::optional<size_t>> fp32_classes_;  ///< Per sample held back, with `scores_`.
  std::vector<int64_t> labels_;
  std::vector<int64_t> macs_;   ///< By node.
  std::vector<int64_t> reads_;  ///< By node.
  std::optional<LatencyMeter> meter_;
  /// Of mixtures that ran, without fewer roundings or with, over the reference's; ranges do not change them.
  std::map<std::pair<FloatLayers, bool>, double> times_;
  int64_t batch_ = 1;  ///< Samples of one run that is timed.
  bool scale_concats_ = false;
  int runs_ = 0;
};

}  // namespace octet
