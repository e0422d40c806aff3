#include "engine/quantize/latency_meter.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "engine/engine.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsOf(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

double Sum(const std::vector<StepTime>& steps) {
  double sum = 0;
  for (const StepTime& step : steps) sum += step.seconds;
  return sum;
}

}  // namespace

// A plan, what it runs in, and its least times: of the turn, and of all turns.
class LatencyMeter::Runner {
 public:
  Runner(std::shared_ptr<const Plan> plan, std::vector<Datum> inputs)
      : plan_(std::move(plan)), inputs_(std::move(inputs)) {
    for (const LayerRecord& layer : plan_->certificate().layers)
      steps_.push_back({layer.name, layer.macs > 0, kNever});
    ever_ = steps_;
  }
  explicit Runner(std::vector<StepTime> given) : steps_(std::move(given)), ever_(steps_) {}

  void BeginTurn() {
    if (plan_ == nullptr) return;
    for (StepTime& step : steps_) step.seconds = kNever;
    whole_ = kNever;
  }

  absl::Status Round() {
    if (plan_ == nullptr) return absl::OkStatus();
    OCTET_ASSIGN_OR_RETURN(const std::vector<LayerTime> layers, plan_->LayerTimes(workspace_, 1));
    for (size_t i = 0; i < steps_.size(); ++i) {
      const double seconds = SecondsOf(layers[i].in_order);
      steps_[i].seconds = std::min(steps_[i].seconds, seconds);
      ever_[i].seconds = std::min(ever_[i].seconds, seconds);
    }
    if (plan_->has_static_outputs()) return absl::OkStatus();
    const auto started = Clock::now();
    OCTET_RETURN_IF_ERROR(plan_->RunDynamic(workspace_, inputs_, {}).status());
    whole_ = std::min(whole_, SecondsOf(Clock::now() - started));
    whole_ever_ = std::min(whole_ever_, whole_);
    return absl::OkStatus();
  }

  const std::vector<StepTime>& steps() const { return steps_; }
  double seconds() const { return whole_ < kNever ? whole_ : Sum(steps_); }
  double least_seconds() const { return whole_ever_ < kNever ? whole_ever_ : Sum(ever_); }

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  std::shared_ptr<const Plan> plan_;  // Null where the times are given.
  std::vector<Datum> inputs_;
  Workspace workspace_;
  std::vector<StepTime> steps_;
  std::vector<StepTime> ever_;
  double whole_ = kNever;
  double whole_ever_ = kNever;
};

LatencyMeter::LatencyMeter(CalibrationSet sample, const CalibrationRun& run)
    : sample_(std::move(sample)), disabled_passes_(run.disabled_passes), given_(run.time) {}
LatencyMeter::LatencyMeter(LatencyMeter&&) noexcept = default;
LatencyMeter& LatencyMeter::operator=(LatencyMeter&&) noexcept = default;
LatencyMeter::~LatencyMeter() = default;

absl::StatusOr<std::unique_ptr<LatencyMeter::Runner>> LatencyMeter::Load(const Graph& int8) const {
  if (given_) {
    OCTET_ASSIGN_OR_RETURN(std::vector<StepTime> steps, given_(int8));
    return std::make_unique<Runner>(std::move(steps));
  }
  LoadOptions options;
  options.precision = Precision::kInt8;
  options.disabled_passes = disabled_passes_;
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Model> model, Model::FromGraph(int8, options));
  std::vector<Shape> shapes;
  std::vector<Datum> inputs;
  for (const TensorInfo& input : model->signature().inputs) {
    inputs.push_back(Datum::Of(sample_.at(input.name)));
    shapes.push_back(inputs.back().tensor.shape());
  }
  OCTET_ASSIGN_OR_RETURN(std::shared_ptr<const Plan> plan, model->PlanFor(shapes));
  return std::make_unique<Runner>(std::move(plan), std::move(inputs));
}

absl::StatusOr<LatencyMeter::Turn> LatencyMeter::Compare(const Graph& int8, double seconds) {
  ConfigureWorkerThread(1);
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<Runner> loaded, Load(int8));
  Runner& measured = *loaded;
  const bool first = reference_ == nullptr;
  if (first) reference_ = std::move(loaded);
  reference_->BeginTurn();
  const auto started = Clock::now();
  for (int round = 0; round < kLeastRounds || SecondsOf(Clock::now() - started) < seconds;
       ++round) {
    OCTET_RETURN_IF_ERROR(reference_->Round());
    if (!first) OCTET_RETURN_IF_ERROR(measured.Round());
    if (given_) break;
  }
  return Turn{reference_->steps(), measured.steps(), measured.seconds() / reference_->seconds()};
}

double LatencyMeter::reference_seconds() const {
  return reference_ == nullptr ? 0 : reference_->least_seconds();
}

}  // namespace octet
