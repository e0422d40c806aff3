// The sub-graphs of If, Loop, Scan and SequenceMap: how many inputs are whose, and what is known of them before they run.
//
//     If          cond                      captures...        body:                                  captures...
//     Loop        M, cond, state[N]         captures...        iteration, cond, state[N]              captures...
//     Scan        state[N], scanned[M]      captures...        state[N], scanned[M] without the axis  captures...
//     SequenceMap sequence, others...       captures...        element, others' elements...           captures...
//
// Loop's body answers cond, state[N], results[K]; Scan's state[N], results[K]. The node answers state[N], and the results
// of all runs stacked.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"

namespace octet {

/// How the slots of a control node are shared out.
struct ControlSlots {
  size_t own = 0;       ///< Inputs before the captures.
  size_t captures = 0;  ///< Inputs that sub-graphs capture.
  size_t states = 0;    ///< N.
  size_t scanned = 0;   ///< M.
  size_t results = 0;   ///< K.
};

/// Checks that a node, its attributes and its sub-graphs agree about their slots.
/// Errors: INVALID_ARGUMENT naming the node, expected and got.
absl::StatusOr<ControlSlots> SlotsOf(const Node& node);

/// The names of a node's sub-graphs: then_branch and else_branch of an If, else body.
std::span<const std::string_view> BodyNames(const Node& node);

/// A sub-graph with what `graph` knows of the node's inputs, its shapes inferred. What is said of a Loop's and a Scan's
/// state holds in every iteration: extents that an iteration changes are unknown, and all of its shape where bodies lie so
/// deep in each other that finding out would take too long (time and memory follow the size of the bodies).
/// Requires: `node` is a node of `graph`. Errors: INVALID_ARGUMENT when node and body do not fit each other; as InferShapes.
absl::StatusOr<Graph> InferredBody(const Graph& graph, const Node& node, std::string_view body);

}  // namespace octet
