// Signed sources where only u8 x s8 products are exact: without VNNI oneDNN halves the weights of signed ones.
#pragma once

#include "absl/status/statusor.h"

#include "engine/ops/op.h"
#include "engine/ops/primitive_step.h"

namespace octet {

/// Adds input 0 + 128, u8, to what the step computes first; the source's zero point is kUnsignedZero more then. Returns where
/// it lies in the step's scratch. Requires: input 0 is I8.
absl::StatusOr<size_t> AddUnsignedSource(const LowerContext& context, PrimitiveStep& step);

}  // namespace octet
