#include "engine/quantize/statistics.h"

#include <algorithm>
#include <utility>

#include "engine/quantize/channel_links.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

void WatchChannels(const Graph& graph, Statistics& statistics) {
  const ChannelLinks links(graph);
  for (const ChannelComponent& component : links.components()) {
    for (const ValueId id : component.values) {
      const bool quantized = std::ranges::contains(statistics.selection.quantized, id);
      if (quantized || links.UpperClip(id)) statistics.channels.try_emplace(id, links.AxisOf(id));
      if (quantized) statistics.channel_histograms.try_emplace(id, links.AxisOf(id));
    }
  }
}

}  // namespace

absl::StatusOr<Statistics> EmptyStatistics(const Graph& graph, int64_t samples) {
  Statistics statistics;
  statistics.selection = SelectQuantized(graph);
  if (statistics.selection.weighted.empty() && statistics.selection.products.empty()) {
    return InvalidArgument(
        "nothing to quantize: no Conv, ConvTranspose or Gemm with constant weights, no MatMul "
        "(int8-dynamic takes LSTM, GRU and RNN alone, too)");
  }
  for (const ValueId id : statistics.selection.quantized) {
    statistics.histograms.try_emplace(statistics.selection.RangeOwner(id));
    statistics.histograms.try_emplace(id);
  }
  for (const WeightedNode& weighted : statistics.selection.weighted) {
    statistics.moments.try_emplace(weighted.node,
                                   IsConvolutional(graph.node(weighted.node)) ? 1 : -1);
    if (auto patches = PatchMoments::For(graph, weighted, std::max<int64_t>(1, samples)))
      statistics.patches.emplace(weighted.node, std::move(*patches));
  }
  WatchChannels(graph, statistics);
  return statistics;
}

void Statistics::Select(const Graph& graph, const QuantizeRecipe& recipe) {
  selection = SelectQuantized(graph, {}, recipe.fewer_roundings);
}

std::vector<Observation> Statistics::Observations(const Graph& graph) {
  std::vector<Observation> observations;
  const auto watch = [&](auto& collectors, auto value_of) {
    for (auto& [id, collector] : collectors) observations.push_back({value_of(id), &collector});
  };
  const auto itself = [](ValueId id) { return id; };
  const auto input = [&](NodeId id) { return graph.node(id).inputs[0]; };
  watch(histograms, itself);
  watch(moments, input);
  watch(patches, input);
  watch(channels, itself);
  watch(channel_histograms, itself);
  return observations;
}

absl::StatusOr<Statistics> GatherStatistics(const Graph& graph, const CalibrationData& set,
                                            const CalibrationRun& run) {
  OCTET_ASSIGN_OR_RETURN(Statistics statistics, EmptyStatistics(graph, set.count()));
  OCTET_RETURN_IF_ERROR(Calibrate(graph, statistics.Observations(graph), set, run));
  return statistics;
}

}  // namespace octet
