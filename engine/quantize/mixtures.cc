#include "engine/quantize/mixtures.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "engine/quantize/calibration_file.h"
#include "engine/quantize/held_back.h"
#include "engine/quantize/judged.h"
#include "engine/tensor/output_agreement.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Kind = AccuracyFloor::Kind;

// How many samples are enough to tell noise that differs by powers of ten.
constexpr int64_t kFewSamples = 16;
// Of turns with the reference: to compare single steps takes more rounds than their sum.
constexpr double kLayersSeconds = 0.4;
constexpr double kMixtureSeconds = 0.08;

// The class of each sample.
class ClassesSeen : public Collector {
 public:
  explicit ClassesSeen(bool one_sample) : one_sample_(one_sample) {}

  absl::Status Observe(ConstTensorView batch) override {
    const auto rows = one_sample_ ? size_t{1} : static_cast<size_t>(batch.shape()[0]);
    const std::span<const float> scores = batch.span<float>();
    const size_t classes = scores.size() / std::max<size_t>(rows, 1);
    for (size_t row = 0; row < rows; ++row)
      classes_.push_back(TopClass(scores.subspan(row * classes, classes)));
    return absl::OkStatus();
  }
  std::vector<std::optional<size_t>>& classes() { return classes_; }

 private:
  bool one_sample_;  ///< In each run.
  std::vector<std::optional<size_t>> classes_;
};

// Of the first output, which has scores for them; 0: it is something else.
int64_t ClassCount(const Graph& graph, const CalibrationData& set) {
  if (graph.outputs.empty()) return 0;
  const std::optional<int64_t> rows = set.whole_inputs() ? std::optional<int64_t>(1) : std::nullopt;
  const Value& value = graph.value(graph.outputs[0]);
  return value.dtype == DType::kF32 && value.shape ? ClassesOf(*value.shape, rows) : 0;
}

// Points that classes may differ by.
double Allowed(const AccuracyFloor& floor) {
  return floor.kind == Kind::kMaxDrop ? floor.value : 100 - floor.value;
}

bool CountsClasses(const AccuracyFloor& floor) {
  return floor.kind == Kind::kMaxDrop || floor.kind == Kind::kMinAgreement;
}

std::string NameOf(const AccuracyFloor& floor) {
  switch (floor.kind) {
    case Kind::kMaxDrop:
      return Format("loss of top-1 of at most {} points", floor.value);
    case Kind::kMinAgreement:
      return Format("agreement with fp32 of at least {} %", floor.value);
    default:
      return Format("SQNR of at least {} dB", floor.value);
  }
}

}  // namespace

absl::Status CheckFloor(const AccuracyFloor& floor, const Graph& graph, const CalibrationData& set,
                        const std::vector<int64_t>& labels) {
  const int64_t classes = ClassCount(graph, set);
  if (CountsClasses(floor) && classes == 0) {
    return InvalidArgument("a floor for the {} needs class scores, FP32 [N, C], as first output",
                           NameOf(floor));
  }
  if (floor.kind != Kind::kMaxDrop) return absl::OkStatus();
  if (labels.empty()) return InvalidArgument("a floor for the {} needs labels", NameOf(floor));
  OCTET_RETURN_IF_ERROR(CheckLabels(labels, set.count()));
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= classes) {
      return InvalidArgument("sample {}: expected a label below the model's {} classes, got {}", i,
                             classes, labels[i]);
    }
  }
  return absl::OkStatus();
}

// A floor below what a single sample weighs cannot be told by counting: then the outputs must be as good as those of models that
// need no layer in float, too.
bool Mixtures::IsCoarse() const {
  return CountsClasses(floor_) && 100.0 / static_cast<double>(held_back_count_) > Allowed(floor_);
}

std::string Mixtures::FloorText() const {
  if (!IsCoarse()) return NameOf(floor_);
  return Format("{} (and, one sample being {:.2f} %, an SQNR of {} dB)", NameOf(floor_),
                100.0 / static_cast<double>(held_back_count_), AccuracyFloor::kAutoSqnrDb);
}

bool Mixtures::Holds(const MixedPoint& point) const {
  constexpr double kRounding = 1e-9;
  if (IsCoarse() && point.sqnr_db < AccuracyFloor::kAutoSqnrDb) return false;
  switch (floor_.kind) {
    case Kind::kMaxDrop:
      return *point.lost <= floor_.value + kRounding;
    case Kind::kMinAgreement:
      return *point.agreement >= floor_.value - kRounding;
    default:
      return point.sqnr_db >= floor_.value;
  }
}

std::string Mixtures::Reached(const MixedPoint& point) const {
  switch (floor_.kind) {
    case Kind::kMaxDrop:
      return Format("a loss of {:.2f} points, an SQNR of {:.1f} dB", *point.lost, point.sqnr_db);
    case Kind::kMinAgreement:
      return Format("an agreement of {:.2f} %, an SQNR of {:.1f} dB", *point.agreement,
                    point.sqnr_db);
    default:
      return Format("an SQNR of {:.1f} dB", point.sqnr_db);
  }
}

absl::StatusOr<Mixtures> Mixtures::Prepare(Graph graph, const QuantizeRecipe& recipe,
                                           const CalibrationData& set, const CalibrationRun& run) {
  OCTET_RETURN_IF_ERROR(CheckFloor(recipe.floor, graph, set, run.labels));
  Mixtures made;
  made.graph_ = std::move(graph);
  made.floor_ = recipe.floor;
  made.run_ = run;
  made.scores_ = ClassCount(made.graph_, set) > 0;
  OCTET_RETURN_IF_ERROR(made.CountMacs(set));
  int64_t macs = 1;
  for (const int64_t of_node : made.macs_) macs += of_node;
  // The multiply-adds are those of the model's own batch, where it has one.
  const int64_t batch = OwnBatch(made.graph_, set);
  const int64_t least = std::max(kFewSamples, batch);
  const int64_t most =
      std::clamp<int64_t>(kMostMacs / macs * batch, least, std::max(kMostHeldBack, least));
  const bool known = !run.statistics_from.empty();
  if (!known && batch > 1 && set.count() / 2 < batch) {
    return InvalidArgument(
        "half of the samples are held back, and the model takes {} at once: expected at least {} "
        "samples, got {}",
        batch, 2 * batch, set.count());
  }
  OCTET_ASSIGN_OR_RETURN(SplitSet split, known ? AllHeldBack(set, run.labels, most, recipe.seed)
                                               : HoldBack(set, run.labels, most, recipe.seed));
  made.held_back_ = std::move(split.held_back);
  made.held_back_count_ = made.held_back_.count();
  made.few_ = FirstSamples(made.held_back_, least);
  made.batch_ = batch;
  OCTET_ASSIGN_OR_RETURN(CalibrationSet timed,
                         made.held_back_.InMemory(0, std::min(made.held_back_count_, batch)));
  made.meter_.emplace(std::move(timed), run);
  OCTET_RETURN_IF_ERROR(made.AskFp32(split.labels));
  OCTET_ASSIGN_OR_RETURN(made.statistics_, known
                                               ? FileStatistics(made.graph_, set, run)
                                               : GatherStatistics(made.graph_, split.ranges, run));
  made.statistics_.Select(made.graph_, recipe);
  Statistics no_part;
  OCTET_ASSIGN_OR_RETURN(
      made.records_, EqualizeJudged(made.graph_, recipe, made.statistics_, no_part, *made.outputs_,
                                    made.few_, made.run_));
  OCTET_ASSIGN_OR_RETURN(made.scale_concats_,
                         ScaleConcatsJudged(made.graph_, recipe, made.statistics_, no_part,
                                            *made.outputs_, made.few_, made.run_, made.records_));
  RecordSeenJudges(made.statistics_, made.records_);
  return made;
}

absl::Status Mixtures::CountMacs(const CalibrationData& set) {
  Graph one = graph_;
  for (const ValueId input : one.inputs) {
    const std::string& name = one.value(input).name;
    if (set.SpecOf(name, 0) == nullptr) continue;  // Calibrate will name it.
    const auto& own = one.value(input).shape;
    const bool fixed = !set.whole_inputs() && own && own->rank() > 0 && (*own)[0] != kUnknownDim;
    one.mutable_value(input).shape = set.RunShape(name, 0, fixed ? (*own)[0] : 1);
  }
  OCTET_RETURN_IF_ERROR(InferShapes(one));
  for (const NodeId id : one.order()) {
    const auto at = static_cast<size_t>(id);
    if (at >= macs_.size()) {
      macs_.resize(at + 1);
      reads_.resize(at + 1);
    }
    macs_[at] = MultiplyAdds(one, one.node(id));
    for (const ValueId in : one.node(id).inputs) {
      if (in == kNone || one.value(in).is_constant() || !one.value(in).has_static_shape()) continue;
      reads_[at] += one.value(in).shape->elements();
    }
  }
  return absl::OkStatus();
}

absl::Status Mixtures::AskFp32(const std::vector<int64_t>& labels) {
  outputs_ = std::make_unique<KeptOutputs>(graph_);
  if (outputs_->empty())
    return InvalidArgument("a floor for the {} needs an FP32 output", NameOf(floor_));
  ClassesSeen seen(held_back_.whole_inputs());
  std::vector<Observation> observations = outputs_->Observations();
  if (scores_) observations.push_back({graph_.outputs[0], &seen});
  OCTET_RETURN_IF_ERROR(Calibrate(graph_, observations, held_back_, run_));
  fp32_classes_ = std::move(seen.classes());
  // A model with a batch of its own leaves out samples that do not fill the last one.
  if (scores_) held_back_count_ = std::ssize(fp32_classes_);
  labels_ = labels;
  return absl::OkStatus();
}

absl::StatusOr<QuantizeResult> Mixtures::Make(const FloatLayers& kept,
                                              const QuantizeRecipe& ranges) {
  const auto [table, missing] = tables_.try_emplace(RangesName(ranges));
  if (missing) table->second = RangesOf(graph_, ranges, statistics_.histograms);
  QuantizeRecipe recipe = ranges;
  recipe.scale_concats = scale_concats_;
  OCTET_ASSIGN_OR_RETURN(QuantizeResult result,
                         InsertIntegers(graph_, recipe, statistics_,
                                        SelectQuantized(graph_, kept.all, recipe.fewer_roundings),
                                        table->second, rounded_));
  for (const NodeId id : kept.in_bf16) result.graph.mutable_node(id).in_bf16 = true;
  return result;
}

absl::StatusOr<double> Mixtures::Noise(const FloatLayers& kept, const QuantizeRecipe& ranges) {
  ++runs_;
  OCTET_ASSIGN_OR_RETURN(const QuantizeResult result, Make(kept, ranges));
  return outputs_->NoiseOf(result.graph, few_, run_);
}

absl::StatusOr<LatencyMeter::Turn> Mixtures::Compare(const FloatLayers& kept,
                                                     const QuantizeRecipe& ranges) {
  if (run_.progress && !run_.progress(1, 1)) return absl::CancelledError("calibration was stopped");
  OCTET_ASSIGN_OR_RETURN(const QuantizeResult result, Make(kept, ranges));
  return meter_->Compare(result.graph, kLayersSeconds);
}

absl::StatusOr<double> Mixtures::TimeOf(const Graph& graph) {
  OCTET_ASSIGN_OR_RETURN(const LatencyMeter::Turn turn, meter_->Compare(graph, kMixtureSeconds));
  return std::isfinite(turn.ratio) ? turn.ratio : 1.0;  // Nothing took time.
}

absl::StatusOr<double> Mixtures::KnownTimeOf(const FloatLayers& kept, bool fewer_roundings,
                                             const Graph& mixture) {
  const auto [at, missing] = times_.try_emplace({kept, fewer_roundings}, 1);
  if (!missing) return at->second;
  OCTET_ASSIGN_OR_RETURN(at->second, TimeOf(mixture));
  return at->second;
}

double Mixtures::reference_us() const {
  return 1e6 * meter_->reference_seconds() / static_cast<double>(batch_);
}

void Mixtures::CompareClasses(const std::vector<std::optional<size_t>>& classes,
                              MixedPoint& point) const {
  int64_t agree = 0;
  int64_t lost = 0;
  int64_t gained = 0;
  for (size_t i = 0; i < classes.size(); ++i) {
    agree += classes[i] && classes[i] == fp32_classes_[i];
    if (labels_.empty()) continue;
    const bool right = classes[i] && std::cmp_equal(*classes[i], labels_[i]);
    const bool was_right = fp32_classes_[i] && std::cmp_equal(*fp32_classes_[i], labels_[i]);
    lost += was_right && !right;
    gained += right && !was_right;
  }
  const auto percent = [&](int64_t count) {
    return 100.0 * static_cast<double>(count) / static_cast<double>(classes.size());
  };
  point.agreement = percent(agree);
  if (labels_.empty()) return;
  point.lost = percent(lost);
  point.drop = percent(lost - gained);
}

absl::StatusOr<Mixture> Mixtures::Run(const FloatLayers& kept, const QuantizeRecipe& ranges) {
  ++runs_;
  OCTET_ASSIGN_OR_RETURN(QuantizeResult result, Make(kept, ranges));
  OCTET_ASSIGN_OR_RETURN(MixedPoint point, Measure(kept, result.graph));
  OCTET_ASSIGN_OR_RETURN(const double time,
                         KnownTimeOf(kept, ranges.fewer_roundings, result.graph));
  result.records.insert(result.records.end(), records_.begin(), records_.end());
  return Mixture{std::move(result), std::move(point), time};
}

absl::StatusOr<MixedPoint> Mixtures::Measure(const FloatLayers& kept, const Graph& graph) {
  ClassesSeen seen(held_back_.whole_inputs());
  std::vector<Observation> more;
  if (scores_) more.push_back({graph.outputs[0], &seen});
  RunFigures figures;
  OCTET_ASSIGN_OR_RETURN(const double noise,
                         outputs_->NoiseOf(graph, held_back_, run_, more, &figures));
  MixedPoint point{.float_layers = static_cast<int>(kept.all.size()),
                   .bf16_layers = static_cast<int>(kept.in_bf16.size()),
                   .sqnr_db = SqnrDbOf(noise),
                   .int8_share = figures.int8_share,
                   .bf16_share = figures.bf16_share};
  if (scores_) CompareClasses(seen.classes(), point);
  point.holds = Holds(point);
  return point;
}

}  // namespace octet
