// Full-integer post-training quantization.
#pragma once

#include "absl/status/statusor.h"

#include "engine/quantize/quantizer.h"

namespace octet {

/// Inserts QuantizeLinear/DequantizeLinear pairs on the selected values and quantizes the weights:
///   x f32 -> Conv(w f32, b f32) -> Relu -> y f32
///   x f32 -> Q -> DQ -> Conv(DQ(w i8), DQ(b i32)) -> Relu -> Q -> DQ -> y f32
/// Requires: opset >= kQuantizeOpset, shapes inferred.
absl::StatusOr<QuantizeResult> QuantizeStatic(Graph graph, const QuantizeRecipe& recipe,
                                              const CalibrationData& calibration,
                                              const CalibrationRun& run);

}  // namespace octet
