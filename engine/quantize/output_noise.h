// How far a quantized model's outputs are from the fp32 model's, over a calibration set.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"

namespace octet {

/// -10 log10(noise over signal), in dB; infinity of 0.
double SqnrDbOf(double noise_over_signal);

/// The F32 outputs of the fp32 model, kept while it is calibrated: the first samples of each, up to kMaxElements. In place of an output whose
/// elements are gathered, behind all layers, by what NonMaxSuppression, TopK, ArgMax or ArgMin chose: what these read, and what they chose from.
class KeptOutputs {
 public:
  static constexpr size_t kMaxElements = size_t{1} << 23;

  KeptOutputs() = default;
  explicit KeptOutputs(const Graph& graph);

  bool empty() const { return kept_.empty(); }
  /// What is to be observed to fill them; they must stay where they are until then.
  std::vector<Observation> Observations();

  /// Noise over signal of a variant with the same outputs and the same nodes around them, as it runs in int8: the mean over the outputs of
  ///   sum (y - y_fp32)^2 / sum y_fp32^2  over the elements where y_fp32 is finite,
  /// and infinity where an answer of the variant is no number there.
  /// `more` looks at what it likes in the same run, whose figures go to `figures`.
  /// Errors: as Calibrate. Requires: filled over the same set, or one that goes on longer.
  absl::StatusOr<double> NoiseOf(const Graph& int8, const CalibrationData& set,
                                 const CalibrationRun& run, std::span<const Observation> more = {},
                                 RunFigures* figures = nullptr) const;

 private:
  struct Kept : Collector {
    absl::Status Observe(ConstTensorView batch) override;
    NodeId reader = kNone;  ///< Of the value; kNone: it is an output.
    size_t slot = 0;        ///< Of the reader's inputs, or of the graph's outputs.
    ValueId value = kNone;
    std::vector<float> elements;
  };
  std::deque<Kept> kept_;
};

}  // namespace octet
