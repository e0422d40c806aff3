// What the attributes of ConvTranspose come to.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/window.h"
#include "engine/tensor/shape.h"

namespace octet {

/// out = stride * (in - 1) + (kernel - 1) * dilation + 1 - pad_begin - pad_end + output_padding, on every spatial axis.
struct TransposedPads {
  std::vector<int64_t> pads;  ///< All begins, then all ends.
  std::vector<int64_t> output_padding;
};

/// From auto_pad, output_shape, pads and output_padding of an ONNX ConvTranspose over x [N, C, spatial...] and weights
/// [IC, OC / group, k...]. nullopt while they follow from extents of x that are unknown.
/// Errors: INVALID_ARGUMENT naming node and attribute.
absl::StatusOr<std::optional<TransposedPads>> TransposedPadsOf(const Node& node, const Shape& x,
                                                               const Shape& w);

/// The axes over known spatial extents, aligned to the right of three, of a ConvTranspose with such a kernel: input i adds to the outputs
/// i * stride - pad_begin + k * dilation (Position(i, k)). Errors: INVALID_ARGUMENT naming node and attribute.
absl::StatusOr<std::array<AxisWindow, 3>> TransposedAxes(const Node& node,
                                                         std::span<const int64_t> in,
                                                         std::span<const int64_t> kernel);

/// Whether oneDNN's kernels for integers are of use. Those of strided and dilated ones compute one element after the other, and of a
/// source with a zero point they get results wrong that lie behind those that taps reach. `output_padding`: that of TransposedPads.
bool TransposesIntegers(const Node& node, std::span<const int64_t> output_padding);

}  // namespace octet
