// Element types of tensors, and the two 16-bit floats that C++ arithmetic here does not know.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

namespace octet {

/// Element type of a Tensor. The order is stable within a process only; files and wires use names.
enum class DType : uint8_t {
  kUndefined,
  kBool,
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kU64,
  kI64,
  kF16,
  kBF16,
  kF32,
  kF64,
  kString,  ///< Bytes of any length: an element is a std::string_view of them. Only programs (plan/) run them.
};

/// IEEE 754 binary16 as stored bits. Arithmetic happens in float.
struct Half {
  uint16_t bits = 0;
};

/// bfloat16 as stored bits: the upper half of a binary32.
struct BFloat16 {
  uint16_t bits = 0;
};

/// Returns the value of `h` as binary32; exact for every input, NaN stays NaN.
float ToFloat(Half h);
inline float ToFloat(BFloat16 b) { return std::bit_cast<float>(uint32_t{b.bits} << 16); }

/// Rounds `f` to binary16, half to even; overflow becomes infinity, NaN stays NaN.
Half ToHalf(float f);
/// Rounds `f` to bfloat16, half to even; NaN stays NaN.
inline BFloat16 ToBFloat16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40;
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  return BFloat16{static_cast<uint16_t>(nan ? quiet_nan : rounded)};
}

/// Converts `count` elements; vectorised where the CPU has F16C. `src` and `dst` do not overlap.
void ConvertHalfToFloat(const Half* src, float* dst, size_t count);
void ConvertFloatToHalf(const float* src, Half* dst, size_t count);

// What moves elements copies them as bytes, and no bytes at all are an empty string.
static_assert(std::is_trivially_copyable_v<std::string_view>);

/// Returns the size of one element in bytes; 0 for kUndefined. Of a string: of what points at it.
constexpr size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kUndefined:
      return 0;
    case DType::kBool:
    case DType::kU8:
    case DType::kI8:
      return 1;
    case DType::kU16:
    case DType::kI16:
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kU32:
    case DType::kI32:
    case DType::kF32:
      return 4;
    case DType::kU64:
    case DType::kI64:
    case DType::kF64:
      return 8;
    case DType::kString:
      return sizeof(std::string_view);
  }
  return 0;
}

constexpr bool IsFloat(DType d) {
  return d == DType::kF16 || d == DType::kBF16 || d == DType::kF32 || d == DType::kF64;
}

/// The two element types of quantized values.
constexpr bool IsInt8(DType d) { return d == DType::kU8 || d == DType::kI8; }

/// Returns the Open Inference Protocol's name: "FP32", "UINT8", "BOOL", "BYTES", ...; "UNDEFINED"
/// otherwise.
std::string_view DTypeName(DType dtype);
/// Inverse of DTypeName; nullopt for an unknown name.
std::optional<DType> ParseDType(std::string_view name);

/// Maps a C++ element type to its DType: DTypeOf<float> == DType::kF32.
template <typename T>
inline constexpr DType DTypeOf = DType::kUndefined;
template <>
inline constexpr DType DTypeOf<bool> = DType::kBool;
template <>
inline constexpr DType DTypeOf<uint8_t> = DType::kU8;
template <>
inline constexpr DType DTypeOf<int8_t> = DType::kI8;
template <>
inline constexpr DType DTypeOf<uint16_t> = DType::kU16;
template <>
inline constexpr DType DTypeOf<int16_t> = DType::kI16;
template <>
inline constexpr DType DTypeOf<uint32_t> = DType::kU32;
template <>
inline constexpr DType DTypeOf<int32_t> = DType::kI32;
template <>
inline constexpr DType DTypeOf<uint64_t> = DType::kU64;
template <>
inline constexpr DType DTypeOf<int64_t> = DType::kI64;
template <>
inline constexpr DType DTypeOf<Half> = DType::kF16;
template <>
inline constexpr DType DTypeOf<BFloat16> = DType::kBF16;
template <>
inline constexpr DType DTypeOf<float> = DType::kF32;
template <>
inline constexpr DType DTypeOf<double> = DType::kF64;
template <>
inline constexpr DType DTypeOf<std::string_view> = DType::kString;

}  // namespace octet
