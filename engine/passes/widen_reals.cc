// widen_reals: what a model declares as FLOAT16 or BFLOAT16 is F32 inside, so that all other passes know its reals.
//
//   x:f16 -> Conv(w:f16) -> Relu -> y:f16    =>   x -> octet:Convert:f32 -> Conv(w:f32) -> Relu:f32 -> octet:Convert -> y
//   x:f32 -> Cast:f16 -> Conv(w:f16) -> Cast:f32 -> y:f32   =>   x -> Conv(w:f32) -> y
//
// Inputs and outputs of the graph keep their types. What then multiplies in BF16 is lower_bf16's affair, as it is for files that
// only store weights in 16 bits. A Cast to these types rounds nothing any more between two values inside: they keep more bits than
// the model asks for, and what the type would turn into infinity (F16: beyond 65504) stays finite; it overflows where the
// graph's output is stored in it. Constants computed of others (fold_constants) have been rounded, each time.
//
// Runs once on a graph, before any pass stores a value in 16 bits (Graph::reals_widened). A graph with sub-graphs, whose bodies have
// declared types, stays as it is: its segments are widened one by one.
#include "engine/graph/stored_value.h"
#include "engine/ops/op.h"
#include "engine/passes/passes.h"
#include "engine/passes/reals_as_f32.h"

namespace octet {
namespace {

bool HasSubgraphs(const Graph& graph) {
  for (const NodeId id : graph.order()) {
    const OpDef* def = FindOp(graph.node(id));
    if (def != nullptr && def->traits.control) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<int> WidenReals(Graph& graph, const PassContext& /*context*/) {
  if (graph.reals_widened || HasSubgraphs(graph)) return 0;
  graph.reals_widened = true;
  const InterfaceTypes declared = InterfaceTypesOf(graph);
  const int count = StoreRealsAsF32(graph, IsNarrowReal);
  RestoreInterface(graph, declared, [](DType) {
    Node node;
    node.op = "Convert";
    node.domain = kOctetDomain;
    return node;
  });
  return count;
}

}  // namespace octet
