// The sliding window that convolutions and pools share: kernel, strides, dilations, pads.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/tensor/shape.h"

namespace octet {

/// Attributes of a window as the node states them, completed with ONNX's defaults and checked.
struct WindowAttributes {
  enum class AutoPad : uint8_t { kNotSet, kValid, kSameUpper, kSameLower };
  AutoPad auto_pad = AutoPad::kNotSet;
  std::vector<int64_t> kernel;  ///< One per spatial axis, as are strides and dilations.
  std::vector<int64_t> strides;
  std::vector<int64_t> dilations;
  std::vector<int64_t> pads;  ///< All begins, then all ends.
  bool ceil_mode = false;

  int rank() const { return static_cast<int>(kernel.size()); }
};

/// Reads kernel_shape, strides, dilations, pads, auto_pad and ceil_mode. `kernel` is used when kernel_shape
/// is absent (empty: it must be present), and must agree with it otherwise.
/// Errors: INVALID_ARGUMENT naming node and attribute.
absl::StatusOr<WindowAttributes> ReadWindow(const Node& node, int spatial_rank,
                                            std::span<const int64_t> kernel = {});

/// One axis of a window that slides over `in` elements: output o covers the input positions
/// o * stride - pad_begin + k * dilation for k in [0, kernel).
struct AxisWindow {
  int64_t in = 1;
  int64_t out = 1;
  int64_t kernel = 1;
  int64_t stride = 1;
  int64_t dilation = 1;
  int64_t pad_begin = 0;
  int64_t pad_end = 0;

  int64_t reach() const { return (kernel - 1) * dilation + 1; }
  struct Range {
    int64_t begin;
    int64_t end;
  };
  /// Outputs [begin, end) for which tap k lies inside the input.
  Range OutputsOf(int64_t k) const;
  /// Taps [begin, end) of output o that lie inside the input; empty ranges begin where they end.
  Range TapsOf(int64_t o) const;
  /// Input position of tap k at output o; outside [0, in) in the padding.
  int64_t Position(int64_t o, int64_t k) const { return o * stride - pad_begin + k * dilation; }
};

/// Resolves one axis for a known input extent.
///   floor: out = floor((in + pads - reach) / stride) + 1
///   ceil_mode: ceil instead, without windows that would start in the end padding
///   SAME_*: out = ceil(in / stride), pads as needed, the odd one at the end (UPPER) or begin (LOWER)
/// INVALID_ARGUMENT naming the node when the window is larger than the padded input.
///   Source: ONNX Conv-22, AveragePool-22.
absl::StatusOr<AxisWindow> ResolveAxis(const Node& node, const WindowAttributes& window, int axis,
                                       int64_t in);

/// Output extents for spatial input extents that may be unknown.
absl::StatusOr<std::vector<int64_t>> WindowOutputs(const Node& node, const WindowAttributes& window,
                                                   std::span<const int64_t> in);

/// All axes of a window with known extents, aligned to the right of three: a 1-D window is the last one.
/// UNIMPLEMENTED for more than three.
absl::StatusOr<std::array<AxisWindow, 3>> ResolveWindow(const Node& node,
                                                        const WindowAttributes& window,
                                                        std::span<const int64_t> in);

/// Spatial extents of [N, C, spatial...], or of [N, spatial..., C].
std::vector<int64_t> SpatialExtents(const Shape& shape, bool channels_last);
/// [N, C, spatial...], or [N, spatial..., C].
Shape JoinShape(int64_t batch, int64_t channels, std::span<const int64_t> spatial,
                bool channels_last);

}  // namespace octet
