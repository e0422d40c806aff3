#include "engine/graph/precision.h"

namespace octet {

std::string_view PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kFp16:
      return "fp16";
    case Precision::kBf16:
      return "bf16";
    case Precision::kInt8:
      return "int8";
    case Precision::kInt8Dynamic:
      return "int8-dynamic";
  }
  return "unknown";
}

std::optional<Precision> ParsePrecision(std::string_view name) {
  for (const Precision precision : kAllPrecisions) {
    if (PrecisionName(precision) == name) return precision;
  }
  return std::nullopt;
}

}  // namespace octet
