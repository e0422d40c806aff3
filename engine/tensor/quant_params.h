// The one formula of affine quantization: real = scale * (q - zero_point).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor/dtype.h"

namespace octet {

/// How the integers of a tensor stand for reals: real = scales[c] * (q - zero_points[c]), where c is
/// the index along `axis`, or 0 when per tensor.
struct QuantParams {
  static constexpr int kPerTensor = -1;

  std::vector<float> scales;         ///< One, or one per index of `axis`; all > 0 and finite.
  std::vector<int32_t> zero_points;  ///< As many as scales.
  int axis = kPerTensor;             ///< Axis that the scales run along, or kPerTensor.

  static QuantParams PerTensor(float scale, int32_t zero_point) {
    return {{scale}, {zero_point}, kPerTensor};
  }
  bool per_tensor() const { return axis == kPerTensor; }
  bool symmetric() const;  ///< All zero points are 0.
  bool operator==(const QuantParams&) const = default;
  std::string ToString() const;
};

/// Smallest and largest integer of an 8-bit type. Requires: IsInt8(dtype).
struct IntRange {
  int32_t min;
  int32_t max;
};
constexpr IntRange RangeOf(DType dtype) {
  return dtype == DType::kU8 ? IntRange{0, 255} : IntRange{-128, 127};
}

/// q = saturate(round_half_even(real / scale) + zero_point). NaN becomes zero_point.
int32_t QuantizeOne(float real, float scale, int32_t zero_point, IntRange range);

}  // namespace octet
