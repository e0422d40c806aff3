// Relu and Clip as bounds of a result in float.
#pragma once

#include <limits>
#include <span>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"

namespace octet {

/// y = min(max(x, low), high), low <= high; a NaN stays one.
struct RealBounds {
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
};

/// What `activations`, one after the other, come to. UNIMPLEMENTED where one is neither Relu nor a Clip with low <= high.
absl::StatusOr<RealBounds> RealBoundsOf(std::span<const PostOp> activations);

}  // namespace octet
