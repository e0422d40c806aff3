#include "engine/quantize/statistics.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {
namespace {

int RankOf(const Graph& graph, ValueId id) {
  const auto& shape = graph.value(id).shape;
  return shape ? shape->rank() : 2;
}

int64_t SamplesIn(const CalibrationSet& set) {
  if (set.empty() || set.begin()->second.shape().rank() == 0) return 1;
  return std::max<int64_t>(1, set.begin()->second.shape()[0]);
}

}  // namespace

absl::StatusOr<Statistics> GatherStatistics(const Graph& graph, const QuantizeRecipe& recipe,
                                            const CalibrationSet& set, const CalibrationRun& run,
                                            bool any_subset) {
  Statistics statistics;
  statistics.selection = SelectQuantized(graph);
  if (statistics.selection.weighted.empty() && statistics.selection.products.empty()) {
    return InvalidArgument("nothing to quantize: no Conv or Gemm with constant weights, no MatMul");
  }
  for (const ValueId id : statistics.selection.quantized) {
    statistics.histograms.try_emplace(statistics.selection.RangeOwner(id));
    if (any_subset) statistics.histograms.try_emplace(id);
  }
  for (const WeightedNode& weighted : statistics.selection.weighted) {
    const Node& node = graph.node(weighted.node);
    const int axis = node.is("Conv") ? 1 : RankOf(graph, node.inputs[0]) - 1;
    statistics.moments.try_emplace(weighted.node, axis);
    if (!recipe.compensate) continue;
    if (auto patches = PatchMoments::For(graph, weighted, SamplesIn(set)))
      statistics.patches.emplace(weighted.node, std::move(*patches));
  }
  std::vector<Observation> observations;
  for (auto& [id, histogram] : statistics.histograms) observations.push_back({id, &histogram});
  for (auto& [id, moments] : statistics.moments)
    observations.push_back({graph.node(id).inputs[0], &moments});
  for (auto& [id, patches] : statistics.patches)
    observations.push_back({graph.node(id).inputs[0], &patches});
  if (recipe.method == RangeMethod::kAuto && !any_subset) {
    statistics.outputs = KeptOutputs(graph);
    std::ranges::copy(statistics.outputs.Observations(), std::back_inserter(observations));
  }
  OCTET_RETURN_IF_ERROR(Calibrate(graph, observations, set, run));
  return statistics;
}

}  // namespace octet
