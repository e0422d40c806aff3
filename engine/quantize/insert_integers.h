// The rewriting half of static quantization: a selection and the ranges become QuantizeLinear/DequantizeLinear pairs.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/ranges.h"
#include "engine/quantize/statistics.h"
#include "engine/quantize/weights.h"

namespace octet {

/// Compensated weights by node, with the factors of the input channels that they were made for (none: empty): ranges hardly ever change
/// them, and they take longer than all the rest.
struct CompensatedWeights {
  QuantizedWeights weights;
  std::vector<double> factors;
};
using RoundedWeights = std::map<NodeId, CompensatedWeights>;

/// Inserts pairs on the selected values and quantizes the weights of the selected nodes:
///   x f32 -> Conv(w f32, b f32) -> Relu -> y f32
///   x f32 -> Q -> DQ -> Conv(DQ(w i8), DQ(b i32)) -> Relu -> Q -> DQ -> y f32
/// `selection`: of the statistics, or of fewer nodes. `ranges`: of every value that has a histogram. `rounded` is looked up and
/// added to. Errors: INTERNAL alone.
absl::StatusOr<QuantizeResult> InsertIntegers(const Graph& graph, const QuantizeRecipe& recipe,
                                              const Statistics& statistics,
                                              const Selection& selection, const RangeTable& ranges,
                                              RoundedWeights& rounded);

}  // namespace octet
