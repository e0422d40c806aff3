// Which elements GridSample takes for a position, and with what weights; which positions AffineGrid maps.
//   Source: ONNX GridSample-16, -20, -22; AffineGrid-20.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"

#include "engine/ops/step.h"

namespace octet {

inline constexpr int kMostSampledAxes = 3;

struct SampleAttributes {
  enum class Mode : uint8_t { kNearest, kLinear, kCubic };
  enum class Padding : uint8_t { kZeros, kBorder, kReflection };
  Mode mode = Mode::kLinear;
  Padding padding = Padding::kZeros;
  bool align_corners = false;
  bool channels_last = false;  ///< x and y are [N, spatial..., C].

  /// Taps along each axis.
  int taps() const { return mode == Mode::kNearest ? 1 : mode == Mode::kLinear ? 2 : 4; }
};

/// INVALID_ARGUMENT naming node and value for unknown modes.
absl::StatusOr<SampleAttributes> ReadSampleAttributes(const Node& node);

/// What a position on one axis takes from it: `index[t]` (-1: outside, a zero) with `weight[t]`, t < taps().
struct SampleTaps {
  std::array<int64_t, 4> index;
  std::array<double, 4> weight;
};

/// The taps of grid coordinate `at`, -1 and 1 being the ends of an axis of `extent` elements.
SampleTaps SampleTapsOf(const SampleAttributes& attributes, double at, int64_t extent);

/// Coordinate of the k-th of `extent` positions on an axis that runs from -1 to 1: at the middles of pixels, or from corner to corner.
inline double AffineCoordinate(int64_t k, int64_t extent, bool align_corners) {
  const auto at = static_cast<double>(k);
  const auto n = static_cast<double>(extent);
  if (!align_corners) return (2 * at + 1) / n - 1;
  return extent == 1 ? -1 : 2 * at / (n - 1) - 1;
}

/// From theta of any RealFormat to FP32, sums in double: "octet:affine_grid". UNIMPLEMENTED for other types.
absl::StatusOr<std::unique_ptr<Step>> LowerAffineGrid(const LowerContext& context);

/// In float, on values of any RealFormat, of 4 axes or 5: "octet:grid_sample". UNIMPLEMENTED for other types, and
/// planes of 2^31 elements or more.
absl::StatusOr<std::unique_ptr<Step>> LowerGridSample(const LowerContext& context);

}  // namespace octet
