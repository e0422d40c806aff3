// fold_pad: zeros around the input of a convolution or an average are padding that the operator knows itself.
//
//   x:f32 -> Pad {0, spatial} -> f32 -> Conv {pads=p} -> y     =>  x -> Conv {pads=p+q} -> y
//
// AveragePool counts such zeros: exact when it counted its own padding (count_include_pad) or had none.
#include <algorithm>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

using Ints = std::vector<int64_t>;

// Zeros added around the spatial axes: begins, then ends; nullopt for any other Pad.
std::optional<Ints> SpatialZeros(const Graph& graph, const Node& pad) {
  const auto mode = pad.attributes.String("mode", "constant");
  if (!mode.ok() || *mode != "constant" || pad.input(3) != kNone) return std::nullopt;
  std::optional<Ints> pads;
  if (pad.version < 11) {
    const auto value = pad.attributes.Float("value", 0);
    if (!value.ok() || *value != 0) return std::nullopt;
    if (const auto ints = pad.attributes.Ints("pads", {}); ints.ok()) pads = *ints;
  } else {
    if (pad.input(2) != kNone && ScalarOf(graph, pad.input(2)) != 0.0F) return std::nullopt;
    pads = IntsOf(graph, pad.input(1));
  }
  const auto rank = static_cast<size_t>(RankOf(graph, pad.input(0)));
  if (!pads || pads->size() != 2 * rank || rank < 3) return std::nullopt;
  if (std::ranges::any_of(*pads, [](int64_t p) { return p < 0; })) return std::nullopt;
  if ((*pads)[0] != 0 || (*pads)[1] != 0 || (*pads)[rank] != 0 || (*pads)[rank + 1] != 0)
    return std::nullopt;
  Ints spatial(pads->begin() + 2, pads->begin() + static_cast<int64_t>(rank));
  spatial.insert(spatial.end(), pads->begin() + static_cast<int64_t>(rank) + 2, pads->end());
  return spatial;
}

bool FoldPadAt(Graph& graph, NodeId id) {
  Node& node = graph.mutable_node(id);
  if (node.attributes.has("auto_pad") || node.attributes.IntOr("channels_last", 0) != 0)
    return false;
  const NodeId pad = ProducerIf(graph, node.input(0), "Pad");
  if (pad == kNone || !IsPlainF32(graph, graph.node(pad).input(0))) return false;
  const auto zeros = SpatialZeros(graph, graph.node(pad));
  if (!zeros) return false;
  const auto own = node.attributes.Ints("pads", Ints(zeros->size(), 0));
  if (!own.ok() || own->size() != zeros->size()) return false;
  if (node.is("AveragePool")) {
    const bool unpadded = std::ranges::all_of(*own, [](int64_t p) { return p == 0; });
    const bool counts = node.attributes.IntOr("count_include_pad", 0) != 0;
    if ((!unpadded && !counts) || node.attributes.IntOr("ceil_mode", 0) != 0) return false;
    node.attributes.Set("count_include_pad", int64_t{1});
  }
  Ints sum = *own;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += (*zeros)[i];
  node.attributes.Set("pads", sum);
  graph.SetInput(id, 0, graph.node(pad).input(0));
  return true;
}

}  // namespace

absl::StatusOr<int> FoldPad(Graph& graph, const PassContext& /*context*/) {
  return RewriteEach(graph, {"Conv", "AveragePool"}, FoldPadAt);
}

}  // namespace octet
