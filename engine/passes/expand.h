// A node that is a function, replaced by its body.
#pragma once

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/function.h"

namespace octet {

/// Puts the body's nodes where the node was. False when the body waits for extents that are not known yet.
/// Requires: the node's operator has an ExpandFn. Errors: as FunctionBody::Make, naming the node.
absl::StatusOr<bool> ExpandFunction(Graph& graph, NodeId id);

}  // namespace octet
