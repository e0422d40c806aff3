// What the attributes of ConvTranspose come to.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
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

}  // namespace octet
