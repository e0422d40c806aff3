// Averages over windows of 8-bit values.
#pragma once

#include <memory>

#include "engine/ops/pool_loops.h"
#include "engine/ops/step.h"

namespace octet {

/// Which divisor a window's sum gets.
enum class AverageCount : uint8_t {
  kInside,  ///< The taps inside the input.
  kPadded,  ///< Those inside the padded input (count_include_pad since opset 19).
  kKernel,  ///< The whole kernel (count_include_pad before).
};

/// As an AveragePool or GlobalAveragePool says.
AverageCount AverageCountOf(const Node& node);

/// y = sum over the window of s * (q - z), divided by its count, rounded once when it is stored: the sum is taken in
/// integers, so that only the last step rounds. x and y are [N, spatial..., C]; x has one scale, y one scale or is F32.
/// "octet:average_int8". UNIMPLEMENTED for other types, post-ops, and windows whose sum could overflow.
absl::StatusOr<std::unique_ptr<Step>> LowerIntegerAverage(const LowerContext& context,
                                                          const PoolGeometry& geometry,
                                                          AverageCount count);

}  // namespace octet
