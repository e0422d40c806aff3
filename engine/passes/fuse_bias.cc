// fuse_bias: a constant per channel behind a Conv or octet:MatMul is its bias.
//
//   x:f32 -> Conv(w, b) -> f32 -> Add(c:f32[OC,1,1]) -> y     =>  x -> Conv(w, b + c) -> y
//   x:f32 -> octet:MatMul(B) -> f32 -> Add(c:f32[N]) -> y     =>  x -> octet:MatMul(B, c) -> y
//
// Sub of a constant is an Add of its negative.
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

bool FuseBiasAt(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!node.post_ops.empty()) return false;
  for (const size_t slot : {0, 1}) {
    if (slot == 1 && node.is("Sub")) break;
    const ValueId sum = node.input(slot);
    const Node* mac = ProducerOf(graph, sum);
    if (mac == nullptr || !IsMac(*mac) || !mac->post_ops.empty() || graph.SoleConsumer(sum) != id)
      continue;
    if (!IsPlainF32(graph, sum)) continue;
    const int64_t channels = ChannelCount(graph, *mac);
    auto bias = PerChannel(graph, node.input(1 - slot), RankOf(graph, sum),
                           ChannelAxis(graph, *mac), channels);
    if (!bias) continue;
    if (node.is("Sub")) {
      for (float& b : *bias) b = -b;
    }
    if (mac->input(2) != kNone) {
      const auto own = FloatsOf(graph, mac->input(2));
      if (!own || own->size() != bias->size()) continue;
      for (size_t i = 0; i < bias->size(); ++i) (*bias)[i] += (*own)[i];
    }
    const NodeId into = graph.producer(sum);
    const ValueId constant =
        AddFloats(graph, graph.node(into).name + "_bias", Shape{channels}, *std::move(bias));
    graph.SetInput(into, 2, constant);
    TakeOver(graph, into, id);
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<int> FuseBias(Graph& graph, const PassContext& /*context*/) {
  return RewriteEach(graph, {"Add", "Sub"}, FuseBiasAt);
}

}  // namespace octet
