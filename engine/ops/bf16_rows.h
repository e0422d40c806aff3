// Rows of BF16 values by factors and addends per channel, with the CPU's own conversions.
#pragma once

#include <cstdint>

#include "engine/tensor/dtype.h"

namespace octet {

/// `rows` rows of n elements, `x_step` and `y_step` elements apart; factor and addend [n].
struct Bf16Rows {
  const BFloat16* x;
  int64_t x_step;
  const float* factor;
  const float* addend;
  BFloat16* y;
  int64_t y_step;
  int64_t rows;
  int64_t n;
};

/// y = round(min(max(x * factor + addend, low), high)) in FP32, product and sum rounded once where the CPU can; a NaN stays one.
/// y may be x. Where the CPU converts to BF16, numbers too small for a normal FP32 become 0.
void AffineBf16(const Bf16Rows& rows, float low, float high);

/// y[i] = round(x[i] * factor[i]), as above. y may be x.
void ScaleBf16(const BFloat16* x, const float* factor, BFloat16* y, int64_t n);

}  // namespace octet
