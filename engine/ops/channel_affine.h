// Values times a factor plus an addend per channel: a normalization ahead of a convolution, of one value or of several side by side,
// rounded to 8 bits or in the values' own type.
#pragma once

#include <memory>

#include "engine/ops/step.h"

namespace octet {

/// Lowers a Mul of FP32 x [..., C] by constants f [C], or a Concat of FP32 parts along the last axis with a kMul of such, to 8-bit
/// integers with one scale s and zero point z; further post-ops are factors and addends g per channel, then Relu or Clip as bounds.
/// y = clamp(round(x * (f / s) + g / s) + z) in one pass, a NaN being z: within one step of what x * f + g, divided by s, gives.
/// Halves go to even, the bits are the same on every CPU. Or x and y are both FP32 or both BF16, f has a factor for each channel, and
/// y = min(max(x * f + g, low), high), f and g being composed in double; product and sum are rounded once where the CPU can. Parts of
/// a Concat are read where they are, and joined nowhere.
/// "octet:channel_affine". UNIMPLEMENTED for other nodes.
absl::StatusOr<std::unique_ptr<Step>> LowerChannelAffine(const LowerContext& context);

}  // namespace octet
