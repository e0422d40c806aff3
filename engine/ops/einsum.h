// What the equation of an Einsum says.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/ops/function.h"

namespace octet {

/// An equation over the shapes of its operands. Labels are numbered: those of the output first, in its order.
struct EinsumEquation {
  std::vector<int64_t> extents;            ///< Of every label; kUnknownDim where open.
  std::vector<std::vector<int>> operands;  ///< The label of each axis of each operand.
  int outputs = 0;                         ///< Labels [0, outputs) are the output's axes.
};

/// The equation of `node` over operands of these shapes, whose extents may be unknown. INVALID_ARGUMENT where there is none.
absl::StatusOr<EinsumEquation> ReadEinsum(const Node& node, std::span<const Shape> shapes);

/// Matrix products, two operands at a time from the left, with the sums and Transposes that they need. What no product
/// says (a diagonal, integers, extents that are still open where they matter) stays an Einsum.
absl::Status ExpandEinsum(FunctionBody& body);

}  // namespace octet
