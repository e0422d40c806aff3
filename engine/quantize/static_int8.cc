#include "engine/quantize/static_int8.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/plan/signature.h"
#include "engine/quantize/byte_storage.h"
#include "engine/quantize/calibration_file.h"
#include "engine/quantize/choose_ranges.h"
#include "engine/quantize/equalize.h"
#include "engine/quantize/held_back.h"
#include "engine/quantize/insert_integers.h"
#include "engine/quantize/judged.h"
#include "engine/quantize/latency_meter.h"
#include "engine/quantize/mixed_precision.h"
#include "engine/quantize/mixtures.h"
#include "engine/quantize/statistics.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Kind = AccuracyFloor::Kind;

constexpr int64_t kMostJudges = 512;
// Of the outputs' noise: 0.2 and 3 dB.
constexpr double kHardlyMore = 1.05;
constexpr double kLittleMore = 2;
// Of the bytes of constants, what is left.
constexpr double kMuchSaved = 0.9;
// A network that takes less is bound by calls, and hardly served for its speed.
constexpr double kShortSeconds = 500e-6;
// Over the time of fp32: what noise may make of equal times.
constexpr double kSlower = 1.05;
constexpr double kComparedSeconds = 0.2;

// A file that is too noisy to be of use gives way to a mixture that is not, where there is one.
absl::StatusOr<QuantizeResult> HoldAutoFloor(const Graph& graph, const QuantizeRecipe& recipe,
                                             const CalibrationData& calibration,
                                             const CalibrationRun& run, ChosenRanges all_int8) {
  QuantizeRecipe floored = recipe;
  floored.floor = {Kind::kMinSqnr, AccuracyFloor::kAutoSqnrDb};
  auto mixed = QuantizeMixed(graph, floored, LayerTimes::kEstimated, calibration, run);
  if (mixed.ok() || absl::IsCancelled(mixed.status())) return mixed;
  all_int8.result.records.push_back(
      {"outputs", "noisy",
       Format("SQNR {:.1f} dB: {}", SqnrDbOf(all_int8.noise), Message(mixed.status()))});
  return std::move(all_int8.result);
}

// One run of fp32 and one of the file, in seconds on one thread; in turns.
struct NetworkTimes {
  double fp32 = 0;
  double int8 = 0;
  bool slower() const { return fp32 >= kShortSeconds && int8 > kSlower * fp32; }
};

absl::StatusOr<NetworkTimes> CompareTimes(const Graph& fp32, const Graph& int8,
                                          const CalibrationData& set, const CalibrationRun& run) {
  const int64_t rows = std::min(set.count(), OwnBatch(fp32, set));
  OCTET_ASSIGN_OR_RETURN(CalibrationSet sample, set.InMemory(0, rows));
  LatencyMeter meter(std::move(sample), run);
  OCTET_RETURN_IF_ERROR(meter.Compare(fp32, 0).status());
  NetworkTimes times;
  // What looks slower is looked at again.
  for (int turn = 0; turn < 2 && (turn == 0 || times.slower()); ++turn) {
    OCTET_ASSIGN_OR_RETURN(const LatencyMeter::Turn compared,
                           meter.Compare(int8, kComparedSeconds));
    times = {meter.reference_seconds(), compared.ratio * meter.reference_seconds()};
  }
  return times;
}

// Nobody asked for int8 where fp32 is faster: a file that is slower here gives way to the fastest mixture that is as accurate. `sqnr_db`: of
// its outputs.
absl::StatusOr<QuantizeResult> NoSlowerThanFp32(const Graph& graph, const QuantizeRecipe& recipe,
                                                const CalibrationData& calibration,
                                                const CalibrationRun& run, double sqnr_db,
                                                QuantizeResult made) {
  if (recipe.floor.kind != Kind::kAuto) return made;
  OCTET_ASSIGN_OR_RETURN(const NetworkTimes times,
                         CompareTimes(graph, made.graph, calibration, run));
  if (!times.slower()) return made;
  QuantizeRecord record{"network", "slower",
                        Format("{:.3f} ms in int8, {:.3f} ms in fp32 on this machine: ",
                               1e3 * times.int8, 1e3 * times.fp32)};
  QuantizeRecipe floored = recipe;
  floored.floor = {Kind::kMinSqnr,
                   std::clamp(sqnr_db, AccuracyFloor::kUselessSqnrDb, AccuracyFloor::kAutoSqnrDb)};
  auto mixed = QuantizeMixed(graph, floored, LayerTimes::kAgainstFp32, calibration, run);
  if (absl::IsCancelled(mixed.status())) return mixed;
  record.detail += mixed.ok() ? "layers are in float that gain too little"
                              : Format("written all the same, for {}", Message(mixed.status()));
  QuantizeResult& result = mixed.ok() ? *mixed : made;
  result.records.push_back(std::move(record));
  return std::move(result);
}

bool BatchesFreely(const Graph& graph) {
  return std::ranges::all_of(graph.inputs, [&](ValueId id) {
    const auto& shape = graph.value(id).shape;
    return shape && shape->rank() > 0 && (*shape)[0] == kUnknownDim;
  });
}

struct Learned {
  Statistics statistics;
  Statistics part;  ///< The histograms of the samples that do not judge; empty when all do.
  std::optional<Judge> judge;
};

// From one pass over the set, its judges at the end of it.
absl::StatusOr<Learned> LearnAndHoldBack(const Graph& graph, const QuantizeRecipe& recipe,
                                         const CalibrationData& set, const CalibrationRun& run) {
  OCTET_ASSIGN_OR_RETURN(SplitSet split, HoldBack(set, {}, kMostJudges, recipe.seed));
  Learned learned{.judge = Judge{std::move(split.held_back), KeptOutputs(graph), {}}};
  OCTET_ASSIGN_OR_RETURN(learned.statistics, EmptyStatistics(graph, set.count()));
  std::vector<Observation> observations = learned.statistics.Observations(graph);
  OCTET_RETURN_IF_ERROR(Calibrate(graph, observations, split.ranges, run));
  learned.part.histograms = learned.statistics.histograms;
  if (recipe.equalize) learned.part.channel_histograms = learned.statistics.channel_histograms;
  std::ranges::copy(learned.judge->outputs.Observations(), std::back_inserter(observations));
  OCTET_RETURN_IF_ERROR(Calibrate(graph, observations, learned.judge->samples, run));
  return learned;
}

// Judges drawn from all samples, which the ranges may have seen.
absl::StatusOr<Judge> AnyJudge(const Graph& graph, const QuantizeRecipe& recipe,
                               const CalibrationData& set, const CalibrationRun& run) {
  const int64_t most = std::max(kMostJudges, OwnBatch(graph, set));
  OCTET_ASSIGN_OR_RETURN(SplitSet drawn, AllHeldBack(set, {}, most, recipe.seed));
  Judge judge{std::move(drawn.held_back), KeptOutputs(graph), {}};
  OCTET_RETURN_IF_ERROR(Calibrate(graph, judge.outputs.Observations(), judge.samples, run));
  return judge;
}

// From the files that `run` names, or from the set. There is a judge where the outputs are to choose; what it judges is the same
// whether a file keeps what is learned or not.
absl::StatusOr<Learned> Learn(const Graph& graph, const QuantizeRecipe& recipe,
                              const CalibrationData& set, const CalibrationRun& run) {
  const bool judged = recipe.method == RangeMethod::kAuto && !KeptOutputs(graph).empty();
  const bool any_number = set.whole_inputs() || BatchesFreely(graph);
  if (judged && run.statistics_from.empty() && any_number && set.count() >= 2) {
    if (!run.statistics_to.empty()) OCTET_RETURN_IF_ERROR(FileStatistics(graph, set, run).status());
    return LearnAndHoldBack(graph, recipe, set, run);
  }
  const bool in_files = !run.statistics_from.empty() || !run.statistics_to.empty();
  Learned learned;
  OCTET_ASSIGN_OR_RETURN(learned.statistics, in_files ? FileStatistics(graph, set, run)
                                                      : GatherStatistics(graph, set, run));
  if (judged) {
    OCTET_ASSIGN_OR_RETURN(learned.judge, AnyJudge(graph, recipe, set, run));
  }
  return learned;
}

// Constants that stay real are bytes where the outputs hardly tell; where much of the file is saved, they may tell a little more, but stay
// as good as those of any model without layers in float.
absl::Status StoreWhereHarmless(const QuantizeRecipe& recipe, const Learned& learned,
                                const CalibrationRun& run, ChosenRanges& chosen) {
  if (!recipe.byte_constants) return absl::OkStatus();
  const Judge& judge = *learned.judge;
  const auto accept = [&](const Graph& graph) -> absl::StatusOr<bool> {
    OCTET_ASSIGN_OR_RETURN(const double noise, judge.outputs.NoiseOf(graph, judge.samples, run));
    if (noise <= kHardlyMore * chosen.noise) return true;
    return noise <= kLittleMore * chosen.noise && SqnrDbOf(noise) >= AccuracyFloor::kAutoSqnrDb &&
           static_cast<double>(ConstantBytes(graph)) <=
               kMuchSaved * static_cast<double>(ConstantBytes(chosen.result.graph));
  };
  return StoreInBytes(recipe, learned.statistics, accept, chosen.result);
}

absl::Status CheckSamples(const QuantizeRecipe& recipe, bool floored, const CalibrationData& set,
                          const CalibrationRun& run) {
  if (run.statistics_from.empty() || set.count() > 0) return absl::OkStatus();
  if (floored)
    return InvalidArgument("a floor of accuracy takes samples, not calibration files alone");
  if (recipe.method != RangeMethod::kAuto) return absl::OkStatus();
  return InvalidArgument(
      "to choose ranges by what they do to the outputs takes samples, not calibration files "
      "alone: give some, or a method");
}

}  // namespace

absl::StatusOr<QuantizeResult> QuantizeStatic(Graph graph, const QuantizeRecipe& recipe,
                                              const CalibrationData& calibration,
                                              const CalibrationRun& run, const OutputGains* gains) {
  const bool floored = recipe.floor.kind != Kind::kAuto && recipe.floor.kind != Kind::kAllInt8;
  OCTET_RETURN_IF_ERROR(CheckSamples(recipe, floored, calibration, run));
  // Files may stand for samples, but samples that are there are the model's.
  if (!calibration.empty()) OCTET_RETURN_IF_ERROR(MatchInputs(MakeSignature(graph), calibration));
  OCTET_RETURN_IF_ERROR(CheckFinite(calibration));  // Before minutes of calibration.
  if (floored) {
    // What the file keeps is of all samples; the search holds half of them back.
    if (!run.statistics_to.empty()) {
      OCTET_RETURN_IF_ERROR(CheckFloor(recipe.floor, graph, calibration, run.labels));
      OCTET_RETURN_IF_ERROR(FileStatistics(graph, calibration, run).status());
    }
    return QuantizeMixed(graph, recipe, LayerTimes::kMeasured, calibration, run);
  }
  OCTET_ASSIGN_OR_RETURN(Learned learned, Learn(graph, recipe, calibration, run));
  learned.statistics.Select(graph, recipe);
  const Graph original = graph;
  QuantizeRecipe judged = recipe;
  judged.scale_concats = false;
  std::vector<QuantizeRecord> equalized;
  if (learned.judge) {
    const Judge& judge = *learned.judge;
    OCTET_ASSIGN_OR_RETURN(
        equalized, EqualizeJudged(graph, recipe, learned.statistics, learned.part, judge.outputs,
                                  judge.samples, run, gains));
    OCTET_ASSIGN_OR_RETURN(judged.scale_concats,
                           ScaleConcatsJudged(graph, recipe, learned.statistics, learned.part,
                                              judge.outputs, judge.samples, run, equalized));
  } else if (recipe.equalize) {
    equalized = EqualizeChannels(graph, recipe, learned.statistics, nullptr, gains);
  }
  if (!learned.judge) {
    RoundedWeights rounded;
    const RangeTable table = RangesOf(graph, judged, learned.statistics.histograms);
    OCTET_ASSIGN_OR_RETURN(QuantizeResult result,
                           InsertIntegers(graph, judged, learned.statistics,
                                          learned.statistics.selection, table, rounded));
    result.records.insert(result.records.end(), equalized.begin(), equalized.end());
    return result;
  }
  Statistics& ranges = learned.part.histograms.empty() ? learned.statistics : learned.part;
  learned.judge->histograms = ranges.histograms;
  OCTET_ASSIGN_OR_RETURN(ChosenRanges chosen,
                         ChooseRanges(graph, judged, learned.statistics, *learned.judge, run));
  auto& records = chosen.result.records;
  records.insert(records.end(), equalized.begin(), equalized.end());
  RecordSeenJudges(learned.statistics, records);
  const bool useless =
      recipe.floor.kind == Kind::kAuto && SqnrDbOf(chosen.noise) < AccuracyFloor::kUselessSqnrDb;
  const double sqnr_db = SqnrDbOf(chosen.noise);
  if (useless) {
    OCTET_ASSIGN_OR_RETURN(QuantizeResult held,
                           HoldAutoFloor(original, recipe, calibration, run, std::move(chosen)));
    return NoSlowerThanFp32(original, recipe, calibration, run, AccuracyFloor::kAutoSqnrDb,
                            std::move(held));
  }
  OCTET_RETURN_IF_ERROR(StoreWhereHarmless(recipe, learned, run, chosen));
  return NoSlowerThanFp32(original, recipe, calibration, run, sqnr_db, std::move(chosen.result));
}

}  // namespace octet
