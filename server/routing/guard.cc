#include "server/routing/guard.h"

#include <limits>

#include "engine/tensor/format.h"

namespace octet {
namespace {

/// Collects what the rules of one window say.
class Judging {
 public:
  Judging(uint64_t min_samples, bool fallen_back)
      : min_samples_(min_samples), fallen_back_(fallen_back) {}

  void AtLeast(std::string_view what, std::string_view unit, double value, double limit,
               uint64_t samples) {
    Look(what, unit, value, limit, samples, value < limit, '<');
  }
  /// Of the precision's own requests.
  void AtMost(std::string_view what, std::string_view unit, double value, double limit,
              uint64_t samples) {
    if (fallen_back_ && samples < min_samples_) return;
    Look(what, unit, value, limit, samples, value > limit, '>');
  }
  GuardJudgement judgement() const {
    if (!reason_.empty()) return {GuardVerdict::kBroken, reason_};
    return {silent_ || !spoken_ ? GuardVerdict::kUndecided : GuardVerdict::kKept, ""};
  }

 private:
  void Look(std::string_view what, std::string_view unit, double value, double limit,
            uint64_t samples, bool broken, char sign) {
    if (samples < min_samples_) {
      silent_ = true;
      return;
    }
    spoken_ = true;
    if (broken) {
      reason_ += Format("{}{} {:.2f} {} {} {} {}", reason_.empty() ? "" : "; ", what, value, unit,
                        sign, limit, unit);
    }
  }

  const uint64_t min_samples_;
  const bool fallen_back_;
  bool silent_ = false;
  bool spoken_ = false;
  std::string reason_;
};

double Ratio(double part, uint64_t whole) {
  return whole == 0 ? 0 : part / static_cast<double>(whole);
}

}  // namespace

GuardJudgement Judge(const ModelConfig::Routing::Guard& rules, const GuardFacts& facts) {
  Judging judging(static_cast<uint64_t>(rules.min_samples), facts.fallen_back);
  if (rules.agreement_percent) {
    const double agreed = 100 * Ratio(static_cast<double>(facts.agreed_rows), facts.class_rows);
    judging.AtLeast("agreement", "%", agreed, *rules.agreement_percent, facts.class_rows);
  }
  if (rules.sqnr_db) {
    const double mean = facts.lost_outputs > 0 ? -std::numeric_limits<double>::infinity()
                                               : Ratio(facts.ratio_sum_db, facts.ratios);
    judging.AtLeast("sqnr", "dB", mean, *rules.sqnr_db, facts.ratios);
  }
  if (rules.error_percent) {
    const double failed = 100 * Ratio(static_cast<double>(facts.errors), facts.requests);
    judging.AtMost("errors", "%", failed, *rules.error_percent, facts.requests);
  }
  if (rules.p99_us) {
    const double slow = 100 * Ratio(static_cast<double>(facts.slow), facts.timed);
    judging.AtMost(Format("slower than {} us", *rules.p99_us), "%", slow, kMostSlowPercent,
                   facts.timed);
  }
  GuardJudgement judgement = judging.judgement();
  const auto refused = static_cast<double>(facts.refused);
  const double most = kMostRefused * (static_cast<double>(facts.requests) + refused);
  if (judgement.verdict != GuardVerdict::kBroken && refused > most) {
    judgement.verdict = GuardVerdict::kRefusing;
  }
  return judgement;
}

GuardStep Advance(const ModelConfig::Routing::Guard& rules, GuardState state,
                  GuardVerdict verdict) {
  if (verdict == GuardVerdict::kUndecided || verdict == GuardVerdict::kRefusing) {
    return {state, std::nullopt};
  }
  if (verdict == GuardVerdict::kBroken) {
    GuardState broken = {.tripped = true, .shifts = state.shifts};
    if (rules.action == ModelConfig::Routing::Guard::Action::kShift) {
      if (broken.shifts == kMostShifts) return {broken, std::nullopt};
      ++broken.shifts;
      return {broken, GuardAction::kShift};
    }
    if (state.tripped) return {broken, std::nullopt};
    const bool falls = rules.action == ModelConfig::Routing::Guard::Action::kFallBack;
    return {broken, falls ? GuardAction::kFallBack : GuardAction::kAlert};
  }
  if (!state.tripped) return {state, std::nullopt};
  ++state.kept_in_a_row;
  if (rules.recover_windows == 0 || state.kept_in_a_row < rules.recover_windows) {
    return {state, std::nullopt};
  }
  return {GuardState(), GuardAction::kRecover};
}

double Quantile(double q, std::span<const double> bounds, std::span<const uint64_t> counts) {
  uint64_t total = 0;
  for (const uint64_t count : counts) total += count;
  if (total == 0) return 0;
  const double rank = q * static_cast<double>(total);
  double before = 0;
  for (size_t i = 0; i < bounds.size(); ++i) {
    const auto count = static_cast<double>(counts[i]);
    if (count > 0 && before + count >= rank) {
      const double low = i == 0 ? 0 : bounds[i - 1];
      return low + (bounds[i] - low) * (rank - before) / count;
    }
    before += count;
  }
  return bounds.back();
}

}  // namespace octet
