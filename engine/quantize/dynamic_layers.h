// Which layers of a dynamic int8 file multiply integers, and which stay in float.
#pragma once

#include <map>
#include <string>

#include "engine/graph/graph.h"

namespace octet {

/// Layers of which AsWeighted is true that would be slower with an activation that is quantized when they run, each with the reason.
/// Times are estimated (int8_cost.h), per element of the activation x that a layer reads; the batch and the image's size do not matter:
///   multiply-adds  Conv: OC / groups * taps / strides;  ConvTranspose: OC / groups * taps;  Gemm, MatMul: N
///   in int8        four neighbours of the depth d at once, d = IC / groups, K: those of 4 * ceil(d / 4) / d times as many
/// x is quantized once for all that read it: convolutions are in int8 where what they save together is more than that takes, or where a
/// product reads x, too. A product is in int8 however few its columns: a row times a matrix takes the time of reading the matrix, and bytes
/// are a quarter of that, where float pads the columns besides.
/// Depthwise convolutions save nothing: nothing lies beside the one channel that they add up.
std::map<NodeId, std::string> LayersSlowerInDynamicInt8(const Graph& graph);

}  // namespace octet
