// ConvertTensor: every element type to every other.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

// How a bool is stored: any byte other than 0 is true, which a C++ bool must not hold.
struct BoolByte {
  uint8_t byte;
};

// Rounds toward zero and sets the last bit when that lost something: a second rounding to fewer bits
// then gives the same as rounding once (round to odd; Boldo and Melquiond, 2008).
float RoundToOdd(double d) {
  const float nearest = static_cast<float>(d);
  if (static_cast<double>(nearest) == d || std::isnan(d)) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(d)) --bits;
  return std::bit_cast<float>(bits | 1);
}

// The same for integers of more than 53 bits: keeps the top 32 bits and a sticky one.
template <typename T>
float RoundIntToOdd(T value) {
  const bool negative = value < 0;
  const uint64_t magnitude = negative ? uint64_t{0} - static_cast<uint64_t>(value) : value;
  const int shift = std::bit_width(magnitude) - 32;
  if (shift <= 0) return RoundToOdd(static_cast<double>(value));
  const uint64_t lost = magnitude & ((uint64_t{1} << shift) - 1);
  const double top =
      std::ldexp(static_cast<double>(((magnitude >> shift) << 1) | (lost != 0)), shift - 1);
  return RoundToOdd(negative ? -top : top);
}

// Any arithmetic value as a float that rounds correctly to 16 bits.
template <typename T>
float NarrowableFloat(T value) {
  if constexpr (std::is_same_v<T, double>) {
    return RoundToOdd(value);
  } else if constexpr (std::is_integral_v<T> && sizeof(T) >= 4) {
    return RoundIntToOdd(value);
  } else {
    return static_cast<float>(value);
  }
}

// C++ leaves a float outside the integer's range undefined; here it saturates and NaN becomes 0.
template <typename Int, typename Float>
Int TruncateSaturated(Float value) {
  constexpr Float kLow = static_cast<Float>(std::numeric_limits<Int>::min());
  // 2^bits of the type: exact in Float even where max() is not.
  constexpr Float kEnd = static_cast<Float>(std::numeric_limits<Int>::max() / 2 + 1) * 2;
  if (value != value) return 0;
  if (value <= kLow) return std::numeric_limits<Int>::min();
  if (value >= kEnd) return std::numeric_limits<Int>::max();
  return static_cast<Int>(value);
}

template <typename T>
auto Arithmetic(T value) {
  if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>) {
    return ToFloat(value);
  } else if constexpr (std::is_same_v<T, BoolByte>) {
    return static_cast<uint8_t>(value.byte != 0);
  } else {
    return value;
  }
}

template <typename From, typename To>
To ConvertOne(From from) {
  const auto value = Arithmetic(from);
  using Value = std::remove_const_t<decltype(value)>;
  if constexpr (std::is_same_v<To, BoolByte>) {
    return BoolByte{static_cast<uint8_t>(value != 0)};
  } else if constexpr (std::is_same_v<To, Half>) {
    return ToHalf(NarrowableFloat(value));
  } else if constexpr (std::is_same_v<To, BFloat16>) {
    return ToBFloat16(NarrowableFloat(value));
  } else if constexpr (std::is_floating_point_v<Value> && std::is_integral_v<To>) {
    return TruncateSaturated<To>(value);
  } else {
    return static_cast<To>(value);
  }
}

template <typename From, typename To>
void ConvertLoop(const void* src, void* dst, int64_t count) {
  const From* from = static_cast<const From*>(src);
  To* to = static_cast<To*>(dst);
  for (int64_t i = 0; i < count; ++i) to[i] = ConvertOne<From, To>(from[i]);
}

template <typename Fn>
void WithElementType(DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::kUndefined:
    case DType::kString:
      return;
    case DType::kBool:
      return fn(std::type_identity<BoolByte>());
    case DType::kU8:
      return fn(std::type_identity<uint8_t>());
    case DType::kI8:
      return fn(std::type_identity<int8_t>());
    case DType::kU16:
      return fn(std::type_identity<uint16_t>());
    case DType::kI16:
      return fn(std::type_identity<int16_t>());
    case DType::kU32:
      return fn(std::type_identity<uint32_t>());
    case DType::kI32:
      return fn(std::type_identity<int32_t>());
    case DType::kU64:
      return fn(std::type_identity<uint64_t>());
    case DType::kI64:
      return fn(std::type_identity<int64_t>());
    case DType::kF16:
      return fn(std::type_identity<Half>());
    case DType::kBF16:
      return fn(std::type_identity<BFloat16>());
    case DType::kF32:
      return fn(std::type_identity<float>());
    case DType::kF64:
      return fn(std::type_identity<double>());
  }
}

// The pairs of the request path, each a loop of its own that the compiler vectorises per CPU.
OCTET_CPU_CLONES void WidenU8(const uint8_t* src, float* dst, int64_t count) {
  for (int64_t i = 0; i < count; ++i) dst[i] = src[i];
}
OCTET_CPU_CLONES void WidenI8(const int8_t* src, float* dst, int64_t count) {
  for (int64_t i = 0; i < count; ++i) dst[i] = src[i];
}
OCTET_CPU_CLONES void WidenBFloat16(const BFloat16* src, float* dst, int64_t count) {
  for (int64_t i = 0; i < count; ++i) dst[i] = ToFloat(src[i]);
}
OCTET_CPU_CLONES void NarrowToBFloat16(const float* src, BFloat16* dst, int64_t count) {
  for (int64_t i = 0; i < count; ++i) dst[i] = ToBFloat16(src[i]);
}

// True when the pair has a loop of its own and that has done the work.
bool ConvertHotPair(ConstTensorView src, TensorView dst) {
  const int64_t count = src.elements();
  if (src.dtype() == DType::kF32) {
    if (dst.dtype() == DType::kF16) {
      ConvertFloatToHalf(src.as<float>(), dst.as<Half>(), count);
    } else if (dst.dtype() == DType::kBF16) {
      NarrowToBFloat16(src.as<float>(), dst.as<BFloat16>(), count);
    } else {
      return false;
    }
    return true;
  }
  if (dst.dtype() != DType::kF32) return false;
  switch (src.dtype()) {
    case DType::kU8:
      WidenU8(src.as<uint8_t>(), dst.as<float>(), count);
      return true;
    case DType::kI8:
      WidenI8(src.as<int8_t>(), dst.as<float>(), count);
      return true;
    case DType::kF16:
      ConvertHalfToFloat(src.as<Half>(), dst.as<float>(), count);
      return true;
    case DType::kBF16:
      WidenBFloat16(src.as<BFloat16>(), dst.as<float>(), count);
      return true;
    default:
      return false;
  }
}

}  // namespace

void ConvertTensor(ConstTensorView src, TensorView dst) {
  if (src.dtype() == dst.dtype() && src.dtype() != DType::kBool) {
    if (src.elements() > 0) std::memcpy(dst.data, src.data, src.bytes());
    return;
  }
  if (ConvertHotPair(src, dst)) return;
  WithElementType(src.dtype(), [&]<typename From>(std::type_identity<From>) {
    WithElementType(dst.dtype(), [&]<typename To>(std::type_identity<To>) {
      ConvertLoop<From, To>(src.data, dst.data, src.elements());
    });
  });
}

}  // namespace octet
