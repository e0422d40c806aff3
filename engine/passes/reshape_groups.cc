#include "engine/passes/reshape_groups.h"

#include <algorithm>

namespace octet {
namespace {

bool Groupable(const Shape& shape) {
  const auto unknown = std::ranges::count(shape, kUnknownDim);
  return unknown <= 1 && std::ranges::find(shape, 0) == shape.end();
}

}  // namespace

std::optional<std::vector<AxisGroup>> GroupAxes(const Shape& in, const Shape& out) {
  if (!Groupable(in) || !Groupable(out)) return std::nullopt;
  std::vector<AxisGroup> groups;
  int i = 0;
  int o = 0;
  while (i < in.rank() && o < out.rank()) {
    AxisGroup group{i, i + 1, o, o + 1};
    int64_t left = in[i++];
    int64_t right = out[o++];
    // Grow the smaller side until both hold as many elements; an unknown extent matches the unknown one alone.
    while (left != right) {
      if (left == kUnknownDim || right == kUnknownDim) return std::nullopt;
      const bool grow_in = left < right;
      if (grow_in ? i == in.rank() : o == out.rank()) return std::nullopt;
      const int64_t next = grow_in ? in[i++] : out[o++];
      if (next == kUnknownDim) return std::nullopt;
      (grow_in ? left : right) *= next;
    }
    group.in_end = i;
    group.out_end = o;
    groups.push_back(group);
  }
  if (i != in.rank() || o != out.rank()) return std::nullopt;
  return groups;
}

}  // namespace octet
