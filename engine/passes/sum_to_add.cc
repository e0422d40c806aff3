// sum_to_add: a Sum is a chain of Adds, which fuse with their neighbours.
//
//   a, b, c -> Sum -> y     =>  (a, b -> Add), c -> Add -> y
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {

absl::StatusOr<int> SumToAdd(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (!graph.node(id).is("Sum")) continue;
    const Node sum = graph.node(id);
    if (sum.inputs.size() < 2) continue;
    ValueId partial = sum.inputs[0];
    for (size_t i = 1; i + 1 < sum.inputs.size(); ++i) {
      const ValueId next = AddValue(graph, sum.name + "_partial", graph.value(partial).dtype);
      graph.InsertNodeBefore(id, MakeNode("Add", sum, {partial, sum.inputs[i]}, {next}));
      partial = next;
    }
    Replace(graph, id, MakeNode("Add", sum, {partial, sum.inputs.back()}, {}));
    ++count;
  }
  return count;
}

}  // namespace octet
