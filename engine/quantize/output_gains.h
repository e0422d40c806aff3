// How far a model's outputs move with what rounding moves, as training's backward pass knows it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/quantize/quantizer.h"

namespace octet {

/// Gains: mean over samples of the sum over all outputs of (d output / d x)^2. A grid of this step under x leaves so much noise there:
///   gain step^2 / 12
struct OutputGains {
  /// Of a value's elements, summed over all that have one index along an axis and are not 0, in one sample.
  struct OfValue {
    std::vector<double> axis_1;
    std::vector<double> last_axis;
  };
  std::map<std::string, OfValue> values;  ///< Those that are rounded, by name.
  /// Row-major, by the name of what the layer makes.
  std::map<std::string, std::vector<double>> weights;
};

/// As Quantize, to int8, with channels equalized for the outputs that have these gains (EqualizeChannels). `gains`: of this model, or null;
/// with weights of 8 bits per output channel.
absl::StatusOr<QuantizeResult> QuantizeForOutputs(const Graph& fp32, const QuantizeRecipe& recipe,
                                                  const CalibrationData& calibration,
                                                  const CalibrationRun& run,
                                                  const OutputGains* gains);

}  // namespace octet
