// A Reshape as what it does to axes: split one into several, or merge several into one.
#pragma once

#include <optional>
#include <vector>

#include "engine/tensor/shape.h"

namespace octet {

/// Axes [in_begin, in_end) of the input hold the same elements, in the same order, as axes [out_begin, out_end) of the
/// output.
struct AxisGroup {
  int in_begin = 0;
  int in_end = 0;
  int out_begin = 0;
  int out_end = 0;
  bool operator==(const AxisGroup&) const = default;
};

/// The finest groups of a Reshape from `in` to `out`; nullopt when they cannot be told: more than one unknown
/// extent, empty tensors, or extents of 1 left over at the end.
///   [N,64,7,7] -> [N,2,32,49] : {N}:{N}, {64}:{2,32}, {7,7}:{49}
std::optional<std::vector<AxisGroup>> GroupAxes(const Shape& in, const Shape& out);

}  // namespace octet
