#include "engine/tensor/dtype.h"

#include <array>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace octet {
namespace {

constexpr uint32_t kFloatInfinity = 0x7f800000;
// 2^16: the first magnitude that no rounding brings back into binary16's range.
constexpr uint32_t kHalfOverflow = (127u + 16) << 23;
// 2^-14: the smallest normal binary16.
constexpr uint32_t kHalfMinNormal = (127u - 14) << 23;

constexpr std::array<std::pair<DType, std::string_view>, 14> kNames = {{
    {DType::kBool, "BOOL"},
    {DType::kU8, "UINT8"},
    {DType::kI8, "INT8"},
    {DType::kU16, "UINT16"},
    {DType::kI16, "INT16"},
    {DType::kU32, "UINT32"},
    {DType::kI32, "INT32"},
    {DType::kU64, "UINT64"},
    {DType::kI64, "INT64"},
    {DType::kF16, "FP16"},
    {DType::kBF16, "BF16"},
    {DType::kF32, "FP32"},
    {DType::kF64, "FP64"},
    {DType::kString, "BYTES"},
}};

#if defined(__x86_64__)

bool HasF16c() {
  static const bool has = __builtin_cpu_supports("f16c") && __builtin_cpu_supports("avx");
  return has;
}

// Converts the largest multiple of 8 elements and returns how many that were.
__attribute__((target("avx,f16c"))) size_t HalfToFloatF16c(const Half* src, float* dst,
                                                           size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i));
    _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(h));
  }
  return i;
}

__attribute__((target("avx,f16c"))) size_t FloatToHalfF16c(const float* src, Half* dst,
                                                           size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i h = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), h);
  }
  return i;
}

#endif

}  // namespace

float ToFloat(Half h) {
  const uint32_t sign = uint32_t{h.bits & 0x8000u} << 16;
  const uint32_t magnitude = h.bits & 0x7fffu;
  uint32_t bits;
  if (magnitude > 0x7c00) {
    bits =
        kFloatInfinity | 0x400000 | (magnitude << 13);  // NaN, quiet, as the hardware returns it.
  } else if (magnitude == 0x7c00) {
    bits = kFloatInfinity;
  } else if (magnitude >= 0x0400) {
    bits = (magnitude << 13) + ((127u - 15) << 23);
  } else {
    // Subnormal: magnitude * 2^-24, exact in binary32 and normal there.
    bits = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  }
  return std::bit_cast<float>(sign | bits);
}

Half ToHalf(float f) {
  const uint32_t all = std::bit_cast<uint32_t>(f);
  const uint32_t sign = (all >> 16) & 0x8000;
  uint32_t bits = all & 0x7fffffff;
  if (bits > kFloatInfinity) {
    bits = 0x7e00 | ((bits >> 13) & 0x1ff);
  } else if (bits >= kHalfOverflow) {
    bits = 0x7c00;
  } else if (bits < kHalfMinNormal) {
    // Adding 0.5 shifts the value to where binary32's last bit weighs 2^-24; the FPU rounds half to even.
    bits = std::bit_cast<uint32_t>(std::bit_cast<float>(bits) + 0.5f) - 0x3f000000;
  } else {
    const uint32_t odd = (bits >> 13) & 1;
    bits = (bits - ((127u - 15) << 23) + 0xfff + odd) >> 13;
  }
  return Half{static_cast<uint16_t>(sign | bits)};
}

void ConvertHalfToFloat(const Half* src, float* dst, size_t count) {
  size_t i = 0;
#if defined(__x86_64__)
  if (HasF16c()) i = HalfToFloatF16c(src, dst, count);
#endif
  for (; i < count; ++i) dst[i] = ToFloat(src[i]);
}

void ConvertFloatToHalf(const float* src, Half* dst, size_t count) {
  size_t i = 0;
#if defined(__x86_64__)
  if (HasF16c()) i = FloatToHalfF16c(src, dst, count);
#endif
  for (; i < count; ++i) dst[i] = ToHalf(src[i]);
}

std::string_view DTypeName(DType dtype) {
  for (const auto& [type, name] : kNames) {
    if (type == dtype) return name;
  }
  return "UNDEFINED";
}

std::optional<DType> ParseDType(std::string_view name) {
  for (const auto& [type, known] : kNames) {
    if (known == name) return type;
  }
  return std::nullopt;
}

}  // namespace octet
