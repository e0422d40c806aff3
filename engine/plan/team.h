// Which steps are long enough for several threads.
#pragma once

#include "engine/graph/graph.h"

namespace octet {

/// True when the node's work outlasts the meeting of a team of threads at its end, which takes some 6 us on two cores: with
/// two threads, a step that takes one of them less than twice that is slower. Measured by multiply-adds, as many as a core
/// makes of the node's element type in 10 us, a depthwise convolution's counted four times; of other nodes by the bytes that
/// they read and write. Requires: static shapes.
bool IsWorthATeam(const Graph& graph, const Node& node);

}  // namespace octet
