// How a Transpose passes each operator: what push_transposes asks for.
#pragma once

#include "engine/graph/graph.h"
#include "engine/passes/permutation.h"

namespace octet {

/// The perm of the Transpose that writes `value`; empty when another node does.
Permutation TransposedBy(const Graph& graph, ValueId value);

/// Lets `node` read what Transpose(perm) reads on some of its inputs, and puts Transposes behind it instead:
///
///   op(Transpose(x))  =>  Transpose'(op'(x))
///
/// False, and nothing changed, when the operator has no such form, or would need more Transposes than it loses.
bool PassThrough(Graph& graph, NodeId node, const Permutation& perm);

/// The same for Reshape and Flatten (transpose_reshape.cc).
bool PassThroughReshape(Graph& graph, NodeId node, const Permutation& perm);

}  // namespace octet
