#include "engine/quantize/equalize_judged.h"

#include <algorithm>
#include <utility>

#include "engine/quantize/channel_links.h"
#include "engine/quantize/equalize.h"
#include "engine/quantize/insert_integers.h"
#include "engine/quantize/ranges.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// An equalized graph and what goes with it.
struct Variant {
  Graph graph;
  Statistics statistics;
  Statistics part;
  std::vector<QuantizeRecord> records;
  double noise = 0;
};

bool HasConstantsToScale(const Graph& graph) {
  return std::ranges::any_of(ChannelLinks(graph).components(),
                             &ChannelComponent::scaled_by_constants);
}

}  // namespace

absl::StatusOr<std::vector<QuantizeRecord>> EqualizeJudged(
    Graph& graph, const QuantizeRecipe& recipe, Statistics& statistics, Statistics& part,
    const KeptOutputs& outputs, const CalibrationSet& samples, const CalibrationRun& run) {
  if (!recipe.equalize) return std::vector<QuantizeRecord>();
  if (!recipe.smooth || !HasConstantsToScale(graph))
    return EqualizeChannels(graph, recipe, statistics, &part);
  QuantizeRecipe with = recipe;
  with.method = RangeMethod::kMinMax;
  QuantizeRecipe without = with;
  without.smooth = false;
  const auto measure = [&](Variant& variant, const QuantizeRecipe& as) -> absl::Status {
    variant.records = EqualizeChannels(variant.graph, as, variant.statistics, &variant.part);
    const auto& seen =
        variant.part.histograms.empty() ? variant.statistics.histograms : variant.part.histograms;
    RoundedWeights rounded;
    OCTET_ASSIGN_OR_RETURN(
        const QuantizeResult made,
        InsertIntegers(variant.graph, as, variant.statistics, variant.statistics.selection,
                       RangesOf(variant.graph, as, seen), rounded));
    OCTET_ASSIGN_OR_RETURN(variant.noise, outputs.NoiseOf(made.graph, samples, run));
    return absl::OkStatus();
  };
  Variant smooth{graph, statistics, part, {}, 0};
  OCTET_RETURN_IF_ERROR(measure(smooth, with));
  Variant plain{std::move(graph), std::move(statistics), std::move(part), {}, 0};
  OCTET_RETURN_IF_ERROR(measure(plain, without));
  const bool better = smooth.noise < plain.noise;
  Variant& chosen = better ? smooth : plain;
  graph = std::move(chosen.graph);
  statistics = std::move(chosen.statistics);
  part = std::move(chosen.part);
  chosen.records.push_back(
      {"reach of channels into the weights", "tried",
       Format("outputs' noise over signal {:.3g}, without {:.3g} on {} samples{}", smooth.noise,
              plain.noise, SamplesIn(samples), better ? "" : ", not kept")});
  return std::move(chosen.records);
}

}  // namespace octet
