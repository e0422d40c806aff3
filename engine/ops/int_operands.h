// Integer operands that were attributes in old opsets and are inputs in new ones: axes, pads, split, starts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/ops/op.h"

namespace octet {

/// An integer list of a node, as far as it is known.
struct IntsOperand {
  bool given = false;  ///< The attribute or input is present.
  std::optional<std::vector<int64_t>>
      values;  ///< nullopt when absent, or when an input that is not constant.
};

/// Reads attribute `name` when the node's version is below `input_since`, input `i` from there on.
/// INVALID_ARGUMENT when it has another type, or the input more than one extent.
absl::StatusOr<IntsOperand> ReadInts(const InferContext& context, std::string_view name, size_t i,
                                     int input_since);

/// The same for kernels: `inputs` may be those that the kernel is made from (constants show their
/// elements) or those that it runs on.
absl::StatusOr<IntsOperand> ReadInts(const Node& node, std::span<const ConstTensorView> inputs,
                                     std::string_view name, size_t i, int input_since);

/// Elements of an I32 or I64 view as int64. Requires: view.data set.
std::vector<int64_t> ToInts(ConstTensorView view);

/// Maps an axis into [0, rank). INVALID_ARGUMENT naming the node when it is outside [-rank, rank).
absl::StatusOr<int> NormalizeNodeAxis(const Node& node, int64_t axis, int rank);
/// The same for several; an axis may appear once.
absl::StatusOr<std::vector<int>> NormalizeNodeAxes(const Node& node, std::span<const int64_t> axes,
                                                   int rank);

/// A shape of `rank` unknown extents; nullopt when no tensor has so many.
std::optional<Shape> UnknownShape(int64_t rank);

}  // namespace octet
