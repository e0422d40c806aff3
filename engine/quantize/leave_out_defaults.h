// What a file need not say.
#pragma once

#include "engine/graph/graph.h"

namespace octet {

/// Takes out what a reader finds again by ONNX's rules: the types of values that shape inference gives (those inside of bodies stay),
/// and attributes of convolutions and products at their defaults; and each Clip that only a QuantizeLinear reads which cuts at the same ends.
/// For a model of many small layers they are one byte in a hundred of an int8 file. No answer changes.
void LeaveOutDefaults(Graph& graph);

}  // namespace octet
