// Quantization parameters taken from the data itself: ONNX DynamicQuantizeLinear.
#pragma once

#include "engine/tensor/quant_params.h"
#include "engine/tensor/quantize.h"

namespace octet {

/// The scale and zero point of a tensor's U8 elements.
struct DynamicScale {
  float scale = 1;
  int32_t zero_point = 0;
};

/// Parameters of an asymmetric u8 quantization of [min(range.min, 0), max(range.max, 0)]:
/// scale = (max - min) / 255, zero_point = saturate(round_half_even(-min / scale)). A range of zero width
/// gets scale 1. Source: ONNX DynamicQuantizeLinear-11.
DynamicScale DynamicScaleOf(const MinMax& range);
QuantParams DynamicQuantParams(const MinMax& range);

}  // namespace octet
