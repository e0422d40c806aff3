#include "engine/ops/joined_axes.h"

#include <cstdint>

namespace octet {
namespace {

/// The extent of a shape that broadcasts to `rank` axes along one of them.
int64_t AlignedExtent(const Shape& shape, int rank, int axis) {
  const int own = axis - (rank - shape.rank());
  return own < 0 ? 1 : shape[own];
}

}  // namespace

JoinedAxes::JoinedAxes(const Shape& result, std::span<const Shape> operands, int outer)
    : rank_(result.rank()) {
  absl::InlinedVector<bool, 4> last;  // Which operands repeat along the last group.
  for (int axis = 0; axis < rank_; ++axis) {
    if (axis >= outer) {
      groups_.push_back({axis, axis + 1});
      continue;
    }
    if (result[axis] == 1) continue;
    absl::InlinedVector<bool, 4> repeats;
    for (const Shape& operand : operands)
      repeats.push_back(AlignedExtent(operand, rank_, axis) == 1);
    if (!groups_.empty() && repeats == last) {
      groups_.back().end = axis + 1;
    } else {
      groups_.push_back({axis, axis + 1});
    }
    last = repeats;
  }
}

Shape JoinedAxes::Of(const Shape& shape) const {
  Shape joined;
  for (const Group& group : groups_) {
    int64_t product = 1;
    for (int axis = group.begin; axis < group.end; ++axis) {
      const int64_t extent = AlignedExtent(shape, rank_, axis);
      product = extent == kUnknownDim || product == kUnknownDim ? kUnknownDim : product * extent;
    }
    joined.push_back(product);
  }
  return joined;
}

}  // namespace octet
