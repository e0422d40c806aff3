#include "server/repository/served_ramp.h"

#include <fstream>
#include <map>
#include <utility>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"
#include "server/logging/event_log.h"
#include "server/repository/model_version.h"

namespace octet {

ServedRamp::ServedRamp(std::string model, ModelConfig::Routing::Ramp rules, std::string identity,
                       std::string file, std::shared_ptr<TrafficEvents> events, int64_t now_ms)
    : model_(std::move(model)),
      rules_(std::move(rules)),
      identity_(std::move(identity)),
      file_(std::move(file)),
      events_(std::move(events)) {
  std::ifstream stream(file_);
  std::string whose;
  std::string text;
  const bool same = std::getline(stream, whose) && std::getline(stream, text) && whose == identity_;
  const auto state = same ? ParseRampState(text, rules_) : std::nullopt;
  {
    absl::MutexLock lock(&mutex_);
    state_ = state.value_or(RampState{.began_ms = now_ms});
    share_ = RampShare(rules_, state_);
  }
  LogEvent(LogLevel::kInfo, state ? "ramp_resumed" : "ramp_begun",
           {{"model", model_}, {"ramped", RampedName(rules_)}, {"share", share_.load()}});
  if (!state) Save();
}

RampState ServedRamp::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

bool ServedRamp::Concerns(int64_t version, Precision precision) const {
  return rules_.precision ? precision == *rules_.precision : version == *rules_.version;
}

RampFacts ServedRamp::Read(std::span<const ServedVariant* const> ramped) {
  RampFacts facts;
  for (const ServedVariant* variant : ramped) {
    if (variant->guard == nullptr) continue;
    const GuardReport report = variant->guard->report();
    facts.kept_windows += report.kept_windows;
    facts.broken_windows += report.broken_windows;
    if (!report.last_broken.empty()) facts.last_broken = report.last_broken;
  }
  // At the first look, what an older guard has seen; a reload's guard begins at 0.
  if (!std::exchange(looked_, true)) {
    kept_before_ = facts.kept_windows;
    broken_before_ = facts.broken_windows;
  }
  kept_before_ = std::min(kept_before_, facts.kept_windows);
  broken_before_ = std::min(broken_before_, facts.broken_windows);
  facts.kept_windows -= kept_before_;
  facts.broken_windows -= broken_before_;
  return facts;
}

void ServedRamp::Look(std::span<const ServedVariant* const> ramped, int64_t now_ms) {
  const RampFacts facts = Read(ramped);
  const RampStep step = AdvanceRamp(rules_, state(), facts, now_ms);
  if (step.action) {
    {
      absl::MutexLock lock(&mutex_);
      state_ = step.state;
    }
    share_ = RampShare(rules_, step.state);
    kept_before_ += facts.kept_windows;
    broken_before_ += facts.broken_windows;
    Act(*step.action, facts);
  }
  for (const ServedVariant* variant : ramped) {
    variant->metrics->ramp_share.Set(share_);
    if (step.action) variant->metrics->ramp_actions.Add(static_cast<size_t>(*step.action));
  }
}

void ServedRamp::Act(RampAction action, const RampFacts& facts) {
  const bool forward = action == RampAction::kForward;
  const std::string_view name = RampActionLabel::kValues[static_cast<size_t>(action)];
  const std::string reason =
      forward ? Format("{:g} % of the traffic: every rule was kept to", 100 * share_.load())
              : Format("no traffic: {}", facts.last_broken);
  LogEvent(
      forward ? LogLevel::kInfo : LogLevel::kWarn, "ramp_action",
      {{"model", model_}, {"ramped", RampedName(rules_)}, {"action", name}, {"reason", reason}});
  events_->Add(Format("{}: {}", model_, RampedName(rules_)), Format("ramp {}", name), reason);
  Save();
}

void ServedRamp::Save() const {
  const absl::Status status = WriteWholeFile(file_, identity_ + "\n" + RampStateText(state()));
  if (status.ok()) return;
  LogEvent(LogLevel::kWarn, "ramp_not_saved", {{"model", model_}, {"error", Message(status)}});
}

void LookAtRamps(std::span<const std::shared_ptr<const ModelVersion>> versions, int64_t now_ms) {
  std::map<ServedRamp*, std::vector<const ServedVariant*>> ramps;
  for (const auto& version : versions) {
    if (version->ramp == nullptr) continue;
    std::vector<const ServedVariant*>& ramped = ramps[version->ramp.get()];
    for (const ServedVariant& variant : version->variants) {
      if (version->ramp->Concerns(version->number, variant.precision)) ramped.push_back(&variant);
    }
  }
  for (const auto& [ramp, ramped] : ramps) ramp->Look(ramped, now_ms);
}

}  // namespace octet
