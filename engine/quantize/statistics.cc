#include "engine/quantize/statistics.h"

#include "engine/tensor/status.h"

namespace octet {
namespace {

int RankOf(const Graph& graph, ValueId id) {
  const auto& shape = graph.value(id).shape;
  return shape ? shape->rank() : 2;
}

}  // namespace

ValueId Statistics::RangeOwner(ValueId id) const {
  for (auto at = selection.range_from.find(id); at != selection.range_from.end();
       at = selection.range_from.find(id)) {
    id = at->second;
  }
  return id;
}

absl::StatusOr<Statistics> GatherStatistics(const Graph& graph, const CalibrationSet& set,
                                            const CalibrationRun& run) {
  Statistics statistics;
  statistics.selection = SelectQuantized(graph);
  if (statistics.selection.weighted.empty()) {
    return InvalidArgument("nothing to quantize: no Conv, Gemm or MatMul with constant weights");
  }
  for (const ValueId id : statistics.selection.quantized) {
    statistics.histograms.try_emplace(statistics.RangeOwner(id));
  }
  for (const WeightedNode& weighted : statistics.selection.weighted) {
    const Node& node = graph.node(weighted.node);
    const int axis = node.is("Conv") ? 1 : RankOf(graph, node.inputs[0]) - 1;
    statistics.means.try_emplace(weighted.node, axis);
  }
  std::vector<Observation> observations;
  for (auto& [id, histogram] : statistics.histograms) observations.push_back({id, &histogram});
  for (auto& [id, means] : statistics.means)
    observations.push_back({graph.node(id).inputs[0], &means});
  OCTET_RETURN_IF_ERROR(Calibrate(graph, observations, set, run));
  return statistics;
}

}  // namespace octet
