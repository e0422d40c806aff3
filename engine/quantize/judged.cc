#include "engine/quantize/judged.h"

#include <algorithm>
#include <utility>

#include "engine/quantize/channel_links.h"
#include "engine/quantize/concat_factors.h"
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

// What is measured with: the simplest ranges, and nothing else that is to be judged.
QuantizeRecipe Plain(QuantizeRecipe recipe) {
  recipe.method = RangeMethod::kMinMax;
  recipe.scale_concats = false;
  return recipe;
}

RangeTable PlainRanges(const Graph& graph, const QuantizeRecipe& recipe,
                       const Statistics& statistics, const Statistics& part) {
  return RangesOf(graph, recipe, part.histograms.empty() ? statistics.histograms : part.histograms);
}

absl::StatusOr<double> NoiseOf(const Graph& graph, const QuantizeRecipe& recipe,
                               const Statistics& statistics, const Statistics& part,
                               const KeptOutputs& outputs, const CalibrationData& samples,
                               const CalibrationRun& run) {
  RoundedWeights rounded;
  OCTET_ASSIGN_OR_RETURN(const QuantizeResult made,
                         InsertIntegers(graph, recipe, statistics, statistics.selection,
                                        PlainRanges(graph, recipe, statistics, part), rounded));
  return outputs.NoiseOf(made.graph, samples, run);
}

}  // namespace

absl::StatusOr<std::vector<QuantizeRecord>> EqualizeJudged(
    Graph& graph, const QuantizeRecipe& recipe, Statistics& statistics, Statistics& part,
    const KeptOutputs& outputs, const CalibrationData& samples, const CalibrationRun& run,
    const OutputGains* gains) {
  if (!recipe.equalize) return std::vector<QuantizeRecord>();
  if (!recipe.smooth || !HasConstantsToScale(graph))
    return EqualizeChannels(graph, recipe, statistics, &part, gains);
  QuantizeRecipe with = Plain(recipe);
  QuantizeRecipe without = with;
  without.smooth = false;
  const auto measure = [&](Variant& variant, const QuantizeRecipe& as) -> absl::Status {
    variant.records = EqualizeChannels(variant.graph, as, variant.statistics, &variant.part, gains);
    OCTET_ASSIGN_OR_RETURN(variant.noise, NoiseOf(variant.graph, as, variant.statistics,
                                                  variant.part, outputs, samples, run));
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
              plain.noise, samples.count(), better ? "" : ", not kept")});
  return std::move(chosen.records);
}

absl::StatusOr<bool> ScaleConcatsJudged(const Graph& graph, const QuantizeRecipe& recipe,
                                        const Statistics& statistics, const Statistics& part,
                                        const KeptOutputs& outputs, const CalibrationData& samples,
                                        const CalibrationRun& run,
                                        std::vector<QuantizeRecord>& records) {
  if (!recipe.scale_concats) return false;
  const QuantizeRecipe without = Plain(recipe);
  const ConcatFactors factors =
      FindConcatFactors(graph, statistics.selection, PlainRanges(graph, without, statistics, part));
  if (factors.exponents.empty()) return false;
  QuantizeRecipe with = without;
  with.scale_concats = true;
  OCTET_ASSIGN_OR_RETURN(const double plain,
                         NoiseOf(graph, without, statistics, part, outputs, samples, run));
  OCTET_ASSIGN_OR_RETURN(const double scaled,
                         NoiseOf(graph, with, statistics, part, outputs, samples, run));
  const bool better = scaled < plain;
  records.push_back({Format("finer steps for {} inputs of {} concatenations",
                            factors.exponents.size(), factors.ranges.size()),
                     "tried",
                     Format("outputs' noise over signal {:.3g}, without {:.3g} on {} samples{}",
                            scaled, plain, samples.count(), better ? "" : ", not kept")});
  return better;
}

}  // namespace octet
