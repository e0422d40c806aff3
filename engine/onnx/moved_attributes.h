// Attributes of older opsets in a file that says it is of a newer one.
#pragma once

#include <string_view>

#include "absl/status/status.h"

#include "engine/graph/graph.h"

namespace octet {

/// INVALID_ARGUMENT where the node's opset has an input in place of the attribute, or another meaning without it: it is what a file has
/// whose opset somebody raised by hand. Nobody would read the attribute, and the node would compute something else: a mean over all
/// axes, no bounds of a Clip.
absl::Status CheckNotMoved(const Node& node, std::string_view attribute);

}  // namespace octet
