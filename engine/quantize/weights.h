// Weight quantization: symmetric, per output channel or per tensor.
#pragma once

#include <span>

#include "engine/tensor/quant_params.h"
#include "engine/tensor/tensor.h"

namespace octet {

struct QuantizedWeights {
  Tensor values;       ///< I8 in [-127, 127], the shape of the source.
  QuantParams params;  ///< Zero points 0; axis is the output channel's, or per tensor.
};

/// scale[c] = max|w[c]| / 127; an all-zero channel takes scale 1/127. `smallest[c]`, when given, is a lower bound
/// for scale[c] (one per channel): it keeps bias / (input scale * weight scale) inside 32 bits.
/// Requires: F32 weights, rank >= 1, 0 <= axis < rank; all elements finite.
QuantizedWeights QuantizeWeights(const Tensor& weights, int axis, bool per_channel,
                                 std::span<const float> smallest = {});

/// The smallest weight scales for which round(bias[c] / (input_scale * scale[c])) fits 31 bits.
std::vector<float> SmallestScales(const Tensor& bias, float input_scale);

/// round_half_even(bias[c] / scales[c]), as I32. Requires: F32 bias; scales of one entry or one per element.
Tensor QuantizeBias(const Tensor& bias, std::span<const float> scales);

}  // namespace octet
