#include "engine/quantize/mixed_precision.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "engine/engine.h"
#include "engine/quantize/byte_storage.h"
#include "engine/quantize/int8_cost.h"
#include "engine/quantize/mixtures.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr size_t kMostGroups = 128;
constexpr int kMostTakenBack = 16;
// Runs that all steps together take at most: on few samples, on those held back, to time layers.
constexpr int kMostRuns =
    2 * static_cast<int>(kMostGroups) + 60 + 6 + static_cast<int>(kMostStored);
// Layers that are timed in float at once are so far apart that none is the neighbour of another's neighbour.
constexpr size_t kApart = 3;
// Of the network's time: what is nearer than this is not told from noise, and int8's smaller weights, or f32's accuracy, decide.
constexpr double kLeastGain = 0.002;

using enum LayerPrecision;

// Layers that are decided together.
struct Group {
  // By precision: time beyond that in int8, as a share of the network's in int8, or as multiply-adds in float where it is
  // estimated; absent: not to be had, or of no use.
  std::array<std::optional<double>, 3> extra = {0.0};
  std::vector<NodeId> layers;
  LayerPrecision fastest = kInt8;
  std::optional<double> measured_bf16;  ///< As `extra`, of use or not.
  std::optional<double> noise;          ///< Alone in `fastest`.
  std::optional<double> bf16_noise;     ///< Alone in bf16.
  std::string tried;                    ///< What became of taking it back.

  std::optional<double> Extra(LayerPrecision in) const { return extra[static_cast<size_t>(in)]; }
  bool IsFaster(LayerPrecision in, LayerPrecision than) const {
    return Extra(in) && *Extra(in) < *Extra(than);
  }
  double TimeInFloat() const { return std::max(*Extra(kF32) - *Extra(fastest), 1e-5); }
};

using Choice = std::vector<LayerPrecision>;  ///< By group.

class MixedSearch {
 public:
  MixedSearch(Mixtures mixtures, const QuantizeRecipe& recipe, LayerTimes times)
      : mixtures_(std::move(mixtures)),
        recipe_(recipe),
        floor_of_user_(times == LayerTimes::kMeasured),
        against_fp32_(times == LayerTimes::kAgainstFp32),
        measured_(times != LayerTimes::kEstimated),
        ranges_(recipe) {}

  absl::StatusOr<QuantizeResult> Run() {
    FormGroups();
    const Choice all_int8(groups_.size(), kInt8);
    for (const QuantizeRecipe& candidate : RangeCandidates(recipe_))
      OCTET_RETURN_IF_ERROR(Try(all_int8, candidate).status());
    ranges_ = best_ranges_;
    if (measured_) {
      OCTET_RETURN_IF_ERROR(MeasureTimes());
      if (Fastest() != all_int8) OCTET_RETURN_IF_ERROR(Try(Fastest(), ranges_).status());
    }
    if (against_fp32_) OCTET_RETURN_IF_ERROR(TryNearerToFp32());
    if (!best_->point.holds && floor_of_user_) OCTET_RETURN_IF_ERROR(TryFewerRoundings(all_int8));
    if (!best_->point.holds) {
      OCTET_RETURN_IF_ERROR(MeasureAlone());
      OCTET_RETURN_IF_ERROR(FindMixture());
      OCTET_RETURN_IF_ERROR(Narrow());
      OCTET_RETURN_IF_ERROR(TakeBack());
      OCTET_RETURN_IF_ERROR(TryOtherRanges());
    }
    OCTET_RETURN_IF_ERROR(StoreRealConstants());
    return Finish();
  }

 private:
  void FormGroups() {
    const Selection& all = mixtures_.all();
    std::vector<NodeId> layers;
    for (const NodeId id : mixtures_.graph().order()) {
      const bool weighted = std::ranges::contains(all.weighted, id, &WeightedNode::node);
      if (weighted || std::ranges::contains(all.products, id)) layers.push_back(id);
    }
    const size_t per_group = (layers.size() + kMostGroups - 1) / kMostGroups;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (i % per_group == 0) groups_.emplace_back();
      Group& group = groups_.back();
      group.layers.push_back(layers[i]);
      group.extra[static_cast<size_t>(kF32)] = group.Extra(kF32).value_or(0) + Saves(layers[i]);
    }
  }

  double Saves(NodeId id) const {
    const auto macs = static_cast<double>(mixtures_.MacsOf(id));
    const double saved =
        SavedByInt8(macs) - kConversionTime * static_cast<double>(mixtures_.ReadsOf(id));
    return std::max({saved, macs / 20, 1.0});
  }

  FloatLayers LayersOf(const Choice& choice) const {
    FloatLayers kept;
    for (size_t i = 0; i < groups_.size(); ++i) {
      const std::vector<NodeId>& layers = groups_[i].layers;
      if (choice[i] != kInt8) kept.all.insert(layers.begin(), layers.end());
      if (choice[i] == kBf16) kept.in_bf16.insert(layers.begin(), layers.end());
    }
    return kept;
  }

  Choice Fastest() const {
    Choice choice;
    for (const Group& group : groups_) choice.push_back(group.fastest);
    return choice;
  }

  // Runs a mixture; keeps it if it is the best so far: one that holds the floor before one that does not, then the faster one,
  // then the less noisy.
  absl::StatusOr<bool> Try(const Choice& choice, const QuantizeRecipe& ranges) {
    OCTET_ASSIGN_OR_RETURN(Mixture made, mixtures_.Run(LayersOf(choice), ranges));
    points_.push_back(made.point);
    times_.push_back(made.time);
    const bool holds = made.point.holds;
    if (!best_ || IsBetter(choice, ranges, made)) {
      best_ = std::move(made);
      best_choice_ = choice;
      best_ranges_ = ranges;
      best_point_ = points_.size() - 1;
    }
    return holds;
  }

  bool IsBetter(const Choice& choice, const QuantizeRecipe& ranges, const Mixture& made) const {
    if (made.point.holds != best_->point.holds) return made.point.holds;
    const bool as_fast = ranges.fewer_roundings == best_ranges_.fewer_roundings;
    if (choice == best_choice_ && (as_fast || !made.point.holds))
      return made.point.sqnr_db > best_->point.sqnr_db;
    if (!made.point.holds) return false;
    if (measured_ || against_fp32_) return made.time < best_->time;
    return Estimate(choice) < Estimate(best_choice_);
  }

  double Estimate(const Choice& choice) const {
    double extra = 0;
    for (size_t i = 0; i < groups_.size(); ++i) extra += *groups_[i].Extra(choice[i]);
    return extra;
  }

  absl::Status MeasureTimes() {
    std::vector<LayerPrecision> floats = {kF32};
    if (DetectTarget(1).bf16) floats.push_back(kBf16);
    for (const LayerPrecision in : floats) {
      for (size_t phase = 0; phase < std::min(kApart, groups_.size()); ++phase) {
        Choice choice(groups_.size(), kInt8);
        for (size_t i = phase; i < groups_.size(); i += kApart) choice[i] = in;
        OCTET_ASSIGN_OR_RETURN(const LatencyMeter::Turn turn,
                               mixtures_.Compare(LayersOf(choice), ranges_));
        if (!TellsGroups(turn.reference) || !TellsGroups(turn.graph)) {
          ForgetTimes();
          return absl::OkStatus();
        }
        const std::vector<double> before = UpToGroups(turn.reference);
        const std::vector<double> after = UpToGroups(turn.graph);
        for (size_t i = phase; i < groups_.size(); i += kApart) {
          groups_[i].extra[static_cast<size_t>(in)] =
              (Around(i, after) - Around(i, before)) / before.back();
        }
      }
    }
    ChooseFastest();
    return absl::OkStatus();
  }

  // Where data decide shapes, layers are compiled when they run, and nobody can time them.
  bool TellsGroups(const std::vector<StepTime>& steps) const {
    std::set<std::string_view> timed;
    for (const StepTime& step : steps) {
      if (step.multiplies && step.seconds > 0) timed.insert(step.layer);
    }
    return std::ranges::all_of(groups_, [&](const Group& group) {
      return std::ranges::any_of(
          group.layers, [&](NodeId id) { return timed.contains(mixtures_.graph().node(id).name); });
    });
  }

  void ForgetTimes() {
    measured_ = false;
    groups_.clear();
    FormGroups();
  }

  // Seconds up to and with the last step of each group; the last group's are those of all steps.
  std::vector<double> UpToGroups(const std::vector<StepTime>& steps) const {
    std::map<std::string_view, size_t> group_of;
    for (size_t i = 0; i < groups_.size(); ++i) {
      for (const NodeId id : groups_[i].layers) group_of[mixtures_.graph().node(id).name] = i;
    }
    std::vector<double> ends(groups_.size());
    double seconds = 0;
    for (const StepTime& step : steps) {
      seconds += step.seconds;
      const auto found = group_of.find(step.layer);
      if (step.multiplies && found != group_of.end()) ends[found->second] = seconds;
    }
    for (size_t i = 1; i < ends.size(); ++i) ends[i] = std::max(ends[i], ends[i - 1]);
    ends.back() = seconds;
    return ends;
  }

  // Of the steps that change with group i: those of the groups beside it, which write and read what it reads and writes, too.
  static double Around(size_t i, const std::vector<double>& ends) {
    return ends[std::min(i + 1, ends.size() - 1)] - (i >= 2 ? ends[i - 2] : 0);
  }

  void ChooseFastest() {
    for (Group& group : groups_) {
      const double f32 = *group.Extra(kF32);
      auto& bf16 = group.extra[static_cast<size_t>(kBf16)];
      group.measured_bf16 = bf16;
      if (bf16 && *bf16 > f32 - kLeastGain) bf16 = std::nullopt;
      const LayerPrecision faster = bf16 ? kBf16 : kF32;
      if (*group.Extra(faster) < -kLeastGain) group.fastest = faster;
    }
    pays_ = std::ranges::contains(groups_, kInt8, &Group::fastest);
    if (pays_ || against_fp32_) return;
    for (Group& group : groups_) group.fastest = kInt8;
  }

  // Real shortcuts cost less time than layers in float. Where they leave less noise, but not little enough, every mixture has them.
  absl::Status TryFewerRoundings(const Choice& all_int8) {
    const Selection fewer = SelectQuantized(mixtures_.graph(), {}, true);
    const bool changes =
        !fewer.sums_of_reals.empty() || fewer.weighted.size() != mixtures_.all().weighted.size();
    if (recipe_.fewer_roundings || !changes) return absl::OkStatus();
    QuantizeRecipe ranges = ranges_;
    ranges.fewer_roundings = true;
    OCTET_RETURN_IF_ERROR(Try(all_int8, ranges).status());
    if (Fastest() != all_int8) OCTET_RETURN_IF_ERROR(Try(Fastest(), ranges).status());
    ranges_ = best_ranges_;
    return absl::OkStatus();
  }

  // From what is fastest for each layer to fp32 itself.
  absl::Status TryNearerToFp32() {
    const Choice fp32(groups_.size(), kF32);
    Choice choice = Fastest();
    if (choice == fp32) return absl::OkStatus();  // It has been tried.
    const auto in_float = [&](size_t i) { return groups_[i].IsFaster(kBf16, kF32) ? kBf16 : kF32; };
    std::vector<size_t> int8;
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (choice[i] == kInt8) int8.push_back(i);
    }
    std::ranges::stable_sort(int8, std::greater<>(),
                             [&](size_t i) { return *groups_[i].Extra(in_float(i)); });
    while (!int8.empty()) {
      for (const size_t kept = int8.size() / 2; int8.size() > kept; int8.pop_back())
        choice[int8.back()] = in_float(int8.back());
      if (choice != fp32) OCTET_RETURN_IF_ERROR(Try(choice, ranges_).status());
    }
    return Try(fp32, ranges_).status();
  }

  // The noise of a group in a precision with all others in f32.
  absl::StatusOr<double> NoiseAlone(size_t group, LayerPrecision in) {
    Choice choice(groups_.size(), kF32);
    choice[group] = in;
    return mixtures_.Noise(LayersOf(choice), ranges_);
  }

  absl::Status MeasureAlone() {
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (groups_[i].fastest == kF32) continue;
      OCTET_ASSIGN_OR_RETURN(groups_[i].noise, NoiseAlone(i, groups_[i].fastest));
    }
    return absl::OkStatus();
  }

  // Groups from what is to be in f32 first to what is to be so last: one in int8, without which it were no int8 file.
  std::vector<size_t> Ranking(bool per_time) const {
    std::vector<size_t> ranking;
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (groups_[i].noise) ranking.push_back(i);
    }
    std::ranges::stable_sort(ranking, std::greater<>(), [&](size_t i) {
      return *groups_[i].noise / (per_time ? groups_[i].TimeInFloat() : 1);
    });
    const auto last =
        std::ranges::find_last(ranking, kInt8, [&](size_t i) { return groups_[i].fastest; });
    std::rotate(last.begin(), last.begin() + 1, ranking.end());
    return ranking;
  }

  Choice Prefix(const std::vector<size_t>& ranking, size_t count) const {
    Choice choice = Fastest();
    for (size_t i = 0; i < count; ++i) choice[ranking[i]] = kF32;
    return choice;
  }

  // What saves the most time may leave the most noise: then noise alone ranks.
  absl::Status FindMixture() {
    for (const bool per_time : {true, false}) {
      const std::vector<size_t> ranking = Ranking(per_time);
      OCTET_ASSIGN_OR_RETURN(const bool found, FindPrefix(ranking));
      if (found) return absl::OkStatus();
    }
    const Group& quietest = groups_[Ranking(false).back()];
    const MixedPoint& reached = points_.back();
    const MixedPoint& all_int8 = best_->point;
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        "no layer can be in int8 with a floor of {}: with {} alone in int8 there is {}, "
        "with all layers {}",
        mixtures_.FloorText(), Describe(mixtures_.graph().node(quietest.layers.front())),
        mixtures_.Reached(reached), mixtures_.Reached(all_int8));
  }

  absl::StatusOr<bool> FindPrefix(const std::vector<size_t>& ranking) {
    size_t fails = 0;
    size_t holds = 0;
    for (size_t count = 1; holds == 0 && fails + 1 < ranking.size(); count *= 2) {
      count = std::min(count, ranking.size() - 1);
      OCTET_ASSIGN_OR_RETURN(const bool held, Try(Prefix(ranking, count), ranges_));
      (held ? holds : fails) = count;
    }
    if (holds == 0) return false;
    while (holds - fails > 1) {
      const size_t middle = (holds + fails) / 2;
      OCTET_ASSIGN_OR_RETURN(const bool held, Try(Prefix(ranking, middle), ranges_));
      (held ? holds : fails) = middle;
    }
    return true;
  }

  // Of what is in f32 now, as much in bf16 as the floor takes.
  absl::Status Narrow() {
    const Choice wide = best_choice_;
    std::vector<size_t> ranking;
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (wide[i] != kF32 || !groups_[i].IsFaster(kBf16, kF32)) continue;
      OCTET_ASSIGN_OR_RETURN(groups_[i].bf16_noise, NoiseAlone(i, kBf16));
      if (!IsHopeless(groups_[i], kBf16)) ranking.push_back(i);
    }
    std::ranges::stable_sort(ranking, {}, [&](size_t i) {
      return *groups_[i].bf16_noise / (*groups_[i].Extra(kF32) - *groups_[i].Extra(kBf16));
    });
    size_t holds = 0;
    size_t fails = ranking.size() + 1;
    for (size_t count = ranking.size(); count > holds; count = (holds + fails) / 2) {
      Choice choice = wide;
      for (size_t i = 0; i < count; ++i) choice[ranking[i]] = kBf16;
      OCTET_ASSIGN_OR_RETURN(const bool held, Try(choice, ranges_));
      (held ? holds : fails) = count;
    }
    return absl::OkStatus();
  }

  struct Move {
    size_t group;
    LayerPrecision to;
    double saves;
  };

  // Each group to what is faster for it than what it is in.
  std::vector<Move> MovesBack() const {
    std::vector<Move> moves;
    for (size_t i = 0; i < groups_.size(); ++i) {
      const Group& group = groups_[i];
      for (const LayerPrecision to : {kInt8, kBf16}) {
        if (group.IsFaster(to, best_choice_[i]) && !IsHopeless(group, to))
          moves.push_back({i, to, *group.Extra(best_choice_[i]) - *group.Extra(to)});
      }
    }
    std::ranges::stable_sort(moves, std::greater<>(), &Move::saves);
    if (moves.size() > kMostTakenBack) moves.resize(kMostTakenBack);
    return moves;
  }

  absl::Status TakeBack() {
    for (const Move& move : MovesBack()) {
      Group& group = groups_[move.group];
      Choice choice = best_choice_;
      if (!group.IsFaster(move.to, choice[move.group])) continue;
      choice[move.group] = move.to;
      OCTET_ASSIGN_OR_RETURN(const bool held, Try(choice, ranges_));
      if (held) continue;
      group.tried += Format("; back in {} there was {}", LayerPrecisionName(move.to),
                            mixtures_.Reached(points_.back()));
    }
    return absl::OkStatus();
  }

  // Alone it breaks the floor; no run has to show that.
  bool IsHopeless(const Group& group, LayerPrecision in) const {
    std::optional<double> noise;
    if (in == kBf16) noise = group.bf16_noise;
    if (in == group.fastest) noise = group.noise;
    return recipe_.floor.kind == AccuracyFloor::Kind::kMinSqnr && noise &&
           SqnrDbOf(*noise) < recipe_.floor.value;
  }

  absl::Status TryOtherRanges() {
    const Choice choice = best_choice_;
    if (ranges_.fewer_roundings && !recipe_.fewer_roundings) {
      QuantizeRecipe more = ranges_;  // Layers in float may leave room for the roundings.
      more.fewer_roundings = false;
      OCTET_RETURN_IF_ERROR(Try(choice, more).status());
    }
    for (QuantizeRecipe& candidate : RangeCandidates(recipe_)) {
      candidate.fewer_roundings = best_ranges_.fewer_roundings;
      if (candidate.method == ranges_.method && candidate.percentile == ranges_.percentile)
        continue;
      OCTET_RETURN_IF_ERROR(Try(choice, candidate).status());
    }
    return absl::OkStatus();
  }

  // What stays in float is bytes in the file, where the floor holds with these, too. The point that was chosen is that of the file.
  absl::Status StoreRealConstants() {
    // Who set a floor did so for accuracy: what it leaves is not for bytes.
    if (!recipe_.byte_constants || floor_of_user_) return absl::OkStatus();
    const auto accept = [&](const Graph& graph) -> absl::StatusOr<bool> {
      OCTET_ASSIGN_OR_RETURN(const MixedPoint point,
                             mixtures_.Measure(LayersOf(best_choice_), graph));
      if (point.holds) best_->point = points_[best_point_] = point;
      return point.holds;
    };
    OCTET_RETURN_IF_ERROR(StoreInBytes(ranges_, mixtures_.statistics(), accept, best_->result));
    if (!std::ranges::contains(best_->result.records, "stored", &QuantizeRecord::what))
      return absl::OkStatus();
    OCTET_ASSIGN_OR_RETURN(times_[best_point_], mixtures_.TimeOf(best_->result.graph));
    return absl::OkStatus();
  }

  // Accuracy in the floor's own terms, then SQNR, which tells what these call equal.
  std::pair<double, double> Accuracy(const MixedPoint& point) const {
    switch (recipe_.floor.kind) {
      case AccuracyFloor::Kind::kMaxDrop:
        return {-*point.lost, point.sqnr_db};
      case AccuracyFloor::Kind::kMinAgreement:
        return {*point.agreement, point.sqnr_db};
      default:
        return {point.sqnr_db, 0};
    }
  }

  void MarkFront() {
    for (size_t i = 0; i < points_.size(); ++i) {
      MixedPoint& point = points_[i];
      point.on_front = true;
      for (size_t j = 0; j < points_.size(); ++j) {
        const auto accuracy = Accuracy(points_[j]) <=> Accuracy(point);
        const auto speed = point.us_per_sample <=> points_[j].us_per_sample;
        const bool better = accuracy > 0 || speed > 0 || j < i;  // of equal ones the first
        if (accuracy >= 0 && speed >= 0 && better) point.on_front = i == j;
        if (!point.on_front) break;
      }
    }
    std::ranges::stable_sort(points_, {}, &MixedPoint::us_per_sample);
  }

  std::string Why(const Group& group, LayerPrecision in) const {
    if (!pays_ && in == kInt8) return "int8 is faster in no layer here; it makes the file small";
    if (in != kInt8 && in == group.fastest) return "it is slower in int8";
    if (in != kInt8 && against_fp32_)
      return "with what converts around it, it gains too little by int8";
    if (!group.noise) return "the floor holds with this layer in int8";
    return Format("alone in {} it leaves {:.1f} dB in the outputs{}",
                  LayerPrecisionName(group.fastest), SqnrDbOf(*group.noise), group.tried);
  }

  LayerDecision Decision(size_t at, NodeId id) const {
    const Group& group = groups_[at];
    const Node& node = mixtures_.graph().node(id);
    LayerDecision decision{.name = node.name,
                           .op = node.op,
                           .macs = mixtures_.MacsOf(id),
                           .precision = best_choice_[at],
                           .group = static_cast<int>(at),
                           .why = Why(group, best_choice_[at])};
    if (group.noise && group.fastest == kInt8) decision.alone_sqnr_db = SqnrDbOf(*group.noise);
    if (!measured_) return decision;
    decision.f32_us = *group.Extra(kF32) * mixtures_.reference_us();
    if (group.measured_bf16) decision.bf16_us = *group.measured_bf16 * mixtures_.reference_us();
    return decision;
  }

  // Small last products are in float by this, whatever the mixture says.
  void RecordFewerRoundings(MixedPrecision& mixed) {
    const FloatLayers kept = LayersOf(best_choice_);
    const Selection written = SelectQuantized(mixtures_.graph(), kept.all, true);
    size_t at = 0;
    for (const Group& group : groups_) {
      for (const NodeId id : group.layers) {
        LayerDecision& decision = mixed.layers[at++];
        if (kept.all.contains(id) || !written.kept_float.contains(id)) continue;
        decision.precision = kF32;
        decision.why =
            "it multiplies last, and so little that to round for it saves hardly any time";
      }
    }
    best_->result.records.push_back(
        {"network", std::string(kFewerRoundings),
         Format("residual sums that add reals: {}; without, no mixture of int8 alone had {}",
                written.sums_of_reals.size(), mixtures_.FloorText())});
  }

  absl::StatusOr<QuantizeResult> Finish() {
    points_[best_point_].chosen = true;
    for (size_t i = 0; i < points_.size(); ++i)
      points_[i].us_per_sample = times_[i] * mixtures_.reference_us();
    MarkFront();
    MixedPrecision mixed{.floor = mixtures_.FloorText(),
                         .held_back = mixtures_.held_back(),
                         .runs = mixtures_.runs(),
                         .measured_times = measured_,
                         .points = std::move(points_)};
    for (size_t i = 0; i < groups_.size(); ++i) {
      for (const NodeId id : groups_[i].layers) mixed.layers.push_back(Decision(i, id));
    }
    if (best_ranges_.fewer_roundings && !recipe_.fewer_roundings) RecordFewerRoundings(mixed);
    best_->result.mixed = std::move(mixed);
    return std::move(best_->result);
  }

  Mixtures mixtures_;
  const QuantizeRecipe& recipe_;
  const bool floor_of_user_;
  const bool against_fp32_;
  bool measured_;
  QuantizeRecipe ranges_;
  std::vector<Group> groups_;
  bool pays_ = true;  ///< Int8 is the fastest for some layer.
  std::vector<MixedPoint> points_;
  std::vector<double> times_;  ///< Of points_, over that of int8 alone.
  std::optional<Mixture> best_;
  Choice best_choice_;
  QuantizeRecipe best_ranges_;
  size_t best_point_ = 0;
};

}  // namespace

std::string_view LayerPrecisionName(LayerPrecision precision) {
  switch (precision) {
    case kInt8:
      return "int8";
    case kBf16:
      return "bf16";
    case kF32:
      return "f32";
  }
  return "unknown";
}

absl::StatusOr<QuantizeResult> QuantizeMixed(Graph graph, const QuantizeRecipe& recipe,
                                             LayerTimes times, const CalibrationData& calibration,
                                             const CalibrationRun& run) {
  int runs = 0;
  CalibrationRun counted = run;
  counted.statistics_to.clear();  // Of all samples; those here are of a half.
  if (run.progress) {
    // One step per run of the model, whose own steps are short.
    counted.progress = [&](int64_t done, int64_t total) {
      runs += done == total;
      return run.progress(std::min(runs, kMostRuns), kMostRuns);
    };
  }
  OCTET_ASSIGN_OR_RETURN(Mixtures mixtures,
                         Mixtures::Prepare(std::move(graph), recipe, calibration, counted));
  return MixedSearch(std::move(mixtures), recipe, times).Run();
}

}  // namespace octet
