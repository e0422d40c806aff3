// What a value cannot be, whatever the model is given.
#pragma once

#include "engine/graph/graph.h"

namespace octet {

/// True when no element of a real value is below zero: behind Relu, Sigmoid and their like, as nodes or post-ops, and of what pools, joins
/// and moves that. False where nothing is known. Thread-safety: safe.
bool IsNeverNegative(const Graph& graph, ValueId id);

}  // namespace octet
