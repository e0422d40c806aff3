// Channel equalization: every channel of an activation reaches as far as the others before one scale serves them all.
#pragma once

#include <vector>

#include "absl/status/statusor.h"

#include "engine/quantize/quantizer.h"

namespace octet {

/// Scales channels of the activations up, where the weights that read them can take the factor back:
///   y = W2 * relu(W1 * x + b)   =>   y = (W2 / t) * relu((t W1) * x + t b),    t > 0, one per channel
/// so that one 8-bit scale per tensor rounds every channel as finely as its own range allows. t = (R / 2r)^alpha for a
/// channel that reaches r in a tensor that reaches R over the calibration set, with the alpha (at most 1/2: samples that nobody
/// has seen reach further) that leaves the least estimated noise in the readers' results. A channel behind Clip(0, max) is
/// scaled until it reaches half of max at most, so that the clip cuts only what a calibrated range would cut.
/// Returns a record for each group of linked activations that changed. Requires: opset >= kQuantizeOpset, shapes inferred.
/// Errors: as Calibrate. Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019).
absl::StatusOr<std::vector<QuantizeRecord>> EqualizeChannels(Graph& graph,
                                                             const QuantizeRecipe& recipe,
                                                             const CalibrationSet& calibration,
                                                             const CalibrationRun& run);

}  // namespace octet
