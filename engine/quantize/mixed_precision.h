// Which layers of a static int8 file stay in float, and in which.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

#include "engine/quantize/quantizer.h"

namespace octet {

/// What tells how long a layer takes in each precision.
enum class LayerTimes : uint8_t {
  /// This machine, one sample at a time on one thread: each layer in f32 and in bf16 (where the processor has it) within the network
  /// of int8, from the step behind the layer before it to the layer behind it, so that conversions at its borders are its own.
  kMeasured,
  /// Multiply-adds and the activations that are converted, in int8 and f32: the same on every machine, so that model, data and seed
  /// alone decide.
  kEstimated,
  /// As kMeasured, of a network that is slower than fp32 with all that can be in int8: fp32 is a mixture, too, and so are some between it
  /// and what is fastest for each layer alone.
  kAgainstFp32,
};

/// What the record is called of a file that has fewer roundings than its recipe says, for the floor's sake.
inline constexpr std::string_view kFewerRoundings = "fewer-roundings";

/// Makes the fastest int8 file that the search finds to hold `recipe.floor` on samples held back:
///   1. All in int8, with each of the recipe's ranges; and, by measured times, every layer in what is fastest for it. If the floor
///      holds, the faster of them is the file.
///      Else, for a floor of the user's, the same with fewer roundings (QuantizeRecipe); where these leave less noise, in all that
///      follows, too, and a record says so (kFewerRoundings).
///   2. Each layer (Conv, ConvTranspose, Gemm, MatMul) alone in int8 (or what is fastest for it), all others in f32: the noise that it leaves in the
///      outputs. Noise of independent layers adds up, so these figures rank the layers, by noise per time saved.
///   3. 1, 2, 4, ... layers from the top of the ranking in f32 until the floor holds, then bisection between the last two.
///   4. By measured times: as many of those in bf16 as the floor takes, by the noise of each alone in bf16 per time saved.
///   5. Layers are tried in what is faster for them again, those first where it saves the most.
///   6. The other ranges, and all roundings again where there are fewer, are tried on the result.
///   7. But by times kMeasured, of a user's floor: constants that stay real are bytes (StoreInBytes), as many as the floor takes.
/// Against fp32, which holds any floor, there is no need of 2 to 6: behind what is fastest for every layer half of those in int8 go to float,
/// those first that gain the least by it, then half of the rest, down to none, for what converts between many neighbours may take more than
/// they gain.
/// By measured times, the file is the fastest mixture, as measured whole, of all that ran and held; what is slower in int8 than in float
/// is so not int8 (but where int8 is faster nowhere: then it is for the file's size, if not against fp32). By estimated ones, it is the one with the least
/// estimate. Either way the points' times are measured. Layers beyond 128 are decided in groups of neighbours.
/// bf16 is a mark (Node::in_bf16) on a node that is FLOAT in the file: other runtimes compute it in f32, as does Octet on a processor
/// without bf16 arithmetic. By estimated times nothing is marked: what int8 cannot hold there (spectra, logarithms) has a range that
/// bf16's 8 bits of mantissa cut as well.
/// Bound: 256 runs on 16 samples, 60 on the samples held back, each of which takes at most Mixtures::kMostMacs multiply-adds (or 16
/// samples), and 1 + kMostStored with bytes; timing six mixtures for 0.4 s and each of the 60 for 0.08 s, or three rounds of each, some 24
/// runs, where these take longer. Where layers are compiled when they run, for data decide their shapes, nothing is measured but whole runs, and
/// times are estimated.
/// Requires: opset >= kQuantizeOpset, shapes inferred; a floor other than kAuto and kAllInt8. Errors: as Mixtures::Prepare;
/// FAILED_PRECONDITION, saying what was reached, when even a single layer in int8 breaks the floor.
/// Source of additive noise: Zhou et al., Adaptive Quantization for Deep Neural Network (2018).
absl::StatusOr<QuantizeResult> QuantizeMixed(Graph graph, const QuantizeRecipe& recipe,
                                             LayerTimes times, const CalibrationData& calibration,
                                             const CalibrationRun& run);

}  // namespace octet
