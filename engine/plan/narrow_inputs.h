// A graph that begins with what it would make of its inputs first.
#pragma once

#include <optional>
#include <vector>

#include "engine/graph/graph.h"
#include "engine/tensor/real_format.h"

namespace octet {

/// x:f32 -> octet:Convert -> y:u8{s,z}  =>  y is the input, under the name of x. BF16 alike. Only inputs whose readers are
/// all Converts to one type; the others, and those that are outputs, stay as they are. Returns the format of every input of
/// the graph that was narrowed, in order. Requires: inferred types.
std::vector<std::optional<RealFormat>> NarrowInputs(Graph& graph);

}  // namespace octet
