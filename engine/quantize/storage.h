// Weights stored in 16 bits.
#pragma once

#include "absl/status/statusor.h"

#include "engine/quantize/quantizer.h"

namespace octet {

/// Stores every F32 initializer of two or more elements as F16 or BF16 behind a Cast to FLOAT:
///   w f32  ->  w f16 -> Cast(to=FLOAT) -> f32
/// An initializer of which a finite element would be infinite, or in F16 a divisor 0, is kept and recorded, and so is one that shapes
/// or positions depend on (scales and region of a Resize, a factor of extents): 0.9 as BF16 makes 26 of 30 pixels, not 27. So is one of
/// at most 1024 elements that angles, what Sin and Cos read, are made of.
/// INVALID_ARGUMENT when there is no F32 initializer.
absl::StatusOr<QuantizeResult> StoreWeightsAs(Graph graph, DType dtype);

}  // namespace octet
