// Clients may send a narrower element type than the model computes with: quantized tensors on the wire.
#pragma once

#include <vector>

#include "absl/status/status.h"

#include "engine/tensor/tensor.h"

namespace octet {

/// How elements on the wire stand for the model's: real = scale[c] * (q - zero_point[c]), c the index on axis 1
/// (one entry: every index). Zero points are reals, because preprocessing means are.
struct WireMapping {
  DType dtype = DType::kUndefined;
  std::vector<float> scale = {1};
  std::vector<float> zero_point = {0};
  bool operator==(const WireMapping&) const = default;
};

/// Checks a mapping for an input: integer or 16-bit float wire type, equal lengths, finite positive scales, one entry or one
/// per index of axis 1. INVALID_ARGUMENT with expected and got.
absl::Status CheckWireMapping(const WireMapping& mapping, const Shape& input_shape);

/// dst[i] = scale[c] * (src[i] - zero_point[c]); src of mapping.dtype, dst F32, equal shapes. 8-bit types go through one
/// table of 256 floats per channel. `src` may be unaligned (it points into a request). Requires: CheckWireMapping.
/// Thread-safety: pure.
void ConvertFromWire(const void* src, const WireMapping& mapping, TensorView dst);

/// The same for the elements [first, first + count) of dst alone, the first of which is at `src`.
void ConvertFromWire(const void* src, const WireMapping& mapping, int64_t first, int64_t count,
                     TensorView dst);

}  // namespace octet
