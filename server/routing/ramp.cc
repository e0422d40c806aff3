#include "server/routing/ramp.h"

#include <algorithm>
#include <sstream>

#include "engine/tensor/format.h"

namespace octet {

RampStep AdvanceRamp(const ModelConfig::Routing::Ramp& rules, const RampState& state,
                     const RampFacts& facts, int64_t now_ms) {
  if (state.stopped) return {state, std::nullopt};
  // Not until the clock is again where it was, which may be years away.
  const int64_t began_ms = std::min(state.began_ms, now_ms);
  if (facts.broken_windows > 0) {
    return {{.step = state.step, .began_ms = now_ms, .stopped = true}, RampAction::kBack};
  }
  const bool held = now_ms - began_ms >= int64_t{1000} * rules.hold_seconds;
  const bool passed = held && facts.kept_windows > 0;
  const bool last = state.step + 1 >= rules.steps.size();
  RampState next = state;
  next.began_ms = began_ms;
  const bool quiet =
      held && RampShare(rules, state) >= 1 && facts.quiet_windows >= kMostRefusingWindows;
  next.passed = last && (state.passed || passed || quiet);
  if (facts.refusing_windows >= kMostRefusingWindows && !next.passed) {
    return {{.step = state.step, .began_ms = now_ms, .stopped = true}, RampAction::kBack};
  }
  if (!passed || last) return {next, std::nullopt};
  return {{.step = state.step + 1, .began_ms = now_ms}, RampAction::kForward};
}

double RampShare(const ModelConfig::Routing::Ramp& rules, const RampState& state) {
  return state.stopped ? 0 : std::min(1.0, static_cast<double>(rules.steps[state.step]) / 100);
}

std::string RampedName(const ModelConfig::Routing::Ramp& rules) {
  return rules.precision ? std::string(PrecisionName(*rules.precision))
                         : Format("version {}", *rules.version);
}

std::string RampStateText(const RampState& state) {
  return Format("{} {} {} {}\n", state.step, state.began_ms, state.stopped ? 1 : 0,
                state.passed ? 1 : 0);
}

std::optional<RampState> ParseRampState(std::string_view text,
                                        const ModelConfig::Routing::Ramp& rules) {
  std::istringstream stream{std::string(text)};
  RampState state;
  if (!(stream >> state.step >> state.began_ms >> state.stopped)) return std::nullopt;
  // Files of older servers end here.
  if (!(stream >> std::ws).eof() && !(stream >> state.passed)) return std::nullopt;
  return state.step < rules.steps.size() ? std::optional(state) : std::nullopt;
}

}  // namespace octet
