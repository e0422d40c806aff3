// What the user asks of the quantizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/graph/precision.h"
#include "engine/tensor/dtype.h"

namespace octet {

/// How a calibrated distribution becomes a range.
enum class RangeMethod : uint8_t {
  kAuto,  ///< For each tensor one of the others, but kMovingAverage: what leaves the least noise in the outputs.
  kMinMax,         ///< The extremes that were seen.
  kMovingAverage,  ///< The moving average of each sample's extremes (MovingExtremes).
  kPercentile,     ///< Cuts `1 - percentile` of the elements' mass off both tails together.
  kMse,            ///< The least squared error of the elements.
  kEntropy,        ///< The least divergence of the distribution.
};
/// "auto", "min-max", "moving-average", "percentile", "mse", "entropy".
std::string_view RangeMethodName(RangeMethod method);
std::optional<RangeMethod> ParseRangeMethod(std::string_view name);

/// The 8-bit grid of activations. Asymmetric: every step is inside the value's range, wherever zero lies in it. Symmetric: zero is the
/// grid's middle, and the steps reach as far on both sides, as some accelerators need it.
struct ActivationGrid {
  DType dtype = DType::kU8;  ///< U8 or I8.
  bool symmetric = false;
  bool operator==(const ActivationGrid&) const = default;
};
/// "u8" (asymmetric), "u8-symmetric", "s8" (symmetric), "s8-asymmetric".
std::string_view ActivationGridName(const ActivationGrid& grid);
std::optional<ActivationGrid> ParseActivationGrid(std::string_view name);

/// What an int8 file keeps of the fp32 model's answers; layers stay in float until it does: kAuto by estimated times, in f32, so that a
/// seed decides on any machine, unless the network is slower than fp32 on this one (static_int8.h); the others by times measured on this one, in bf16 or f32. Measured on calibration samples that
/// the ranges have not seen; where these come from files (CalibrationRun::statistics_from), on samples of the set at hand, of which the
/// files may have been made.
struct AccuracyFloor {
  enum class Kind : uint8_t {
    kAuto,     ///< kAutoSqnrDb where all layers in int8 leave less than kUselessSqnrDb; looked at
               ///< when the ranges are chosen by the outputs (RangeMethod::kAuto) alone.
    kAllInt8,  ///< Every layer that can be is int8.
    kMaxDrop,  ///< Points of top-1 that may be lost, gains not counted; needs labels.
    kMinAgreement,  ///< Per cent of samples with the fp32 model's top-1.
    kMinSqnr,       ///< dB of SQNR in the outputs.
  };
  /// With a hundredth of the outputs' power as noise, classes that are a tenth apart swap.
  static constexpr double kUselessSqnrDb = 20;
  /// What models have that need no layer in float.
  static constexpr double kAutoSqnrDb = 30;

  Kind kind = Kind::kAuto;
  double value = 0;  ///< In the unit of `kind`.
};

/// One variant to make.
struct QuantizeRecipe {
  Precision to = Precision::kInt8;
  ActivationGrid activation;  ///< int8 only.
  bool per_channel = true;    ///< One weight scale per output channel; int8 and int8-dynamic.
  /// 8, or 4: integers in [-7, 7], but in the first and the last weighted layer, which keep 8 bits, as is customary. 4 is an
  /// experiment in what storage would cost in accuracy: the file holds these integers as INT8 and runs as any other int8 file.
  int weight_bits = 8;                      ///< int8 only.
  RangeMethod method = RangeMethod::kAuto;  ///< int8 only.
  bool equalize = true;  ///< Even out the channels of activations first; int8 only.
  /// Where it equalizes: move reach of channels from constants that scale them into the weights, too; int8 only.
  bool smooth = true;
  /// Give the narrow inputs of a concatenation finer steps, where the outputs say so; int8 only, and only where they are looked at.
  bool scale_concats = true;
  bool compensate =
      true;  ///< Round each weight so that it takes up the errors of others; int8 only.
  bool correct_bias = true;  ///< Take the mean error of rounded weights out of the bias; int8 only.
  /// Round nothing that saves hardly any time: what residual sums add, and what a small last product reads (SelectQuantized); int8 only.
  bool fewer_roundings = false;
  /// Hold constants that stay real in 8 bits, where that is worth it and the outputs do not mind; int8 and int8-dynamic.
  bool byte_constants = true;
  double percentile = 99.999;  ///< Per cent of elements that kPercentile keeps.
  AccuracyFloor floor;         ///< int8 only.
  uint64_t seed = 0;           ///< Of which samples judge ranges and the floor; int8 only.
};

}  // namespace octet
