// fuse_swish: x * sigmoid(alpha * x) behind a Conv or octet:MatMul becomes one post-op.
//
//   .. -> Conv -> x:f32 --> Sigmoid --> Mul -> y     =>  .. -> Conv + swish -> y
//                   \------------------/
//
// ONNX has no operator of this name (up to opset 22), so only a node that carries post-ops can take it in.
// Source: Ramachandran et al. 2017.
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/product.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// Whether nobody else reads what lies between x and `value`, which is x times constants.
bool IsReadOnce(const Graph& graph, ValueId x, ValueId value) {
  while (value != x) {
    const Node* node = ProducerOf(graph, value);
    if (node == nullptr || graph.SoleConsumer(value) == kNone) return false;
    value = node->input(ConstantOf(graph, node->input(0)) != nullptr ? 1 : 0);
  }
  return true;
}

bool FuseSwishAt(Graph& graph, NodeId id) {
  const Node& mul = graph.node(id);
  if (!mul.post_ops.empty()) return false;
  for (const size_t slot : {0, 1}) {
    const ValueId x = mul.input(slot);
    const NodeId sigmoid = ProducerIf(graph, mul.input(1 - slot), "Sigmoid");
    const Node* mac = ProducerOf(graph, x);
    if (sigmoid == kNone || mac == nullptr || !IsMac(*mac) || !IsPlainF32(graph, x)) continue;
    if (mac->post_ops.size() >= kMostActivations) continue;
    if (graph.SoleConsumer(mul.input(1 - slot)) != id || !graph.node(sigmoid).post_ops.empty())
      continue;
    Product argument = Factorize(graph, graph.node(sigmoid).input(0));
    if (!argument.Remove(x) || !argument.factors.empty()) continue;
    // Nobody else may read x: the product, and the sigmoid (through a Mul when alpha is not 1).
    if (graph.consumers(x).size() != 2 || graph.is_graph_output(x)) continue;
    if (!IsReadOnce(graph, x, graph.node(sigmoid).input(0))) continue;
    if (!SameRank(graph, x, mul.output(0))) continue;
    const NodeId into = graph.producer(x);
    graph.mutable_node(into).post_ops.push_back({PostOp::Kind::kSwish, argument.constant});
    TakeOver(graph, into, id);
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<int> FuseSwish(Graph& graph, const PassContext& /*context*/) {
  // The branch through Sigmoid reads what the Conv no longer writes, and dies with RemoveDead.
  return RewriteEach(graph, {"Mul"}, FuseSwishAt);
}

}  // namespace octet
