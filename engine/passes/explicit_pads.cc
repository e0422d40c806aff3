// explicit_pads: writes what the attributes of Conv, MaxPool and AveragePool leave to defaults and to the input.
//
//   x:f32[N,1,28,28] -> Conv {auto_pad=SAME_UPPER} -> y:f32
//     =>  x -> Conv {pads=[2,2,2,2], strides=[1,1], dilations=[1,1], group=1, kernel_shape=[5,5]} -> y
//
// SAME_* over unknown extents waits for the plan, unless the stride is 1: then the padding does not depend on them.
#include <algorithm>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Ints = std::vector<int64_t>;

// Total padding that makes ceil(extent / stride) windows fit; nullopt while the extent is unknown and matters, and for no
// extent at all, over which padding would leave part of a window.
std::optional<int64_t> SamePadding(int64_t extent, int64_t kernel, int64_t stride,
                                   int64_t dilation) {
  const int64_t window = (kernel - 1) * dilation + 1;
  if (extent == 0) return std::nullopt;
  if (stride == 1) return window - 1;
  if (extent == kUnknownDim) return std::nullopt;
  const int64_t windows = (extent + stride - 1) / stride;
  return std::max<int64_t>(0, (windows - 1) * stride + window - extent);
}

std::optional<Ints> SamePads(const Shape& x, const Ints& kernel, const Ints& strides,
                             const Ints& dilations, bool extra_at_end) {
  const size_t spatial = kernel.size();
  Ints pads(2 * spatial);
  for (size_t i = 0; i < spatial; ++i) {
    const auto total = SamePadding(x[static_cast<int>(i) + 2], kernel[i], strides[i], dilations[i]);
    if (!total) return std::nullopt;
    const int64_t smaller = *total / 2;
    pads[i] = extra_at_end ? smaller : *total - smaller;
    pads[spatial + i] = *total - pads[i];
  }
  return pads;
}

absl::StatusOr<bool> MakeExplicit(const Graph& graph, Node& node) {
  const bool conv = node.is("Conv");
  const ValueId x = node.input(0);
  if (RankOf(graph, x) < 3) return false;
  const Shape& shape = *graph.value(x).shape;
  const auto spatial = static_cast<size_t>(shape.rank() - 2);
  Ints kernel;
  if (conv && graph.value(node.input(1)).has_static_shape()) {
    const Shape& weights = *graph.value(node.input(1)).shape;
    if (weights.rank() == shape.rank()) kernel.assign(weights.begin() + 2, weights.end());
  }
  OCTET_ASSIGN_OR_RETURN(kernel, node.attributes.Ints("kernel_shape", kernel));
  OCTET_ASSIGN_OR_RETURN(const Ints strides, node.attributes.Ints("strides", Ints(spatial, 1)));
  OCTET_ASSIGN_OR_RETURN(const Ints dilations, node.attributes.Ints("dilations", Ints(spatial, 1)));
  OCTET_ASSIGN_OR_RETURN(Ints pads, node.attributes.Ints("pads", Ints(2 * spatial, 0)));
  OCTET_ASSIGN_OR_RETURN(const std::string mode, node.attributes.String("auto_pad", "NOTSET"));
  if (kernel.size() != spatial || strides.size() != spatial || dilations.size() != spatial)
    return false;
  if (mode == "VALID") pads.assign(2 * spatial, 0);
  if (mode == "SAME_UPPER" || mode == "SAME_LOWER") {
    const auto same = SamePads(shape, kernel, strides, dilations, mode == "SAME_UPPER");
    if (!same) return false;
    pads = *same;
  }
  const size_t before = node.attributes.size();
  const bool had_mode = node.attributes.has("auto_pad");
  node.attributes.Erase("auto_pad");
  node.attributes.Set("kernel_shape", kernel);
  node.attributes.Set("strides", strides);
  node.attributes.Set("pads", pads);
  if (conv || node.is("MaxPool")) node.attributes.Set("dilations", dilations);
  if (conv && !node.attributes.has("group")) node.attributes.Set("group", int64_t{1});
  return had_mode || node.attributes.size() != before;
}

}  // namespace

absl::StatusOr<int> ExplicitPads(Graph& graph, const PassContext& /*context*/) {
  int changed = 0;
  for (const NodeId id : graph.order()) {
    Node& node = graph.mutable_node(id);
    if (!node.is("Conv") && !node.is("MaxPool") && !node.is("AveragePool")) continue;
    // Where channels are last, this pass has been here before.
    if (node.attributes.IntOr("channels_last", 0) != 0) continue;
    OCTET_ASSIGN_OR_RETURN(const bool made, MakeExplicit(graph, node));
    changed += made ? 1 : 0;
  }
  return changed;
}

}  // namespace octet
