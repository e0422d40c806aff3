// Reals to 8 bits, kernels of our own: what every product whose activation is quantized when it runs does before it.
#pragma once

#include <cstdint>

#include "engine/ops/dynamic_quant.h"
#include "engine/tensor/quantize.h"

namespace octet {

/// What FindMinMax finds in x[0, count), on the calling thread's OpenMP team where there is much of it.
MinMax RangeOfReals(const float* x, int64_t count);

/// y[i] = saturate(round_half_even(x[i] / grid.scale) + grid.zero_point), NaN as 0, bit for bit what QuantizeTensor makes of U8, on the
/// calling thread's OpenMP team. Where all of x is in `range`, and finite, no division is made:
///   q0 = x * (1 / s);  q = q0 + (x - q0 * s) * (1 / s)
/// is x / s as rounded to F32, the reciprocal being so (Markstein, IA-64 and Elementary Functions, 2000, chapter 8).
/// Requires: `range` is RangeOfReals(x, count), `grid` that of a range around it. Thread-safety: safe.
void QuantizeReals(const float* x, int64_t count, const MinMax& range, const DynamicScale& grid,
                   uint8_t* y);

/// Both, with the grid of ONNX DynamicQuantizeLinear, which it returns. `never_negative`: nothing of x is below zero, nor is the grid.
DynamicScale QuantizeToOwnRange(const float* x, int64_t count, uint8_t* y,
                                bool never_negative = false);

}  // namespace octet
