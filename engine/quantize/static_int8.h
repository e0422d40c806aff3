// Full-integer post-training quantization.
#pragma once

#include "absl/status/statusor.h"

#include "engine/quantize/output_gains.h"
#include "engine/quantize/quantizer.h"

namespace octet {

/// Inserts QuantizeLinear/DequantizeLinear pairs on the selected values and quantizes the weights:
///   x f32 -> Conv(w f32, b f32) -> Relu -> y f32
///   x f32 -> Q -> DQ -> Conv(DQ(w i8), DQ(b i32)) -> Relu -> Q -> DQ -> y f32
/// By the recipe that asks for no floor and chooses ranges by the outputs, no file comes out that takes more than 5 % longer than the fp32
/// graph, which takes 0.5 ms at least, for one run on one thread of this machine, as measured in turns (LatencyMeter): then it is the
/// fastest mixture (LayerTimes::kAgainstFp32), of int8 in no layer if need be, and a record "slower" says so. Where no mixtures can be
/// tried, for want of samples, it says that.
/// `gains`: as QuantizeForOutputs has them; mixtures do not use them.
/// Requires: opset >= kQuantizeOpset, shapes inferred.
absl::StatusOr<QuantizeResult> QuantizeStatic(Graph graph, const QuantizeRecipe& recipe,
                                              const CalibrationData& calibration,
                                              const CalibrationRun& run, const OutputGains* gains);

}  // namespace octet
