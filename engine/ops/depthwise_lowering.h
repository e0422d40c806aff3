// Int8 depthwise convolutions on Octet's own kernel.
#pragma once

#include <memory>

#include "engine/ops/depthwise_int8.h"
#include "engine/ops/step.h"
#include "engine/ops/whole_sums.h"

namespace octet {

/// The step of a Conv whose input, weights and result are int8, one input and one output channel per group, that has `shape`.
/// UNIMPLEMENTED where the kernel has no form of it.
absl::StatusOr<std::unique_ptr<Step>> LowerDepthwiseInt8(const LowerContext& context,
                                                         const WholeSums& whole,
                                                         const DepthwiseShape& shape);

}  // namespace octet
