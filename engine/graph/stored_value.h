// How the elements of a value are stored.
#pragma once

#include "engine/graph/graph.h"
#include "engine/tensor/real_format.h"

namespace octet {

/// Stored as F16 or BF16.
inline bool IsNarrowReal(DType dtype) { return dtype == DType::kF16 || dtype == DType::kBF16; }

/// 8-bit integers with one scale and zero point.
inline bool IsTypedInt8(const Value& value) {
  return value.quant && value.quant->per_tensor() && IsInt8(value.dtype);
}

/// True for the values that a RealFormat can read and write.
inline bool HasRealFormat(const Value& value) {
  if (value.quant) return IsTypedInt8(value);
  return value.dtype == DType::kF32 || IsNarrowReal(value.dtype);
}

/// Requires: HasRealFormat(value).
inline RealFormat RealFormatOf(const Value& value) { return {value.dtype, value.quant}; }

}  // namespace octet
