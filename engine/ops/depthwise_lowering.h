// Depthwise convolutions of 8-bit integers and of BF16 on Octet's own kernels.
#pragma once

#include <memory>

#include "engine/ops/depthwise_bf16.h"
#include "engine/ops/depthwise_int8.h"
#include "engine/ops/step.h"
#include "engine/ops/whole_sums.h"

namespace octet {

/// The step of a Conv whose input, weights and result are int8, one input and one output channel per group, that has `shape`.
/// UNIMPLEMENTED where the kernel has no form of it.
absl::StatusOr<std::unique_ptr<Step>> LowerDepthwiseInt8(const LowerContext& context,
                                                         const WholeSums& whole,
                                                         const DepthwiseShape& shape);

/// The same for input, constant weights and result of BF16, any number of Relu and Clip or one Swish or HardSwish behind it.
absl::StatusOr<std::unique_ptr<Step>> LowerDepthwiseBf16(const LowerContext& context,
                                                         const DepthwiseShape& shape);

}  // namespace octet
