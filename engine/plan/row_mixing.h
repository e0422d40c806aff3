// Which models must not have requests stacked: one request's answer would read another one's samples.
#pragma once

#include <optional>
#include <string>

#include "engine/graph/graph.h"

namespace octet {

/// Where samples that are stacked along axis 0 of the inputs meet: in a node that reads several of them for one element (a
/// reduction, a selection or a normalisation along their axis, a product that adds up over it, the steps of a recurrent
/// network, arithmetic with how many there are), in an output that has them along another axis, or in one of places that are
/// counted through all of them (MaxPool's Indices). Describes that node or output; nullopt where none surely does.
///
/// Follows the axis of the samples through ONNX's own operators. Where it is lost (shapes that are computed, other operators),
/// samples are taken to stay apart, as exporters mean when they leave a batch open: this finds what contradicts that, and
/// proves nothing. What a DynamicQuantizeLinear does is left out: its range is that of the batch in every runtime, by design.
/// Requires: InferShapes has run. Thread-safety: safe.
std::optional<std::string> WhereRowsMeet(const Graph& graph);

}  // namespace octet
