// inline_if: an If that is decided when the model is compiled becomes the nodes of its branch.
//
//   cond (constant true) -> If {then: x -> Relu -> y, else: ...} -> out        =>    x -> Relu -> out
//
// Exporters write such conditions about ranks and extents: they are constant once these are known.
#include <map>
#include <utility>
#include <vector>

#include "engine/ops/control.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Copies the nodes of `body` before node `at`; returns what its outputs are in the graph. `inside`: what the body's inputs
// are.
std::vector<ValueId> CopyNodes(Graph& graph, NodeId at, const Graph& body,
                               std::map<ValueId, ValueId> inside) {
  const auto copied = [&](ValueId id) {
    const auto [found, added] = inside.try_emplace(id, kNone);
    if (added) {
      Value value = body.value(id);
      value.name = graph.UniqueName(value.name);
      found->second = graph.AddValue(std::move(value));
    }
    return found->second;
  };
  for (const NodeId id : body.order()) {
    Node node = body.node(id);
    for (ValueId& v : node.inputs) v = v == kNone ? kNone : copied(v);
    for (ValueId& v : node.outputs) v = v == kNone ? kNone : copied(v);
    graph.InsertNodeBefore(at, std::move(node));
  }
  std::vector<ValueId> outputs;
  for (const ValueId id : body.outputs) outputs.push_back(copied(id));
  return outputs;
}

absl::StatusOr<bool> Inline(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  const Tensor* condition = ConstantOf(graph, node.input(0));
  if (condition == nullptr || condition->dtype() != DType::kBool || condition->elements() != 1)
    return false;
  OCTET_ASSIGN_OR_RETURN(const ControlSlots slots, SlotsOf(node));
  const size_t branch = condition->span<bool>()[0] ? 0 : 1;
  OCTET_ASSIGN_OR_RETURN(const Subgraph body, node.attributes.GraphOrNull(BodyNames(node)[branch]));
  std::map<ValueId, ValueId> inside;
  for (size_t i = 0; i < slots.captures; ++i) inside[body->inputs[i]] = node.inputs[slots.own + i];
  const std::vector<ValueId> answers = CopyNodes(graph, id, *body, std::move(inside));
  // An answer that the branch does not make itself has a name of its own already, or may be a constant: a graph output
  // needs a node that writes it.
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNone) continue;
    Node copy = MakeNode("Identity", node, {answers[i]}, {});
    copy.version = node.version;
    graph.SetOutput(id, i, kNone);
    graph.mutable_value(node.outputs[i]).kind = ValueKind::kTensor;  // Until the copy says more.
    copy.outputs = {node.outputs[i]};
    graph.InsertNodeBefore(id, std::move(copy));
  }
  graph.RemoveNode(id);
  return true;
}

}  // namespace

absl::StatusOr<int> InlineIf(Graph& graph, const PassContext& /*context*/) {
  int inlined = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (!graph.alive(id) || !graph.node(id).is("If")) continue;
    OCTET_ASSIGN_OR_RETURN(const bool done, Inline(graph, id));
    inlined += done ? 1 : 0;
  }
  return inlined;
}

}  // namespace octet
