// Adjacent axes that operands broadcast along alike, as one axis: of many axes few are left that a kernel has to tell apart.
//
//   result [B, W, H, M, N], operands [B, W, H, M, N] and [1, 1, H, M, N]  =>  [B W, H, M, N], [B W, H, M, N] and [1, H, M, N]
//
// Source: ONNX Broadcasting.md.
#pragma once

#include <span>

#include "absl/container/inlined_vector.h"

#include "engine/tensor/shape.h"

namespace octet {

/// Axes of a product's result, once joined, up to which oneDNN's kernels repeat the operand of a post-op: of more they leave the product
/// to its reference kernel.
inline constexpr int kMostKernelAxes = 4;

/// Which axes of a result are walked as one. Immutable after construction.
class JoinedAxes {
 public:
  /// Joins axes among the first `outer` of `result`, and leaves out those of extent 1; the others stay as they are. Where an extent
  /// is not known, an operand repeats when its own is 1, and follows the result otherwise.
  /// Requires: each operand broadcasts to `result`, and has no more axes.
  JoinedAxes(const Shape& result, std::span<const Shape> operands, int outer);

  /// Axes that are left.
  int rank() const { return static_cast<int>(groups_.size()); }
  /// The result's shape, or an operand's, over the axes that are left; unknown where one of those joined is.
  Shape Of(const Shape& shape) const;

 private:
  struct Group {
    int begin;
    int end;
  };

  int rank_;  ///< Of the result as it was.
  absl::InlinedVector<Group, 6> groups_;
};

}  // namespace octet
