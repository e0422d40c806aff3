#include "engine/quantize/mixed_precision.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "engine/quantize/byte_storage.h"
#include "engine/quantize/mixtures.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr size_t kMostGroups = 128;
constexpr int kMostTakenBack = 16;
// Runs that all steps together take at most.
constexpr int kMostRuns = static_cast<int>(kMostGroups) + 2 * (8 + 7) + kMostTakenBack + 4;

// Layers that are decided together.
struct Group {
  std::vector<NodeId> layers;
  double saves = 0;  ///< Time in int8, as multiply-adds in float.
  std::optional<double> noise;
  std::string tried;  ///< What became of taking it back.
};

using Choice = std::vector<bool>;  ///< By group: stays in float.

class MixedSearch {
 public:
  MixedSearch(Mixtures mixtures, const QuantizeRecipe& recipe)
      : mixtures_(std::move(mixtures)), recipe_(recipe), ranges_(recipe) {}

  absl::StatusOr<QuantizeResult> Run() {
    FormGroups();
    const Choice all_int8(groups_.size(), false);
    for (const QuantizeRecipe& candidate : RangeCandidates(recipe_))
      OCTET_RETURN_IF_ERROR(Try(all_int8, candidate).status());
    ranges_ = best_ranges_;
    if (!best_->point.holds) {
      OCTET_RETURN_IF_ERROR(MeasureAlone());
      OCTET_RETURN_IF_ERROR(FindMixture());
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
      groups_.back().layers.push_back(layers[i]);
      groups_.back().saves += Saves(layers[i]);
    }
  }

  // An int8 multiply-add takes about a third of a float one's time, and to convert an activation that of about eight: measured
  // layer by layer on a core with AVX512-VNNI.
  double Saves(NodeId id) const {
    const auto macs = static_cast<double>(mixtures_.MacsOf(id));
    const double saved = macs * 2 / 3 - 8.0 * static_cast<double>(mixtures_.ReadsOf(id));
    return std::max({saved, macs / 20, 1.0});
  }

  std::set<NodeId> FloatNodes(const Choice& choice) const {
    std::set<NodeId> nodes;
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (choice[i]) nodes.insert(groups_[i].layers.begin(), groups_[i].layers.end());
    }
    return nodes;
  }

  // Runs a mixture; keeps it if it is the best so far: one that holds the floor before one that does not, then the one with more
  // to save, then the less noisy.
  absl::StatusOr<bool> Try(const Choice& choice, const QuantizeRecipe& ranges) {
    OCTET_ASSIGN_OR_RETURN(Mixture made, mixtures_.Run(FloatNodes(choice), ranges));
    points_.push_back(made.point);
    const bool holds = made.point.holds;
    if (!best_ || IsBetter(choice, made.point)) {
      best_ = std::move(made);
      best_choice_ = choice;
      best_ranges_ = ranges;
      best_point_ = points_.size() - 1;
    }
    return holds;
  }

  bool IsBetter(const Choice& choice, const MixedPoint& point) const {
    if (point.holds != best_->point.holds) return point.holds;
    if (choice != best_choice_) return point.holds && Saved(choice) > Saved(best_choice_);
    return point.sqnr_db > best_->point.sqnr_db;
  }

  double Saved(const Choice& choice) const {
    double saved = 0;
    for (size_t i = 0; i < groups_.size(); ++i) saved += choice[i] ? 0 : groups_[i].saves;
    return saved;
  }

  absl::Status MeasureAlone() {
    for (size_t i = 0; i < groups_.size(); ++i) {
      Choice others(groups_.size(), true);
      others[i] = false;
      OCTET_ASSIGN_OR_RETURN(groups_[i].noise, mixtures_.Noise(FloatNodes(others), ranges_));
    }
    return absl::OkStatus();
  }

  // Groups from what is to be in float first to what is to be so last.
  std::vector<size_t> Ranking(bool per_time) const {
    std::vector<size_t> ranking(groups_.size());
    std::iota(ranking.begin(), ranking.end(), size_t{0});
    std::ranges::stable_sort(ranking, std::greater<>(), [&](size_t i) {
      return *groups_[i].noise / (per_time ? groups_[i].saves : 1);
    });
    return ranking;
  }

  Choice Prefix(const std::vector<size_t>& ranking, size_t count) const {
    Choice choice(groups_.size(), false);
    for (size_t i = 0; i < count; ++i) choice[ranking[i]] = true;
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
    for (size_t count = 1; holds == 0 && fails + 1 < groups_.size(); count *= 2) {
      count = std::min(count, groups_.size() - 1);
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

  absl::Status TakeBack() {
    std::vector<size_t> kept;
    for (size_t i = 0; i < groups_.size(); ++i) {
      if (best_choice_[i]) kept.push_back(i);
    }
    std::ranges::stable_sort(kept, std::greater<>(), [&](size_t i) { return groups_[i].saves; });
    int tries = 0;
    for (const size_t i : kept) {
      if (IsHopeless(groups_[i])) continue;
      if (++tries > kMostTakenBack) break;
      Choice choice = best_choice_;
      choice[i] = false;
      OCTET_ASSIGN_OR_RETURN(const bool held, Try(choice, ranges_));
      if (!held)
        groups_[i].tried = Format("; back in int8 there was {}", mixtures_.Reached(points_.back()));
    }
    return absl::OkStatus();
  }

  // Alone it breaks the floor; no run has to show that.
  bool IsHopeless(const Group& group) const {
    return recipe_.floor.kind == AccuracyFloor::Kind::kMinSqnr &&
           SqnrDbOf(*group.noise) < recipe_.floor.value;
  }

  absl::Status TryOtherRanges() {
    const Choice choice = best_choice_;
    const std::vector<QuantizeRecipe> candidates = RangeCandidates(recipe_);
    for (const QuantizeRecipe& candidate : candidates) {
      if (candidate.method == ranges_.method && candidate.percentile == ranges_.percentile)
        continue;
      OCTET_RETURN_IF_ERROR(Try(choice, candidate).status());
    }
    return absl::OkStatus();
  }

  // What stays in float is bytes in the file, where the floor holds with these, too. The point that was chosen is that of the file.
  absl::Status StoreRealConstants() {
    const auto accept = [&](const Graph& graph) -> absl::StatusOr<bool> {
      OCTET_ASSIGN_OR_RETURN(const MixedPoint point,
                             mixtures_.Measure(graph, best_->point.float_layers));
      if (point.holds) best_->point = points_[best_point_] = point;
      return point.holds;
    };
    return StoreInBytes(ranges_, mixtures_.statistics(), accept, best_->result);
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
        const auto share = points_[j].int8_share <=> point.int8_share;
        const bool better = accuracy > 0 || share > 0 || j < i;  // of equal ones the first
        if (accuracy >= 0 && share >= 0 && better) point.on_front = i == j;
        if (!point.on_front) break;
      }
    }
    std::ranges::stable_sort(points_, {}, &MixedPoint::int8_share);
  }

  LayerDecision Decision(size_t group, NodeId id) const {
    const Group& of = groups_[group];
    const Node& node = mixtures_.graph().node(id);
    LayerDecision decision{.name = node.name,
                           .op = node.op,
                           .macs = mixtures_.MacsOf(id),
                           .int8 = !best_choice_[group],
                           .group = static_cast<int>(group)};
    if (!of.noise) {
      decision.why = "the floor holds with all layers in int8";
      return decision;
    }
    decision.alone_sqnr_db = SqnrDbOf(*of.noise);
    decision.why = Format("alone in int8 it leaves {:.1f} dB in the outputs{}",
                          *decision.alone_sqnr_db, of.tried);
    return decision;
  }

  absl::StatusOr<QuantizeResult> Finish() {
    points_[best_point_].chosen = true;
    MarkFront();
    MixedPrecision mixed{.floor = mixtures_.FloorText(),
                         .held_back = mixtures_.held_back(),
                         .runs = mixtures_.runs(),
                         .points = std::move(points_)};
    for (size_t i = 0; i < groups_.size(); ++i) {
      for (const NodeId id : groups_[i].layers) mixed.layers.push_back(Decision(i, id));
    }
    best_->result.mixed = std::move(mixed);
    return std::move(best_->result);
  }

  Mixtures mixtures_;
  const QuantizeRecipe& recipe_;
  QuantizeRecipe ranges_;
  std::vector<Group> groups_;
  std::vector<MixedPoint> points_;
  std::optional<Mixture> best_;
  Choice best_choice_;
  QuantizeRecipe best_ranges_;
  size_t best_point_ = 0;
};

}  // namespace

absl::StatusOr<QuantizeResult> QuantizeMixed(Graph graph, const QuantizeRecipe& recipe,
                                             const CalibrationSet& calibration,
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
  return MixedSearch(std::move(mixtures), recipe).Run();
}

}  // namespace octet
