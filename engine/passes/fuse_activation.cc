// fuse_activation: an activation that alone reads a Conv, octet:MatMul or elementwise sum is computed on the way out.
//
//   x:f32 -> Conv -> f32 -> Relu -> y:f32      =>  x -> Conv + relu -> y
//   a:f32, b:f32 -> Add -> f32 -> Clip -> y    =>  Add(a, b) + clip -> y
//
// Only across a value that is stored as a float: the rounding of an integer in between belongs to the model.
#include "engine/ops/function.h"
#include "engine/passes/activation.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// What raise_opset has yet to rewrite, its ranks being unknown, carries nothing into the nodes that it becomes.
bool CarriesActivation(const Node& node) {
  if (node.domain == kOnnxDomain && node.version < kOldestKeptOpset) return false;
  return IsMac(node) || node.is("Add") || node.is("Sub") || node.is("Mul");
}

bool FuseActivationAt(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const ValueId x = node.input(0);
  const Node* host = ProducerOf(graph, x);
  if (host == nullptr || !CarriesActivation(*host) || !node.post_ops.empty()) return false;
  if (host->post_ops.size() >= kMostActivations) return false;
  if (graph.SoleConsumer(x) != id || !IsPlainReal(graph, x)) return false;
  const auto post_op = AsPostOp(graph, node);
  if (!post_op) return false;
  const NodeId into = graph.producer(x);
  graph.mutable_node(into).post_ops.push_back(*post_op);
  TakeOver(graph, into, id);
  return true;
}

}  // namespace

absl::StatusOr<int> FuseActivation(Graph& graph, const PassContext& /*context*/) {
  return RewriteEach(graph, {}, FuseActivationAt);
}

}  // namespace octet
