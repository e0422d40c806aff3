// What static quantization learns from the calibration set, once for every way to use it.
#pragma once

#include <map>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"
#include "engine/quantize/output_noise.h"
#include "engine/quantize/patch_moments.h"
#include "engine/quantize/selection.h"

namespace octet {

struct Statistics {
  Selection selection;
  std::map<ValueId, Histogram> histograms;   ///< Of the values whose range somebody may take.
  std::map<NodeId, ChannelMoments> moments;  ///< Of each weighted node's input, per input channel.
  KeptOutputs outputs;  ///< Of the fp32 graph; filled for RangeMethod::kAuto alone.
  std::map<NodeId, PatchMoments>
      patches;  ///< Of those weighted nodes whose rounding is compensated.
};

/// Selects what is quantized and runs the fp32 graph over the set. `any_subset`: looks at all that a selection of fewer nodes
/// needs as well, and leaves `outputs` empty. INVALID_ARGUMENT when there is nothing to quantize;
/// else as Calibrate.
absl::StatusOr<Statistics> GatherStatistics(const Graph& graph, const QuantizeRecipe& recipe,
                                            const CalibrationSet& set, const CalibrationRun& run,
                                            bool any_subset = false);

}  // namespace octet
