// expand_functions: operators that are defined by others, as those.
//
//   x, w, b, z -> com.microsoft:FusedConv {activation="Relu"}  =>  Conv(x, w, b) -> Add(., z) -> Relu
//
// The other passes then fuse and quantize what it is made of. Bodies: ops/function.h and the tables that name it. What has a fast
// form of its own as well (GroupQueryAttention) stays whole.
#include "engine/passes/expand.h"
#include "engine/passes/passes.h"
#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<bool> ExpandFunction(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  std::vector<std::optional<Value>> inputs;
  for (const ValueId input : node.inputs) {
    inputs.push_back(input == kNone ? std::nullopt : std::optional(graph.value(input)));
  }
  absl::StatusOr<FunctionBody> body = FunctionBody::Make(node, std::move(inputs));
  if (!body.ok()) return Annotate(body.status(), Describe(node));
  if (body->postponed()) return false;

  const Graph& from = body->graph();
  std::vector<ValueId> place(static_cast<size_t>(from.value_count()), kNone);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (node.inputs[i] != kNone) place[static_cast<size_t>(body->inputs()[i])] = node.inputs[i];
  }
  // The node gives its outputs up before the body's nodes write them.
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNone) continue;
    graph.SetOutput(id, i, graph.AddValue({.name = graph.UniqueName(node.name)}));
    place[static_cast<size_t>(body->output(i))] = node.outputs[i];
  }
  const auto placed = [&](ValueId value) {
    if (value == kNone) return kNone;
    ValueId& at = place[static_cast<size_t>(value)];
    if (at != kNone) return at;
    const Value& made = from.value(value);
    Value copy = made;
    copy.name = graph.UniqueName(made.name);
    return at = graph.AddValue(std::move(copy));
  };
  for (const NodeId part : from.order()) {
    Node copy = from.node(part);
    for (ValueId& value : copy.inputs) value = placed(value);
    for (ValueId& value : copy.outputs) value = placed(value);
    graph.InsertNodeBefore(id, std::move(copy));
  }
  graph.RemoveNode(id);
  return true;
}

absl::StatusOr<int> ExpandFunctions(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  // A body may hold functions again; none holds itself.
  for (int before = -1; before != count;) {
    before = count;
    for (const NodeId id : graph.OrderSnapshot()) {
      const OpDef* def = FindOp(graph.node(id));
      if (def == nullptr || def->expand == nullptr || def->lower != nullptr) continue;
      OCTET_ASSIGN_OR_RETURN(const bool expanded, ExpandFunction(graph, id));
      count += expanded ? 1 : 0;
    }
  }
  return count;
}

}  // namespace octet
