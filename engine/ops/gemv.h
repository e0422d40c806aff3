// A row vector times a packed matrix: products of one row, which are as fast as the weights come out of the cache.
#pragma once

#include <cstdint>

#include "engine/ops/int8_numbers.h"
#include "engine/tensor/dtype.h"
#include "engine/tensor/panel_layout.h"

namespace octet {

/// y[j] = bias[j] + sum over i of x[i] * B[i, j] for the columns of panels [first, last); bias may be null. Sums are FP32, of
/// two or four interleaved parts of K. Requires: group 1. Thread-safe.
void Gemv(const PanelLayout& layout, const float* panels, const float* x, const float* bias,
          float* y, int64_t first, int64_t last);

/// The same for bfloat16 x and B, whose products are exact. Requires: group 2.
void GemvBFloat16(const PanelLayout& layout, const BFloat16* panels, const BFloat16* x,
                  const float* bias, float* y, int64_t first, int64_t last);

/// What turns the sums of a column into steps or reals of the result; a row per column of all panels, padding included.
struct GemvColumns {
  const int32_t*
      compensation;  ///< -x_zero * sum of the column, x_zero moved up by 128 where x is signed.
  const float* bias;
  const float* factor;
};

/// y[j] = clamp(round((sum over i of (x[i] - x_zero) * B[i, j] + bias[j]) * factor[j]) + y_zero, low, high), halves to even, for
/// the columns of panels [first, last). Sums are exact integers on every CPU. Requires: group 4. Thread-safe.
void GemvInt8(const PanelLayout& layout, const int8_t* panels, const Int8Numbers& numbers,
              const GemvColumns& columns, const uint8_t* x, uint8_t* y, int64_t first,
              int64_t last);

/// y[j] = (sum over i of (x[i] - x_zero) * B[i, j]) * factor[j] + bias[j], FP32, likewise; of the numbers it minds x's alone.
void GemvInt8ToReals(const PanelLayout& layout, const int8_t* panels, const Int8Numbers& numbers,
                     const GemvColumns& columns, const uint8_t* x, float* y, int64_t first,
                     int64_t last);

/// The instruction set that they run on, as Highway names it: "AVX3_DL".
const char* GemvTarget();

}  // namespace octet
