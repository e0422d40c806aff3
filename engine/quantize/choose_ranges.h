// Ranges chosen by what they do to the model's outputs.
#pragma once

#include <map>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/output_noise.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/statistics.h"

namespace octet {

/// What ranges are judged by.
struct Judge {
  CalibrationData samples;
  KeptOutputs outputs;  ///< Of the fp32 graph for these samples.
  /// Of what the ranges on trial are taken from: samples that are not among those above, where there are enough. Nothing else is held
  /// out: the moments that weights are rounded by are of all samples.
  std::map<ValueId, Histogram> histograms;
};

struct ChosenRanges {
  QuantizeResult result;
  double noise = 0;  ///< Over signal, in the outputs for the judge's samples.
};

inline constexpr size_t kMostBlocks = 24;
inline constexpr int64_t kBlockSamples = 32;

/// Makes the int8 graph once with the ranges of each candidate (RangeCandidates, mse, entropy) for all values, and takes the one that
/// leaves the least noise. Then each block of values, in graph order, is tried with the two next best candidates' ranges, and
/// keeps those that take 2 % of the noise away; the result stays if all the judge's samples confirm it. At most 2 * kMostBlocks runs
/// on kBlockSamples, or one batch of a model with a larger one of its own. What is made in the end has the chosen methods' ranges from all of `statistics`. Requires: RangeMethod::kAuto.
/// Errors: as Calibrate.
absl::StatusOr<ChosenRanges> ChooseRanges(const Graph& graph, const QuantizeRecipe& recipe,
                                          const Statistics& statistics, const Judge& judge,
                                          const CalibrationRun& run);

}  // namespace octet
