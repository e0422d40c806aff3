#include "server/repository/variant_guard.h"

#include <array>
#include <cmath>
#include <utility>

#include "absl/status/status.h"

#include "engine/tensor/format.h"
#include "server/logging/event_log.h"
#include "server/repository/model_version.h"
#include "server/scheduling/batch_policy.h"

namespace octet {

uint64_t ServerErrors(const VariantMetrics& metrics) {
  constexpr std::array kErrors = {absl::StatusCode::kInternal, absl::StatusCode::kUnknown,
                                  absl::StatusCode::kDataLoss};
  uint64_t errors = 0;
  for (const absl::StatusCode code : kErrors) {
    errors += metrics.requests.value(static_cast<size_t>(code));
  }
  return errors;
}

uint64_t Refusals(const VariantMetrics& metrics) {
  uint64_t refused = 0;
  for (const Refusal reason : {Refusal::kQueueFull, Refusal::kDeadline, Refusal::kTarget}) {
    refused += metrics.refused.value(static_cast<size_t>(reason));
  }
  return refused;
}

VariantGuard::VariantGuard(std::string name, ModelConfig::Routing::Guard rules,
                           std::shared_ptr<VariantMetrics> metrics,
                           std::vector<std::shared_ptr<ShadowMetrics>> pairs,
                           std::shared_ptr<const LatencyLimit> limit,
                           std::shared_ptr<TrafficEvents> events)
    : name_(std::move(name)),
      rules_(rules),
      metrics_(std::move(metrics)),
      pairs_(std::move(pairs)),
      limit_(std::move(limit)),
      events_(std::move(events)) {
  metrics_->guard_tripped.Set(0);
}

GuardFacts VariantGuard::Read() const {
  GuardFacts sums;
  sums.requests = metrics_->request_duration.Read().total();
  sums.errors = ServerErrors(*metrics_);
  sums.refused = Refusals(*metrics_);
  if (limit_ != nullptr) {
    sums.slow = limit_->slow();
    sums.timed = limit_->requests();
  }
  for (const auto& pair : pairs_) {
    // Read one after the other while copies are counted: off by those of this moment at most.
    sums.agreed_rows += pair->top1_agreed.value();
    sums.class_rows += pair->class_rows.value();
    const HistogramCounts ratios = pair->sqnr.Read();
    sums.ratios += ratios.total();
    sums.ratio_sum_db += ratios.sum;
    sums.lost_outputs += pair->lost_outputs.value();
  }
  return sums;
}

void VariantGuard::Look(TimePoint now) {
  // Each time: a guard that this one replaces may have said something else in between.
  metrics_->guard_tripped.Set(state_.tripped ? 1 : 0);
  if (begun_ && now < end_) return;
  const GuardFacts sums = Read();
  const GuardFacts before = std::exchange(begin_, sums);
  end_ = now + std::chrono::seconds(rules_.window_seconds);
  if (!std::exchange(begun_, true)) return;
  const GuardFacts facts = {.class_rows = sums.class_rows - before.class_rows,
                            .agreed_rows = sums.agreed_rows - before.agreed_rows,
                            .ratios = sums.ratios - before.ratios,
                            .ratio_sum_db = sums.ratio_sum_db - before.ratio_sum_db,
                            .lost_outputs = sums.lost_outputs - before.lost_outputs,
                            .requests = sums.requests - before.requests,
                            .errors = sums.errors - before.errors,
                            .timed = sums.timed - before.timed,
                            .slow = sums.slow - before.slow,
                            .refused = sums.refused - before.refused,
                            .fallen_back = fallen_back()};
  const GuardJudgement judgement = Judge(rules_, facts);
  Record(judgement, facts.requests);
  const GuardStep step = Advance(rules_, state_, judgement.verdict);
  state_ = step.state;
  if (step.action) Act(*step.action, judgement.reason);
}

void VariantGuard::Record(const GuardJudgement& judgement, uint64_t requests) {
  absl::MutexLock lock(&mutex_);
  switch (judgement.verdict) {
    case GuardVerdict::kUndecided:
      ++report_.undecided_windows;
      if (requests >= static_cast<uint64_t>(rules_.min_samples)) ++report_.uncopied_windows;
      break;
    case GuardVerdict::kKept:
      ++report_.kept_windows;
      break;
    case GuardVerdict::kBroken:
      ++report_.broken_windows;
      report_.last_broken = judgement.reason;
      break;
    case GuardVerdict::kRefusing:
      ++report_.refusing_windows;
      break;
  }
}

GuardReport VariantGuard::report() const {
  absl::MutexLock lock(&mutex_);
  GuardReport report = report_;
  report.share = share_;
  report.fallen_back = report.share == 0;
  return report;
}

void VariantGuard::Act(GuardAction action, const std::string& reason) {
  const bool recovers = action == GuardAction::kRecover;
  share_ = action == GuardAction::kFallBack ? 0 : std::ldexp(1.0, -state_.shifts);
  metrics_->guard_tripped.Set(recovers ? 0 : 1);
  metrics_->guard_actions.Add(static_cast<size_t>(action));
  const std::string_view name = GuardActionLabel::kValues[static_cast<size_t>(action)];
  const std::string_view why = recovers ? std::string_view("every rule is kept to") : reason;
  LogEvent(recovers ? LogLevel::kInfo : LogLevel::kWarn, "guard_action",
           {{"variant", name_}, {"action", name}, {"share", share_.load()}, {"reason", why}});
  events_->Add(name_, Format("guard {}", name), why);
}

void LookAtGuards(std::span<const std::shared_ptr<const ModelVersion>> versions, TimePoint now) {
  for (const auto& version : versions) {
    for (const ServedVariant& variant : version->variants) {
      if (variant.guard != nullptr) {
        variant.guard->Look(now);
      } else {
        variant.metrics->guard_tripped.Set(0);
      }
    }
  }
}

}  // namespace octet
