// spatial_mean: a mean over all spatial axes is a pooling, which has fast kernels and keeps the layout of its neighbours.
//
//   x:f32[N,C,H,W] -> ReduceMean {axes=[2,3]} -> y:f32[N,C]
//     =>  x -> GlobalAveragePool -> f32[N,C,1,1] -> Reshape -> y        (keepdims=1: without the Reshape)
#include <algorithm>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// The axes of a reduction, in [0, rank), sorted; nullopt when they are not constant.
std::optional<std::vector<int64_t>> MeanAxes(const Graph& graph, const Node& node, int rank) {
  std::vector<int64_t> axes;
  if (node.input(1) != kNone) {
    const auto ints = IntsOf(graph, node.input(1));
    if (!ints) return std::nullopt;
    axes = *ints;
  } else if (const auto ints = node.attributes.Ints("axes", {}); ints.ok()) {
    axes = *ints;
  }
  for (int64_t& axis : axes) axis = axis < 0 ? axis + rank : axis;
  std::ranges::sort(axes);
  return axes;
}

bool SpatialMeanAt(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  const ValueId x = node.input(0);
  const int rank = RankOf(graph, x);
  // Of rank 3 the last axis is as often a feature axis, where means are no pooling.
  if (rank < 4 || !IsPlainF32(graph, x) || !node.post_ops.empty()) return false;
  const auto axes = MeanAxes(graph, node, rank);
  if (!axes || axes->size() != static_cast<size_t>(rank - 2)) return false;
  for (int i = 2; i < rank; ++i) {
    if ((*axes)[i - 2] != i) return false;
  }
  const Shape& shape = *graph.value(x).shape;
  Shape pooled{shape[0], shape[1]};
  for (int i = 2; i < rank; ++i) pooled.push_back(1);
  if (node.attributes.IntOr("keepdims", 1) != 0) {
    Replace(graph, id, MakeNode("GlobalAveragePool", node, {x}, {}));
    return true;
  }
  const ValueId mean = AddValue(graph, node.name + "_pooled", DType::kF32, pooled);
  graph.InsertNodeBefore(id, MakeNode("GlobalAveragePool", node, {x}, {mean}));
  const int64_t channels[] = {0, 0};  // Reshape's 0: the extent at the same place.
  const ValueId target = AddInts(graph, node.name + "_shape", channels);
  Replace(graph, id, MakeNode("Reshape", node, {mean, target}, {}));
  return true;
}

}  // namespace

absl::StatusOr<int> SpatialMean(Graph& graph, const PassContext& /*context*/) {
  return RewriteEach(graph, {"ReduceMean"}, SpatialMeanAt);
}

}  // namespace octet
