// A tensor times one factor per channel: the gates of squeeze-and-excitation.
#pragma once

#include <memory>

#include "engine/ops/step.h"

namespace octet {

/// Lowers a Mul without post-ops: y[n, s, c] = x[n, s, c] * factor[n, c], x and y stored alike, as 8-bit integers with one
/// scale (each its own) or as BF16; x [N..., spatial..., C] has y's shape, the other operand its leading and last extents and 1
/// (or nothing) in between, stored in any RealFormat. One pass from type to type, in float, rounded once; 8-bit values are
/// clamp(round((x - x_zero) * (x_scale / y_scale * factor)) + y_zero), a NaN being y_zero: within one step of what
/// x_scale * (x - x_zero) * factor, divided by y_scale, gives. Halves go to even, the bits are the same on every CPU.
/// EfficientNet-B0's 16 gates take 0.67 ms in int8 as general blocks of floats. "octet:channel_scale". UNIMPLEMENTED for
/// other nodes.
absl::StatusOr<std::unique_ptr<Step>> LowerChannelScale(const LowerContext& context);

}  // namespace octet
