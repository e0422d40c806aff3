// The real two-input functions by operator name, as rows of floats.
#pragma once

#include <cstdint>
#include <string_view>

namespace octet {

/// y[i] = f(a[i * a_stride], b[i * b_stride]) for i in [0, n); strides are 0 or 1; y may be a or b.
using BinaryRow = void (*)(const float* a, int64_t a_stride, const float* b, int64_t b_stride,
                           float* y, int64_t n);

/// The function of a two-input operator of ONNX's domain on float; null when it has none here.
BinaryRow FindBinaryRow(std::string_view op);

}  // namespace octet
