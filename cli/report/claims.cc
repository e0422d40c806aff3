#include "cli/report/claims.h"

#include <algorithm>

#include "engine/tensor/format.h"

namespace octet::cli {
namespace {

constexpr std::string_view kMet = "met";
constexpr std::string_view kNotMet = "not met";
constexpr std::string_view kImpossible = "impossible on this CPU";
constexpr std::string_view kNotMeasured = "not measured";

double ShareOf(const Certificate& certificate, const std::string& type) {
  const auto share = certificate.MacShare();
  const auto found = share.find(type);
  return found == share.end() ? 0 : found->second;
}

Claim Ratio(std::string text, double needs, double measured) {
  const bool met = measured >= needs * (1 - kClaimTolerance);
  return {std::move(text), needs, measured, "x", std::string(met ? kMet : kNotMet), ""};
}

Claim Faster(std::string text, double needs, const Measured& row) {
  Claim claim = Ratio(std::move(text), needs, row.faster);
  const double rest = 1 - ShareOf(*row.certificate, "int8");
  if (claim.verdict != kMet && rest > 0.0005)
    claim.reason = Format("{:.1f} % of the multiply-adds do not run in int8", 100 * rest);
  return claim;
}

// "67.0 % bf16, 33.0 % f32"
std::string SharesText(const Certificate& certificate) {
  std::string text;
  for (const auto& [type, share] : certificate.MacShare())
    text += Format("{}{:.1f} % {}", text.empty() ? "" : ", ", 100 * share, type);
  return text;
}

Claim HalfArithmetic(const Measured& row, const Target& target) {
  Claim claim = Ratio("faster, by float16 arithmetic", 1, row.faster);
  if (ShareOf(*row.certificate, "f16") > 0) return claim;
  claim.verdict = target.f16 ? kNotMet : kImpossible;
  claim.reason =
      Format("{}; the certificate's multiply-adds: {}",
             target.f16 ? "no kernel computes in float16"
                        : Format("{} has no float16 arithmetic, it is storage here", target.isa),
             SharesText(*row.certificate));
  return claim;
}

// The loss of the calibrated file less that of the trained one; in points of top-1, else in dB of SQNR.
Claim LessLoss(const Measured& row, const Measured& fp32, const Measured* calibrated) {
  Claim claim{"less loss than by calibration", 0, std::nullopt, "", std::string(kNotMeasured), ""};
  if (calibrated == nullptr) {
    claim.reason = "no calibrated int8 file beside it";
    return claim;
  }
  if (row.top1 && calibrated->top1 && fp32.top1) {
    claim.measured = *row.top1 - *calibrated->top1;
    claim.unit = "points";
  } else if (row.sqnr_db && calibrated->sqnr_db) {
    claim.measured = *row.sqnr_db - *calibrated->sqnr_db;
    claim.unit = "dB";
  }
  if (claim.measured) claim.verdict = *claim.measured > 0 ? kMet : kNotMet;
  return claim;
}

}  // namespace

std::string_view TechniqueName(Technique technique) {
  switch (technique) {
    case Technique::kNone:
      return "none";
    case Technique::kDynamicRange:
      return "dynamic range";
    case Technique::kFullInteger:
      return "full integer";
    case Technique::kFloat16:
      return "float16";
    case Technique::kBfloat16:
      return "bfloat16";
    case Technique::kTrained:
      return "quantization-aware training";
  }
  return "none";
}

Technique TechniqueOf(const Model& model) {
  switch (model.precision()) {
    case Precision::kFp32:
      return Technique::kNone;
    case Precision::kFp16:
      return Technique::kFloat16;
    case Precision::kBf16:
      return Technique::kBfloat16;
    case Precision::kInt8Dynamic:
      return Technique::kDynamicRange;
    case Precision::kInt8:
      break;
  }
  const auto recipe = model.metadata().find("octet.recipe");
  const bool trained =
      recipe != model.metadata().end() && recipe->second.find(" trained=") != std::string::npos;
  return trained ? Technique::kTrained : Technique::kFullInteger;
}

std::vector<Claim> ClaimsOf(const Measured& row, const Measured& fp32, const Measured* calibrated,
                            const Target& target) {
  switch (row.technique) {
    case Technique::kNone:
      return {};
    case Technique::kDynamicRange:
      return {Ratio("4x smaller", 4, row.smaller), Faster("2x to 3x as fast", 2, row)};
    case Technique::kFullInteger:
      return {Ratio("4x smaller", 4, row.smaller), Faster("3x as fast, or more", 3, row)};
    case Technique::kFloat16:
      return {Ratio("2x smaller", 2, row.smaller), HalfArithmetic(row, target)};
    case Technique::kBfloat16:
      return {Ratio("2x smaller", 2, row.smaller)};
    case Technique::kTrained:
      return {Ratio("4x smaller", 4, row.smaller), Faster("3x as fast, or more", 3, row),
              LessLoss(row, fp32, calibrated)};
  }
  return {};
}

std::vector<bool> ParetoFront(const std::vector<std::pair<double, double>>& time_and_quality) {
  std::vector<bool> front;
  for (const auto& [time, quality] : time_and_quality) {
    front.push_back(std::ranges::none_of(time_and_quality, [&](const auto& other) {
      return other.first <= time && other.second >= quality &&
             (other.first < time || other.second > quality);
    }));
  }
  return front;
}

}  // namespace octet::cli
