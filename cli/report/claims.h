// What is commonly claimed for a quantization technique, held against what was measured.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace octet::cli {

enum class Technique : uint8_t {
  kNone,          ///< The fp32 model.
  kDynamicRange,  ///< 8-bit weights, activations quantized when they are there.
  kFullInteger,   ///< Static ranges, from calibration.
  kFloat16,
  kBfloat16,
  kTrained,  ///< Full integer, trained with its rounding in place (QAT).
};
/// "none", "dynamic range", "full integer", "float16", "bfloat16", "quantization-aware training".
std::string_view TechniqueName(Technique technique);
/// By the file's precision, and for training by what `octet qat` writes into its metadata.
Technique TechniqueOf(const Model& model);

/// How much less than a claim says still meets it: files hold scales and names, too.
inline constexpr double kClaimTolerance = 0.05;

struct Claim {
  std::string text;                ///< "4x smaller"
  std::optional<double> needs;     ///< What `measured` has to reach, tolerance aside.
  std::optional<double> measured;  ///< nullopt: not measured.
  std::string unit;                ///< "x", "points", "dB"
  std::string verdict;             ///< "met", "not met", "impossible on this CPU", "not measured"
  std::string reason;              ///< Why it is not met, where that is known.
};

/// What the verdicts are made from.
struct Measured {
  Technique technique = Technique::kNone;
  double smaller = 0;          ///< Bytes of the fp32 file over the file's own.
  double faster = 0;           ///< Time of the fp32 model over the model's own.
  std::optional<double> top1;  ///< Per cent.
  std::optional<double> sqnr_db;
  const Certificate* certificate = nullptr;
};

/// Sources: TensorFlow Lite's table of post-training quantization techniques (dynamic range: 4x smaller, 2x to 3x as fast; full
/// integer: 4x smaller, more than 3x as fast; float16: 2x smaller, faster on hardware that computes in it); Jacob et al., 2018
/// (training loses less than calibration). `fp32`: top1 of the fp32 model. `calibrated`: the full-integer row, if there is one.
std::vector<Claim> ClaimsOf(const Measured& row, const Measured& fp32, const Measured* calibrated,
                            const Target& target);

/// Which rows no other beats: one that is at least as fast and as good, and better in one of both.
std::vector<bool> ParetoFront(const std::vector<std::pair<double, double>>& time_and_quality);

}  // namespace octet::cli
