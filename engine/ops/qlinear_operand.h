// The scale and zero point that quantized operators of the QOperator dialect take beside each tensor.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

#include "engine/ops/infer_rules.h"
#include "engine/ops/op.h"
#include "engine/tensor/quant_params.h"
#include "engine/tensor/status.h"

namespace octet {

/// An optional 8-bit zero point (input i) as int32; 0 when absent.
inline int32_t ZeroPointAt(std::span<const ConstTensorView> inputs, size_t i, int64_t k = 0) {
  if (i >= inputs.size() || inputs[i].data == nullptr) return 0;
  if (inputs[i].elements() == 1) k = 0;
  return inputs[i].dtype() == DType::kU8 ? int32_t{inputs[i].as<uint8_t>()[k]}
                                         : inputs[i].as<int8_t>()[k];
}

/// All elements of an optional 8-bit zero point; empty when absent.
inline std::vector<int32_t> ZeroPointsOf(std::span<const ConstTensorView> inputs, size_t i) {
  std::vector<int32_t> zeros;
  const int64_t count = i < inputs.size() && inputs[i].data != nullptr ? inputs[i].elements() : 0;
  for (int64_t k = 0; k < count; ++k) zeros.push_back(ZeroPointAt(inputs, i, k));
  return zeros;
}

/// Per-tensor scale (input i) and zero point (input i + 1) as they run.
struct RunQuant {
  float scale = 1;
  int32_t zero_point = 0;
  static RunQuant At(std::span<const ConstTensorView> inputs, size_t i) {
    return {*inputs[i].as<float>(), ZeroPointAt(inputs, i + 1)};
  }
  float Real(int32_t q) const { return scale * static_cast<float>(q - zero_point); }
};

/// saturate(round_half_even(acc * multiplier) + zero_point), with one float multiplication: bit-exact with the
/// requantization of ONNX Runtime's integer kernels.
inline int32_t Requantize(int64_t acc, float multiplier, int32_t zero_point, IntRange range) {
  const float low = static_cast<float>(range.min - zero_point);
  const float high = static_cast<float>(range.max - zero_point);
  if (std::isnan(multiplier) || (std::isinf(multiplier) && acc == 0)) return zero_point;
  const float scaled = std::clamp(static_cast<float>(acc) * multiplier, low, high);
  return static_cast<int32_t>(std::nearbyint(scaled)) + zero_point;
}

/// Inputs i (tensor), i + 1 (scale F32) and i + 2 (zero point of the tensor's type, optional).
inline absl::Status ExpectQuantized(const InferContext& context, size_t i) {
  constexpr DTypeSet kBytes = {DType::kU8, DType::kI8};
  OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kBytes));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, i + 1, {DType::kF32}));
  return ExpectSameDType(context, i, i + 2);
}

/// The inputs X, X_scale, X_zero_point, Y_scale and Y_zero_point (optional) of an operator that quantizes per tensor.
inline absl::Status ExpectQuantizedUnary(const InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 4, 5));
  OCTET_RETURN_IF_ERROR(ExpectQuantized(context, 0));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 3, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 4));
  for (const size_t i : {1, 2, 3, 4}) OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  return absl::OkStatus();
}

/// Element i of a U8 or I8 view.
inline int32_t ByteAt(ConstTensorView view, int64_t i) {
  return view.dtype() == DType::kU8 ? int32_t{view.as<uint8_t>()[i]} : view.as<int8_t>()[i];
}

}  // namespace octet
