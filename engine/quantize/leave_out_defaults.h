// What a file need not say.
#pragma once

#include "engine/graph/graph.h"

namespace octet {

/// Takes out what a reader finds again by ONNX's rules: the types of values that shape inference gives (those inside of bodies stay),
/// and attributes of convolutions at their defaults. For a model of many small layers they are one byte in a hundred of an int8 file.
void LeaveOutDefaults(Graph& graph);

}  // namespace octet
