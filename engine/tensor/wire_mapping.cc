#include "engine/tensor/wire_mapping.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/tensor/status.h"

namespace octet {
namespace {

template <typename T>
T LoadUnaligned(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <typename T>
float AsFloat(T value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return static_cast<float>(value);
  } else {
    return ToFloat(value);
  }
}

// One byte per element: a table per channel makes the loop a look-up.
template <typename T>
void ConvertBytes(const std::byte* src, float scale, float zero_point, float* dst, int64_t count) {
  // Filling the table costs as much as 256 elements.
  if (count < 512) {
    for (int64_t i = 0; i < count; ++i) {
      dst[i] = scale * (static_cast<float>(std::bit_cast<T>(src[i])) - zero_point);
    }
    return;
  }
  std::array<float, 256> table;
  for (int i = 0; i < 256; ++i) {
    table[i] = scale * (static_cast<float>(static_cast<T>(i)) - zero_point);
  }
  for (int64_t i = 0; i < count; ++i) dst[i] = table[std::to_integer<uint8_t>(src[i])];
}

template <typename T>
void ConvertRun(const std::byte* src, float scale, float zero_point, float* dst, int64_t count) {
  if constexpr (sizeof(T) == 1) {
    ConvertBytes<T>(src, scale, zero_point, dst, count);
  } else {
    for (int64_t i = 0; i < count; ++i) {
      dst[i] = scale *
               (AsFloat(LoadUnaligned<T>(src + i * static_cast<int64_t>(sizeof(T)))) - zero_point);
    }
  }
}

template <typename T>
void ConvertAs(const void* src, const WireMapping& mapping, int64_t first, int64_t count,
               TensorView dst) {
  const Shape& shape = dst.shape();
  const auto* bytes = static_cast<const std::byte*>(src);
  float* out = dst.as<float>();
  if (mapping.scale.size() == 1) {
    ConvertRun<T>(bytes, mapping.scale[0], mapping.zero_point[0], out + first, count);
    return;
  }
  const int64_t channels = shape[1];
  const int64_t inner = shape.elements(2, shape.rank());
  const int64_t end = first + count;
  for (int64_t at = first; at < end;) {
    const int64_t plane = at / inner;
    const int64_t next = std::min((plane + 1) * inner, end);
    const auto c = static_cast<size_t>(plane % channels);
    ConvertRun<T>(bytes + (at - first) * static_cast<int64_t>(sizeof(T)), mapping.scale[c],
                  mapping.zero_point[c], out + at, next - at);
    at = next;
  }
}

}  // namespace

absl::Status CheckWireMapping(const WireMapping& mapping, const Shape& input_shape) {
  switch (mapping.dtype) {
    case DType::kU8:
    case DType::kI8:
    case DType::kU16:
    case DType::kI16:
    case DType::kF16:
    case DType::kBF16:
      break;
    default:
      return InvalidArgument(
          "wire datatype: expected UINT8, INT8, UINT16, INT16, FP16 or BF16, got {}",
          DTypeName(mapping.dtype));
  }
  if (mapping.scale.size() != mapping.zero_point.size()) {
    return InvalidArgument("wire mapping: expected as many zero points as scales ({}), got {}",
                           mapping.scale.size(), mapping.zero_point.size());
  }
  const int64_t channels = input_shape.rank() > 1 ? input_shape[1] : 1;
  if (mapping.scale.size() != 1 && static_cast<int64_t>(mapping.scale.size()) != channels) {
    return InvalidArgument("wire mapping: expected 1 scale or one per index of axis 1 ({}), got {}",
                           channels, mapping.scale.size());
  }
  for (size_t c = 0; c < mapping.scale.size(); ++c) {
    if (!std::isfinite(mapping.scale[c]) || mapping.scale[c] <= 0) {
      return InvalidArgument("wire mapping: expected positive finite scales, got {}",
                             mapping.scale[c]);
    }
    if (!std::isfinite(mapping.zero_point[c])) {
      return InvalidArgument("wire mapping: expected finite zero points, got {}",
                             mapping.zero_point[c]);
    }
  }
  return absl::OkStatus();
}

void ConvertFromWire(const void* src, const WireMapping& mapping, TensorView dst) {
  ConvertFromWire(src, mapping, 0, dst.elements(), dst);
}

void ConvertFromWire(const void* src, const WireMapping& mapping, int64_t first, int64_t count,
                     TensorView dst) {
  switch (mapping.dtype) {
    case DType::kU8:
      return ConvertAs<uint8_t>(src, mapping, first, count, dst);
    case DType::kI8:
      return ConvertAs<int8_t>(src, mapping, first, count, dst);
    case DType::kU16:
      return ConvertAs<uint16_t>(src, mapping, first, count, dst);
    case DType::kI16:
      return ConvertAs<int16_t>(src, mapping, first, count, dst);
    case DType::kF16:
      return ConvertAs<Half>(src, mapping, first, count, dst);
    case DType::kBF16:
      return ConvertAs<BFloat16>(src, mapping, first, count, dst);
    default:
      break;  // CheckWireMapping refuses the others.
  }
}

}  // namespace octet
