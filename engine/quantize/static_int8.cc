#include "engine/quantize/static_int8.h"

#include <limits>
#include <optional>

#include "engine/quantize/equalize.h"
#include "engine/quantize/insert_integers.h"
#include "engine/quantize/mixed_precision.h"
#include "engine/quantize/statistics.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

struct Chosen {
  QuantizeResult result;
  double noise = 0;  ///< Over signal, in the outputs.
};

absl::StatusOr<Chosen> ChooseByOutputs(const Graph& graph, const QuantizeRecipe& recipe,
                                       const Statistics& statistics,
                                       const CalibrationSet& calibration,
                                       const CalibrationRun& run) {
  RoundedWeights rounded;
  std::optional<Chosen> best;
  std::vector<QuantizeRecord> tried;
  for (const QuantizeRecipe& candidate : RangeCandidates(recipe)) {
    OCTET_ASSIGN_OR_RETURN(QuantizeResult result, InsertIntegers(graph, candidate, statistics,
                                                                 statistics.selection, rounded));
    OCTET_ASSIGN_OR_RETURN(const double noise,
                           statistics.outputs.NoiseOf(result.graph, calibration, run));
    tried.push_back(
        {RangesName(candidate), "tried", Format("outputs' noise over signal {:.3g}", noise)});
    if (best && !(noise < best->noise)) continue;
    best = Chosen{std::move(result), noise};
  }
  auto& records = best->result.records;
  records.insert(records.begin(), tried.begin(), tried.end());
  return *std::move(best);
}

// A file that is too noisy to be of use gives way to a mixture that is not, where there is one.
absl::StatusOr<QuantizeResult> HoldAutoFloor(const Graph& graph, const QuantizeRecipe& recipe,
                                             const CalibrationSet& calibration,
                                             const CalibrationRun& run, Chosen all_int8) {
  const double sqnr_db = SqnrDbOf(all_int8.noise);
  if (recipe.floor.kind != AccuracyFloor::Kind::kAuto || sqnr_db >= AccuracyFloor::kUselessSqnrDb)
    return std::move(all_int8.result);
  QuantizeRecipe floored = recipe;
  floored.floor = {AccuracyFloor::Kind::kMinSqnr, AccuracyFloor::kAutoSqnrDb};
  auto mixed = QuantizeMixed(graph, floored, calibration, run);
  if (mixed.ok() || absl::IsCancelled(mixed.status())) return mixed;
  all_int8.result.records.push_back(
      {"outputs", "noisy", Format("SQNR {:.1f} dB: {}", sqnr_db, Message(mixed.status()))});
  return std::move(all_int8.result);
}

}  // namespace

absl::StatusOr<QuantizeResult> QuantizeStatic(Graph graph, const QuantizeRecipe& recipe,
                                              const CalibrationSet& calibration,
                                              const CalibrationRun& run) {
  if (recipe.floor.kind != AccuracyFloor::Kind::kAuto &&
      recipe.floor.kind != AccuracyFloor::Kind::kAllInt8)
    return QuantizeMixed(graph, recipe, calibration, run);
  const Graph original = graph;
  std::vector<QuantizeRecord> equalized;
  if (recipe.equalize) {
    OCTET_ASSIGN_OR_RETURN(equalized, EqualizeChannels(graph, recipe, calibration, run));
  }
  OCTET_ASSIGN_OR_RETURN(const Statistics statistics,
                         GatherStatistics(graph, recipe, calibration, run));
  if (statistics.outputs.empty()) {
    RoundedWeights rounded;
    OCTET_ASSIGN_OR_RETURN(QuantizeResult result, InsertIntegers(graph, recipe, statistics,
                                                                 statistics.selection, rounded));
    result.records.insert(result.records.end(), equalized.begin(), equalized.end());
    return result;
  }
  OCTET_ASSIGN_OR_RETURN(Chosen chosen,
                         ChooseByOutputs(graph, recipe, statistics, calibration, run));
  auto& records = chosen.result.records;
  records.insert(records.end(), equalized.begin(), equalized.end());
  return HoldAutoFloor(original, recipe, calibration, run, std::move(chosen));
}

}  // namespace octet
