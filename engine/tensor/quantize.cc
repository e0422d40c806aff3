#include "engine/tensor/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/rounding.h"

namespace octet {
namespace {

template <typename T>
[[gnu::always_inline]] inline void QuantizeRun(const float* src, T* dst, int64_t count, float scale,
                                               int32_t zero_point, IntRange range) {
  const float low = static_cast<float>(range.min - zero_point);
  const float high = static_cast<float>(range.max - zero_point);
  for (int64_t i = 0; i < count; ++i) {
    dst[i] = static_cast<T>(RoundClamped(src[i] / scale, low, high) + zero_point);
  }
}

// One row whose every element has a scale of its own (the axis is the innermost).
template <typename T>
[[gnu::always_inline]] inline void QuantizeRow(const float* src, T* dst, int64_t count,
                                               const float* scales, const int32_t* zero_points,
                                               IntRange range) {
  for (int64_t i = 0; i < count; ++i) {
    const float low = static_cast<float>(range.min - zero_points[i]);
    const float high = static_cast<float>(range.max - zero_points[i]);
    dst[i] = static_cast<T>(RoundClamped(src[i] / scales[i], low, high) + zero_points[i]);
  }
}

OCTET_CPU_CLONES void Quantize(const float* src, uint8_t* dst, int64_t count, float scale,
                               int32_t zero_point) {
  QuantizeRun(src, dst, count, scale, zero_point, RangeOf(DType::kU8));
}
OCTET_CPU_CLONES void Quantize(const float* src, int8_t* dst, int64_t count, float scale,
                               int32_t zero_point) {
  QuantizeRun(src, dst, count, scale, zero_point, RangeOf(DType::kI8));
}
OCTET_CPU_CLONES void QuantizeInner(const float* src, uint8_t* dst, int64_t count,
                                    const float* scales, const int32_t* zero_points) {
  QuantizeRow(src, dst, count, scales, zero_points, RangeOf(DType::kU8));
}
OCTET_CPU_CLONES void QuantizeInner(const float* src, int8_t* dst, int64_t count,
                                    const float* scales, const int32_t* zero_points) {
  QuantizeRow(src, dst, count, scales, zero_points, RangeOf(DType::kI8));
}

OCTET_CPU_CLONES void Dequantize(const uint8_t* src, float* dst, int64_t count, float scale,
                                 int32_t zero_point) {
  for (int64_t i = 0; i < count; ++i) dst[i] = scale * static_cast<float>(src[i] - zero_point);
}
OCTET_CPU_CLONES void Dequantize(const int8_t* src, float* dst, int64_t count, float scale,
                                 int32_t zero_point) {
  for (int64_t i = 0; i < count; ++i) dst[i] = scale * static_cast<float>(src[i] - zero_point);
}
// Through double: the difference of two int32 is exact there.
OCTET_CPU_CLONES void Dequantize(const int32_t* src, float* dst, int64_t count, float scale,
                                 int32_t zero_point) {
  const double zero = zero_point;
  for (int64_t i = 0; i < count; ++i) dst[i] = scale * static_cast<float>(src[i] - zero);
}

template <typename T>
[[gnu::always_inline]] inline void DequantizeRow(const T* src, float* dst, int64_t count,
                                                 const float* scales, const int32_t* zero_points) {
  for (int64_t i = 0; i < count; ++i) {
    dst[i] = scales[i] * static_cast<float>(static_cast<double>(src[i]) - zero_points[i]);
  }
}
OCTET_CPU_CLONES void DequantizeInner(const uint8_t* src, float* dst, int64_t count,
                                      const float* scales, const int32_t* zero_points) {
  DequantizeRow(src, dst, count, scales, zero_points);
}
OCTET_CPU_CLONES void DequantizeInner(const int8_t* src, float* dst, int64_t count,
                                      const float* scales, const int32_t* zero_points) {
  DequantizeRow(src, dst, count, scales, zero_points);
}
OCTET_CPU_CLONES void DequantizeInner(const int32_t* src, float* dst, int64_t count,
                                      const float* scales, const int32_t* zero_points) {
  DequantizeRow(src, dst, count, scales, zero_points);
}

// Walks the runs of a tensor that share a scale: `run` gets (offset, count, channel) where a run is
// contiguous, `row` gets (offset, count) where every element of the innermost axis has its own.
template <typename Run, typename Row>
void ForEachScale(const Shape& shape, const QuantParams& params, const Run& run, const Row& row) {
  if (params.per_tensor()) return run(0, shape.elements(), 0);
  const int64_t outer = shape.elements(0, params.axis);
  const int64_t channels = shape[params.axis];
  const int64_t inner = shape.elements(params.axis + 1, shape.rank());
  for (int64_t o = 0; o < outer; ++o) {
    const int64_t begin = o * channels * inner;
    if (inner == 1) {
      row(begin, channels);
      continue;
    }
    for (int64_t c = 0; c < channels; ++c) run(begin + c * inner, inner, c);
  }
}

template <typename T>
void QuantizeTo(ConstTensorView src, const QuantParams& params, T* dst) {
  const float* from = src.as<float>();
  ForEachScale(
      src.shape(), params,
      [&](int64_t at, int64_t count, int64_t c) {
        Quantize(from + at, dst + at, count, params.scales[c], params.zero_points[c]);
      },
      [&](int64_t at, int64_t count) {
        QuantizeInner(from + at, dst + at, count, params.scales.data(), params.zero_points.data());
      });
}

template <typename T>
void DequantizeFrom(ConstTensorView src, const QuantParams& params, float* dst) {
  const T* from = src.as<T>();
  ForEachScale(
      src.shape(), params,
      [&](int64_t at, int64_t count, int64_t c) {
        Dequantize(from + at, dst + at, count, params.scales[c], params.zero_points[c]);
      },
      [&](int64_t at, int64_t count) {
        DequantizeInner(from + at, dst + at, count, params.scales.data(),
                        params.zero_points.data());
      });
}

constexpr uint32_t kExponentMask = 0x7f800000;

// NaN and infinity have the largest exponent. Tested on the bits, so that the loop stays branch-free.
OCTET_CPU_CLONES void FiniteMinMax(const float* src, int64_t count, float* min, float* max,
                                   uint32_t* non_finite) {
  float low = std::numeric_limits<float>::infinity();
  float high = -low;
  uint32_t bad = 0;
#pragma omp simd reduction(min : low) reduction(max : high) reduction(| : bad)
  for (int64_t i = 0; i < count; ++i) {
    const bool finite = (std::bit_cast<uint32_t>(src[i]) & kExponentMask) != kExponentMask;
    const float for_min = finite ? src[i] : std::numeric_limits<float>::infinity();
    const float for_max = finite ? src[i] : -std::numeric_limits<float>::infinity();
    low = for_min < low ? for_min : low;
    high = for_max > high ? for_max : high;
    bad |= finite ? 0u : 1u;
  }
  *min = low;
  *max = high;
  *non_finite = bad;
}

}  // namespace

void QuantizeTensor(ConstTensorView src, const QuantParams& params, TensorView dst) {
  if (dst.dtype() == DType::kU8) {
    QuantizeTo(src, params, dst.as<uint8_t>());
  } else {
    QuantizeTo(src, params, dst.as<int8_t>());
  }
}

void DequantizeTensor(ConstTensorView src, const QuantParams& params, TensorView dst) {
  float* to = dst.as<float>();
  switch (src.dtype()) {
    case DType::kU8:
      return DequantizeFrom<uint8_t>(src, params, to);
    case DType::kI8:
      return DequantizeFrom<int8_t>(src, params, to);
    default:
      return DequantizeFrom<int32_t>(src, params, to);
  }
}

MinMax FindMinMax(ConstTensorView src) {
  MinMax result;
  uint32_t non_finite = 0;
  FiniteMinMax(src.as<float>(), src.elements(), &result.min, &result.max, &non_finite);
  result.finite = non_finite == 0;
  if (result.min > result.max) result.min = result.max = 0;  // Nothing finite was seen.
  return result;
}

}  // namespace octet
