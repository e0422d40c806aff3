// Bulk conversions between reals and integers, and between element types. Used by reference kernels,
// by the quantizer and by the server's wire conversion; none allocates.
#pragma once

#include "absl/status/status.h"

#include "engine/tensor/quant_params.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// dst[i] = saturate(round_half_even(src[i] / scale[c]) + zero_point[c]); src F32, dst U8 or I8, equal
/// shapes; c runs along params.axis. Requires: zero points within dst's type.
void QuantizeTensor(ConstTensorView src, const QuantParams& params, TensorView dst);

/// dst[i] = scale[c] * (src[i] - zero_point[c]); src U8, I8 or I32, dst F32, equal shapes.
void DequantizeTensor(ConstTensorView src, const QuantParams& params, TensorView dst);

/// Converts between any two element types, as C++ does (float to integer truncates, anything to bool
/// tests != 0); to F16 and BF16 rounds half to even. Where C++ leaves it undefined, a float outside the
/// integer's range saturates and NaN becomes 0. Equal element counts. Strings are moved alone: what reads or writes
/// numbers as text is ops/text_numbers.h.
void ConvertTensor(ConstTensorView src, TensorView dst);

/// Smallest and largest finite element of an F32 tensor; {0, 0} for an empty one.
/// `finite` is false when a NaN or infinity was seen.
struct MinMax {
  float min = 0;
  float max = 0;
  bool finite = true;
};
MinMax FindMinMax(ConstTensorView src);

}  // namespace octet
