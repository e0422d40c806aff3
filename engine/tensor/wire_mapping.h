// Clients may send a narrower element type than the model computes with: quantized tensors on the wire.
#pragma once

#include <vector>

#include "absl/status/status.h"

#include "engine/tensor/real_format.h"
#include "engine/tensor/tensor.h"
#include "engine/tensor/wire_tensor.h"

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

/// Writes the reals scale[c] * (q[i] - zero_point[c]) of wire.elements() elements q of mapping.dtype, shape [N, C, ...], to
/// `dst` in `format`: the same bits as if they were written as F32 first and rounded to `format` then. 8-bit elements of an
/// 8-bit format go through a table of 256 bytes per channel. Wire elements may be unaligned and lie across two pieces.
/// Requires: CheckWireMapping. Thread-safety: pure.
void ConvertFromWire(const WireTensor& wire, const WireMapping& mapping, const RealFormat& format,
                     void* dst);

/// The same for wire elements of F32, which are the reals.
void ConvertFromWire(const WireTensor& wire, const RealFormat& format, void* dst);

}  // namespace octet
