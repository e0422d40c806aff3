// Channel equalization: every channel of an activation reaches as far as the others before one scale serves them all.
#pragma once

#include <vector>

#include "engine/quantize/output_gains.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/statistics.h"

namespace octet {

/// Scales channels of the activations up, where the weights that read them can take the factor back:
///   y = W2 * relu(W1 * x + b)   =>   y = (W2 / t) * relu((t W1) * x + t b),    t > 0, one per channel
/// so that one 8-bit scale per tensor rounds every channel as finely as its own range allows. t = (R / 2r)^alpha for a
/// channel that reaches r in a tensor that reaches R over the calibration set, with the alpha (at most 1/2: samples that nobody
/// has seen reach further) that leaves the least estimated noise in the readers' results. A channel behind Clip(0, max) is
/// scaled until it reaches half of max at most, so that the clip cuts only what a calibrated range would cut.
/// Where a constant scales the channels (a normalization's, or a Mul's: the few channels that reach far are then always the same),
/// the reach of the weights W that read channel c has a part in it, too, and alpha may come near 1:
///   t = max|W_c|^(1 - alpha) / max|x_c|^alpha
/// Channels that a shortcut passes on to a wider stage (ChannelComponent::joins_stages) stay as they are without `gains`.
/// With `gains`, of the model's outputs, all factors then move on together to where these have the least noise (MinimizeOutputNoise).
/// Returns a record for each group of linked activations that changed, and leaves the graph's statistics, and those of a part of the
/// samples, as those of the new graph, without channels, which nobody else needs. Requires: opset >= kQuantizeOpset, shapes inferred; statistics of this graph, of one
/// sample or more. Sources: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction
/// (2019); of the last formula Xiao et al., SmoothQuant (2023).
std::vector<QuantizeRecord> EqualizeChannels(Graph& graph, const QuantizeRecipe& recipe,
                                             Statistics& statistics, Statistics* part = nullptr,
                                             const OutputGains* gains = nullptr);

}  // namespace octet
