// What the kernels of our own need to know of an 8-bit input and an 8-bit result beside the products.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

#include "engine/ops/step.h"

namespace octet {

/// y = clamp(round(sum) + y_zero, low, high), the sum being over x - x_zero.
struct Int8Numbers {
  bool x_signed = false;  ///< I8, else U8.
  bool y_signed = false;
  int32_t x_zero = 0;
  int32_t y_zero = 0;
  int32_t low = 0;  ///< Bounds of the stored result, within its type.
  int32_t high = 255;
};

/// What of it concerns the result alone, which is int8 per tensor; Relu and Clip become bounds: rounding keeps the order. UNIMPLEMENTED
/// for other activations.
absl::StatusOr<Int8Numbers> ResultNumbersOf(const Value& y, std::span<const PostOp> activations);

/// What of it concerns input 0 alone, which is int8 per tensor.
Int8Numbers SourceNumbersOf(const LowerContext& context);

/// Of a node whose input 0 and output are int8 per tensor, and all its post-ops. UNIMPLEMENTED as ResultNumbersOf.
absl::StatusOr<Int8Numbers> NumbersOf(const LowerContext& context);

}  // namespace octet
