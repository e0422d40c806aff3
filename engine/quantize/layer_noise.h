// Where in a model a variant's noise arises: layer by layer against fp32.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/calibration.h"
#include "engine/tensor/output_agreement.h"

namespace octet {

/// How far one node's result is from the fp32 model's, with the noise of all that comes before it.
struct LayerNoise {
  std::string value;  ///< The result's name in both models.
  std::string op;     ///< Of the fp32 model's node.
  NoiseSums noise;
};

/// Runs both models over the set and compares the F32 results that have the same name in both, in the fp32 model's order: of a
/// QDQ file those in front of its QuantizeLinear nodes. Of each result the first elements are kept, kMostKept in all.
/// Thread-safety: as Calibrate. Errors: as Calibrate; INVALID_ARGUMENT when no results have a name in common.
absl::StatusOr<std::vector<LayerNoise>> CompareLayers(const Graph& variant, Precision precision,
                                                      const Graph& fp32, const CalibrationSet& set,
                                                      const CalibrationRun& run);
inline constexpr size_t kMostKept = size_t{1} << 26;

}  // namespace octet
