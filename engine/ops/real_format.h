// Reals however they are stored: read in pieces that stay in the cache, computed in float, rounded once when written.
#pragma once

#include <cstddef>
#include <optional>

#include "engine/graph/graph.h"

namespace octet {

/// Stored as F16 or BF16.
inline bool IsNarrowReal(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }

/// 8-bit integers with one scale and zero point.
inline bool IsTypedInt8(const Value& value) {
  return value.quant && value.quant->per_tensor() && IsInt8(value.dtype);
}

/// How the reals of one value are stored: F32, F16, BF16, or int8 with one scale.
struct RealFormat {
  DType stored = DType::kF32;
  std::optional<QuantParams> quant;

  /// True for the values that a RealFormat can read and write.
  static bool Covers(const Value& value) {
    if (value.quant) return IsTypedInt8(value);
    return value.dtype == DType::kF32 || IsNarrowReal(value.dtype);
  }
  /// Requires: Covers(value).
  static RealFormat Of(const Value& value) { return {value.dtype, value.quant}; }

  bool plain() const { return stored == DType::kF32; }
  /// The reals of elements [offset, offset + n): in place when stored as F32, else written to `buffer`.
  const float* Read(const void* base, int64_t offset, int64_t n, float* buffer) const;
  /// Rounds `reals` into elements [offset, offset + n).
  void Write(const float* reals, void* base, int64_t offset, int64_t n) const;
};

}  // namespace octet
