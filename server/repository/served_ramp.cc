#include "server/repository/served_ramp.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <utility>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"
#include "server/logging/event_log.h"
#include "server/repository/model_version.h"

namespace octet {

ServedRamp::ServedRamp(std::string model, ModelConfig::Routing::Ramp rules, std::string identity,
                       std::string file, std::shared_ptr<TrafficEvents> events, SteadyEpoch epoch,
                       TimePoint now)
    : model_(std::move(model)),
      rules_(std::move(rules)),
      identity_(std::move(identity)),
      file_(std::move(file)),
      events_(std::move(events)),
      epoch_(epoch) {
  const int64_t now_ms = epoch_.MsAt(now);
  std::ifstream stream(file_);
  std::string whose;
  std::string text;
  const bool same = std::getline(stream, whose) && std::getline(stream, text) && whose == identity_;
  auto state = same ? ParseRampState(text, rules_) : std::nullopt;
  // Of a clock that was set back since; what is no time at all holds no step for ever either.
  if (state) state->began_ms = std::clamp<int64_t>(state->began_ms, 0, now_ms);
  {
    absl::MutexLock lock(&mutex_);
    state_ = state.value_or(RampState{.began_ms = now_ms});
    share_ = RampShare(rules_, state_);
  }
  LogEvent(LogLevel::kInfo, state ? "ramp_resumed" : "ramp_begun",
           {{"model", model_}, {"ramped", RampedName(rules_)}, {"share", share_.load()}});
  Save();  // the same, too: that it cannot be written is better known before there is something to lose
}

RampState ServedRamp::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

bool ServedRamp::Concerns(int64_t version, Precision precision) const {
  return rules_.precision ? precision == *rules_.precision : version == *rules_.version;
}

RampFacts ServedRamp::Read(std::span<const ServedVariant* const> ramped,
                           std::span<const ServedVariant* const> rest) {
  RampFacts facts;
  RefusalSums sums;
  for (const ServedVariant* variant : rest) {
    sums.requests += variant->metrics->request_duration.Read().total();
    sums.refused += Refusals(*variant->metrics);
  }
  uint64_t least_kept = std::numeric_limits<uint64_t>::max();
  uint64_t least_quiet = least_kept;
  const bool first = !std::exchange(looked_, true);
  std::vector<Watched> watched;
  for (const ServedVariant* variant : ramped) {
    if (variant->guard == nullptr) continue;
    const auto known = std::ranges::find(watched_, variant->guard, &Watched::guard);
    Watched& one =
        watched.emplace_back(known == watched_.end() ? Watched{.guard = variant->guard} : *known);
    one.now = variant->guard->report();
    // At the first look, what an older guard has seen; a reload's guard begins at 0.
    if (first) one.begin = one.now;
    sums.windows = one.now.windows();
    sums.refusing = one.now.refusing_windows;
    if (!one.whole) one.refusing = RefusingWindows(sums);
    if (!one.whole && one.now.windows() > one.begin.windows()) {
      one.whole = true;
      one.begin.kept_windows = one.now.kept_windows;
      one.begin.uncopied_windows = one.now.uncopied_windows;
    }
    one.refusing.Look(sums);
    facts.refusing_windows = std::max(facts.refusing_windows, one.refusing.count());
    const uint64_t kept = one.now.kept_windows - one.begin.kept_windows;
    least_kept = std::min(least_kept, kept);
    least_quiet =
        std::min(least_quiet, kept + one.now.uncopied_windows - one.begin.uncopied_windows);
    facts.broken_windows += one.now.broken_windows - one.begin.broken_windows;
    if (!one.now.last_broken.empty()) facts.last_broken = one.now.last_broken;
  }
  watched_ = std::move(watched);
  if (!watched_.empty()) {
    facts.kept_windows = least_kept;
    facts.quiet_windows = least_quiet;
  }
  const bool answers = std::ranges::any_of(ramped, &ServedVariant::ready);
  if (answers && watched_.empty() && !std::exchange(unguarded_, true)) {
    LogEvent(LogLevel::kWarn, "ramp_unguarded",
             {{"model", model_}, {"ramped", RampedName(rules_)}});
  }
  return facts;
}

void ServedRamp::Look(std::span<const ServedVariant* const> ramped,
                      std::span<const ServedVariant* const> rest, TimePoint now) {
  const RampFacts facts = Read(ramped, rest);
  const RampState before = state();
  const RampStep step = AdvanceRamp(rules_, before, facts, epoch_.MsAt(now));
  if (step.state != before) {
    absl::MutexLock lock(&mutex_);
    state_ = step.state;
  }
  if (step.action) {
    share_ = RampShare(rules_, step.state);
    for (Watched& one : watched_) {
      one.begin = one.now;
      one.whole = false;
    }
    Act(*step.action, facts);
  } else if (step.state != before) {
    Save();
  }
  for (const ServedVariant* variant : ramped) {
    variant->metrics->ramp_share.Set(share_);
    if (step.action) variant->metrics->ramp_actions.Add(static_cast<size_t>(*step.action));
  }
}

void ServedRamp::Act(RampAction action, const RampFacts& facts) {
  const bool forward = action == RampAction::kForward;
  const std::string_view name = RampActionLabel::kValues[static_cast<size_t>(action)];
  std::string reason;
  if (forward) {
    reason = Format("{:g} % of the traffic: every rule was kept to", 100 * share_.load());
  } else if (facts.broken_windows > 0) {
    reason = Format("no traffic: {}", facts.last_broken);
  } else {
    reason = Format(
        "no traffic: {} windows in which more than {} % of its requests were refused, and of the "
        "others' no more than that",
        facts.refusing_windows, 100 * kMostRefused);
  }
  LogEvent(
      forward ? LogLevel::kInfo : LogLevel::kWarn, "ramp_action",
      {{"model", model_}, {"ramped", RampedName(rules_)}, {"action", name}, {"reason", reason}});
  events_->Add(Format("{}: {}", model_, RampedName(rules_)), Format("ramp {}", name), reason);
  Save();
}

void ServedRamp::Retire() {
  absl::MutexLock lock(&file_mutex_);
  retired_ = true;
}

void ServedRamp::Save() {
  absl::MutexLock lock(&file_mutex_);
  if (retired_) return;
  const absl::Status status = WriteWholeFile(file_, identity_ + "\n" + RampStateText(state()));
  if (status.ok()) return;
  LogEvent(LogLevel::kWarn, "ramp_not_saved", {{"model", model_}, {"error", Message(status)}});
}

void LookAtRamps(std::span<const std::shared_ptr<const ModelVersion>> versions, TimePoint now) {
  struct Sides {
    std::vector<const ServedVariant*> ramped;
    std::vector<const ServedVariant*> rest;
  };
  std::map<ServedRamp*, Sides> ramps;
  for (const auto& version : versions) {
    for (const ServedVariant& variant : version->variants) {
      const bool ramped =
          version->ramp != nullptr && version->ramp->Concerns(version->number, variant.precision);
      if (!ramped) variant.metrics->ramp_share.Set(0);
      if (version->ramp == nullptr) continue;
      Sides& sides = ramps[version->ramp.get()];
      (ramped ? sides.ramped : sides.rest).push_back(&variant);
    }
  }
  for (const auto& [ramp, sides] : ramps) ramp->Look(sides.ramped, sides.rest, now);
}

}  // namespace octet
