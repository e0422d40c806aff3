// ONNX numbers its element types; the attributes `to` and `dtype` carry those numbers.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "engine/tensor/dtype.h"

namespace octet {

inline constexpr int64_t kOnnxFloat = 1;  ///< TensorProto.FLOAT
inline constexpr int64_t kOnnxInt64 = 7;  ///< TensorProto.INT64

/// DType of TensorProto.DataType `number`; nullopt for what Octet has no tensors of (complex numbers, float8,
/// 4-bit types). Source: onnx.proto, TensorProto.DataType.
constexpr std::optional<DType> DTypeOfOnnx(int64_t number) {
  constexpr std::array kTypes = {
      DType::kUndefined, DType::kF32, DType::kU8,  DType::kI8,     DType::kU16,
      DType::kI16,       DType::kI32, DType::kI64, DType::kString, DType::kBool,
      DType::kF16,       DType::kF64, DType::kU32, DType::kU64,    DType::kUndefined,
      DType::kUndefined, DType::kBF16};
  if (number < 0 || number >= static_cast<int64_t>(kTypes.size())) return std::nullopt;
  const DType type = kTypes[static_cast<size_t>(number)];
  if (type == DType::kUndefined) return std::nullopt;
  return type;
}

}  // namespace octet
