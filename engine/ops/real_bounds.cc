#include "engine/ops/real_bounds.h"

#include <algorithm>

#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<RealBounds> RealBoundsOf(std::span<const PostOp> activations) {
  RealBounds bounds;
  for (const PostOp& op : activations) {
    RealBounds next;
    if (op.kind == PostOp::Kind::kRelu) {
      next.low = 0;
    } else if (op.kind == PostOp::Kind::kClip && op.alpha <= op.beta) {
      next = {op.alpha, op.beta};
    } else {
      return Unimplemented("post-op {} as bounds", PostOpName(op.kind));
    }
    bounds.low = std::clamp(bounds.low, next.low, next.high);
    bounds.high = std::clamp(bounds.high, next.low, next.high);
  }
  return bounds;
}

}  // namespace octet
