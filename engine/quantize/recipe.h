// What the user asks of the quantizer.
#pragma once

#include <optional>
#include <string_view>

#include "engine/graph/precision.h"
#include "engine/tensor/dtype.h"

namespace octet {

/// How a calibrated distribution becomes a range.
enum class RangeMethod : uint8_t {
  kAuto,    ///< Min-max or one of several percentiles: what leaves the least noise in the outputs.
  kMinMax,  ///< The extremes that were seen.
  kPercentile,  ///< Cuts `1 - percentile` of the elements' mass off both tails together.
};
/// "auto", "min-max", "percentile".
std::string_view RangeMethodName(RangeMethod method);
std::optional<RangeMethod> ParseRangeMethod(std::string_view name);

/// One variant to make.
struct QuantizeRecipe {
  Precision to = Precision::kInt8;
  DType activation = DType::kU8;  ///< U8 (asymmetric) or I8 (symmetric); int8 only.
  bool per_channel = true;        ///< One weight scale per output channel; int8 and int8-dynamic.
  RangeMethod method = RangeMethod::kAuto;  ///< int8 only.
  bool equalize = true;  ///< Even out the channels of activations first; int8 only.
  bool compensate =
      true;  ///< Round each weight so that it takes up the errors of others; int8 only.
  bool correct_bias = true;  ///< Take the mean error of rounded weights out of the bias; int8 only.
  double percentile = 99.999;  ///< Per cent of elements that kPercentile keeps.
};

}  // namespace octet
