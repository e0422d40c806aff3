// Dynamic-range quantization: int8 weights in the file, activation ranges taken when the model runs.
#pragma once

#include "absl/status/statusor.h"

#include "engine/quantize/quantizer.h"

namespace octet {

/// Replaces every Conv, Gemm and MatMul with constant weights that is not slower so (LayersSlowerInDynamicInt8):
///   x f32 -> Conv(w f32, b f32) -> y f32
///   x f32 -> DynamicQuantizeLinear -> ConvInteger(w u8, zero point 128) -> Cast -> Mul(x_scale * w_scale) -> Add(b) -> y f32
/// and lets every ConvTranspose that is not slower so, and every LSTM, GRU and RNN with constant weights, read what 8-bit integers stand for:
///   x f32 -> DynamicQuantizeLinear -> DequantizeLinear -> LSTM(DequantizeLinear(w i8), DequantizeLinear(r i8), ..) -> y f32
/// Convolution weights are U8 around 128 because that is what ONNX Runtime executes; matrices are I8. Layers that would be slower, convolutions
/// nearly all, compute in float, on weights that the file holds in 8 bits (StoreUnseenInBytes); each has a record "kept" with the reason.
/// Requires: opset >= kQuantizeOpset, shapes inferred.
absl::StatusOr<QuantizeResult> QuantizeDynamic(Graph graph, const QuantizeRecipe& recipe);

}  // namespace octet
