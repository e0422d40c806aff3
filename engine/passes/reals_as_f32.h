// A graph's reals as F32, whatever it declares them as: what widen_reals does for the passes, and the quantizer for itself.
#pragma once

#include <vector>

#include "absl/functional/function_ref.h"

#include "engine/graph/graph.h"

namespace octet {

/// Makes F32 of every value, constant and attribute whose elements `taken` names, those of the graph's inputs and outputs and of
/// sub-graphs among them, and leaves out Casts from F32 to F32. Elements of F64 beyond F32's range become its largest, as masks
/// have them there. Returns how many values and attributes it changed. Requires: InferShapes has run; no value that is taken is
/// quantized.
int StoreRealsAsF32(Graph& graph, bool (*taken)(DType dtype));

/// Element types of a graph's inputs and outputs, in their order.
struct InterfaceTypes {
  std::vector<DType> inputs;
  std::vector<DType> outputs;
};
InterfaceTypes InterfaceTypesOf(const Graph& graph);

/// Gives inputs and outputs that StoreRealsAsF32 has changed their types and names again; what is inside reads, or makes, their
/// twin in F32, called "x_f32" for "x". `convert` makes the node between the two that answers in a type. Requires: tensors, as many as
/// there are types.
void RestoreInterface(Graph& graph, const InterfaceTypes& types,
                      absl::FunctionRef<Node(DType to)> convert);

}  // namespace octet
