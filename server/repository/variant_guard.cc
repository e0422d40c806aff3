#include "server/repository/variant_guard.h"

#include <array>
#include <utility>

#include "absl/status/status.h"

#include "server/logging/event_log.h"

namespace octet {
namespace {

/// Our fault: something in the server or in the model is broken.
constexpr std::array kErrors = {absl::StatusCode::kInternal, absl::StatusCode::kUnknown,
                                absl::StatusCode::kDataLoss};

uint64_t CountOf(const HistogramCounts& histogram) {
  uint64_t sum = 0;
  for (size_t i = 0; i <= histogram.bounds.size(); ++i) sum += histogram.counts[i];
  return sum;
}

/// The requests between two readings of a histogram, by bucket.
HistogramCounts Between(const HistogramCounts& from, const HistogramCounts& to) {
  HistogramCounts counts = to;
  for (size_t i = 0; i <= to.bounds.size(); ++i) counts.counts[i] -= from.counts[i];
  return counts;
}

}  // namespace

VariantGuard::VariantGuard(std::string name, ModelConfig::Routing::Guard rules,
                           std::shared_ptr<VariantMetrics> metrics,
                           std::vector<std::shared_ptr<ShadowMetrics>> pairs)
    : name_(std::move(name)),
      rules_(rules),
      metrics_(std::move(metrics)),
      pairs_(std::move(pairs)) {
  metrics_->guard_tripped.Set(0);
}

VariantGuard::Sums VariantGuard::Read() const {
  Sums sums{.facts = {}, .durations = metrics_->request_duration.Read()};
  sums.facts.requests = CountOf(sums.durations);
  for (const absl::StatusCode code : kErrors) {
    sums.facts.errors += metrics_->requests.value(static_cast<size_t>(code));
  }
  for (const auto& pair : pairs_) {
    // Read one after the other while copies are counted: off by those of this moment at most.
    sums.facts.agreed_rows += pair->top1_agreed.value();
    sums.facts.class_rows += pair->class_rows.value();
    const HistogramCounts ratios = pair->sqnr.Read();
    sums.facts.ratios += CountOf(ratios);
    sums.facts.ratio_sum_db += ratios.sum;
  }
  return sums;
}

void VariantGuard::Look(TimePoint now) {
  // Each time: a guard that this one replaces may have said something else in between.
  metrics_->guard_tripped.Set(state_.tripped ? 1 : 0);
  if (begun_ && now < end_) return;
  const Sums sums = Read();
  const Sums before = std::exchange(begin_, sums);
  end_ = now + std::chrono::seconds(rules_.window_seconds);
  if (!std::exchange(begun_, true)) return;
  const HistogramCounts durations = Between(before.durations, sums.durations);
  const GuardFacts facts = {
      .class_rows = sums.facts.class_rows - before.facts.class_rows,
      .agreed_rows = sums.facts.agreed_rows - before.facts.agreed_rows,
      .ratios = sums.facts.ratios - before.facts.ratios,
      .ratio_sum_db = sums.facts.ratio_sum_db - before.facts.ratio_sum_db,
      .requests = sums.facts.requests - before.facts.requests,
      .errors = sums.facts.errors - before.facts.errors,
      .p99_us = 1e6 * Quantile(0.99, durations.bounds,
                               std::span(durations.counts).first(durations.bounds.size() + 1)),
      .fallen_back = fallen_back_};
  const GuardJudgement judgement = Judge(rules_, facts);
  const GuardStep step = Advance(rules_, state_, judgement.verdict);
  state_ = step.state;
  if (step.action) Act(*step.action, judgement.reason);
}

void VariantGuard::Act(GuardAction action, const std::string& reason) {
  const bool recovers = action == GuardAction::kRecover;
  fallen_back_ = action == GuardAction::kFallBack;
  metrics_->guard_tripped.Set(recovers ? 0 : 1);
  metrics_->guard_actions.Add(static_cast<size_t>(action));
  LogEvent(recovers ? LogLevel::kInfo : LogLevel::kWarn, "guard_action",
           {{"variant", name_},
            {"action", GuardActionLabel::kValues[static_cast<size_t>(action)]},
            {"reason", recovers ? std::string_view("every rule is kept to") : reason}});
}

}  // namespace octet
