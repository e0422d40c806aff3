// Activations as post-ops: what fuse_activation fuses.
#pragma once

#include <optional>

#include "engine/graph/graph.h"

namespace octet {

/// The post-op that does what `node` does to its input 0; nullopt when it is no activation that post-ops know, or its
/// parameters are not constant.
std::optional<PostOp> AsPostOp(const Graph& graph, const Node& node);

/// True when storing as the 8-bit type of `value` clamps at least as hard as `op` does, so that it changes nothing:
/// Relu before U8 with zero point 0, Clip [0, 6] before a scale of 6 / 255.
bool ImpliedByStorage(const PostOp& op, const Value& value);

}  // namespace octet
