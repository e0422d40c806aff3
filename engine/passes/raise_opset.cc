// raise_opset: operators of opsets 1 to 6 in their form of opset 7.
//
//   x:f32[N,C,H,W], b:f32[C] -> Add (opset 6) {broadcast=1, axis=1}
//     =>  Unsqueeze(b):f32[C,1,1] -> Add(x, .) (opset 7)                        ops/legacy.cc has all that changed
//
// Operators that mean the same in both only get the new number. Source: ONNX, Changelog.md.
#include "engine/ops/function.h"
#include "engine/passes/expand.h"
#include "engine/passes/passes.h"
#include "engine/tensor/status.h"

namespace octet {

absl::StatusOr<int> RaiseOldOpsets(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    Node& node = graph.mutable_node(id);
    if (node.domain != kOnnxDomain || node.version >= kOldestKeptOpset) continue;
    const OpDef* def = FindOp(node);
    if (def->expand != nullptr) {
      OCTET_ASSIGN_OR_RETURN(const bool expanded, ExpandFunction(graph, id));
      count += expanded ? 1 : 0;
    } else if (FindOp(node.domain, node.op, kOldestKeptOpset) == def) {
      node.version = kOldestKeptOpset;
      // What opset 1 said about buffers that may be overwritten.
      node.attributes.Erase("consumed_inputs");
      ++count;
    }
  }
  return count;
}

}  // namespace octet
