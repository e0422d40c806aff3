// What a value may be besides a tensor.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/tensor/dtype.h"

namespace octet {

enum class ValueKind : uint8_t { kTensor, kSequence, kOptionalTensor, kOptionalSequence };

/// "tensor", "sequence", "optional tensor", "optional sequence".
std::string_view ValueKindName(ValueKind kind);

/// A kind of value, and the element type of its tensors.
struct ValueType {
  ValueKind kind = ValueKind::kTensor;
  DType dtype = DType::kUndefined;
  bool operator==(const ValueType&) const = default;
};

}  // namespace octet
