// What a model takes and gives, and how the shapes of a request meet it.
#pragma once

#include <span>

#include "absl/status/status.h"

#include "engine/engine.h"
#include "engine/graph/graph.h"

namespace octet {

/// The interface of a graph whose shapes are inferred.
Signature MakeSignature(const Graph& graph);

/// Checks one shape per input (of a sequence or optional, and of a tensor of unknown rank, any that IsPossible): ranks, known
/// extents, open ones not below 0, and one batch for all inputs of a model that batches, of at least 1.
/// INVALID_ARGUMENT naming the input, expected and got.
absl::Status CheckShapes(const Signature& signature, std::span<const Shape> shapes);

/// Gives the graph's inputs these shapes.
/// Requires: CheckShapes.
void BindShapes(Graph& graph, std::span<const Shape> shapes);

}  // namespace octet
