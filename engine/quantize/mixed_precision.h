// Which layers of a static int8 file stay in float.
#pragma once

#include "absl/status/statusor.h"

#include "engine/quantize/quantizer.h"

namespace octet {

/// Makes the int8 file with the least work in float that the search finds to hold `recipe.floor` on samples held back:
///   1. All in int8, with each of the recipe's ranges. If the floor holds, that is the file.
///   2. Each layer (Conv, Gemm, MatMul) alone in int8: the noise that it leaves in the outputs. Noise of independent layers adds
///      up, so these figures rank the layers, by noise per time that int8 saves.
///   3. 1, 2, 4, ... layers from the top of the ranking in float until the floor holds, then bisection between the last two.
///   4. Layers that stayed in float are tried in int8 again, those first where it saves the most.
///   5. The other ranges are tried on the result.
/// Time that int8 saves is estimated from multiply-adds and the activations that it converts, the same on every machine, so that a
/// seed decides alone; times in the result are measured. Layers beyond 128 are measured and decided in groups of neighbours.
/// Bound: 128 runs on 16 samples, and 50 on the samples held back, each of which takes at most Mixtures::kMostMacs multiply-adds
/// (or 16 samples).
/// The nodes left in float compute in f32, whatever the processor has: they are FLOAT in the file, which other runtimes read too,
/// and what int8 cannot hold (spectra, logarithms) has a range that bf16's 8 bits of mantissa cut as well.
/// Requires: opset >= kQuantizeOpset, shapes inferred; a floor other than kAuto and kAllInt8. Errors: as Mixtures::Prepare;
/// FAILED_PRECONDITION, saying what was reached, when even a single layer in int8 breaks the floor.
/// Source of additive noise: Zhou et al., Adaptive Quantization for Deep Neural Network (2018).
absl::StatusOr<QuantizeResult> QuantizeMixed(Graph graph, const QuantizeRecipe& recipe,
                                             const CalibrationSet& calibration,
                                             const CalibrationRun& run);

}  // namespace octet
