// How the server itself moves traffic to a precision or a version step by step: a pure function of what was seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "config/model_config.h"

namespace octet {

/// Where a ramp is:
///
///     step 0 --held, and a window kept--> step 1 ... --> the last step, which stays
///        +-------------------+-- a rule broken, or requests refused --> stopped: no share, until it begins anew
struct RampState {
  size_t step = 0;
  int64_t began_ms = 0;  ///< The step, as SteadyEpoch.
  bool stopped = false;
  bool passed = false;  ///< The last step has been held and kept to once.
  bool operator==(const RampState&) const = default;
};

/// What the guards of the ramped have said since the step began.
struct RampFacts {
  uint64_t kept_windows =
      0;  ///< That the step saw from their beginning, of the guard that kept fewest.
  uint64_t broken_windows = 0;  ///< Of all guards, also the window that the step began in.
  /// That the step saw from their beginning, as RefusingWindows counts them beside the rest; of the guard that has most.
  uint64_t refusing_windows = 0;
  /// With requests enough, neither broken nor refusing, of those that the step saw from their beginning; of the guard that has
  /// fewest.
  uint64_t quiet_windows = 0;
  std::string last_broken;
};

/// What is done; also the label of the metric that counts it.
enum class RampAction : uint8_t { kForward, kBack };

struct RampStep {
  RampState state;
  std::optional<RampAction> action;
};

/// So many windows in which the ramped refuses requests, and who answers the rest does not, are no accident; nor are so many
/// in which it does not.
inline constexpr uint64_t kMostRefusingWindows = 3;

/// The state after a look. So many refusing windows take the whole share back, until the last step has been held and kept to once:
/// what is refused later is more traffic than there was. A broken window takes the whole share back at once. A step is held for hold_seconds at
/// least, and until one window of each guard since then kept to every rule: what was not seen, for want of samples or because the
/// ramped is not ready, is no consent. Only where the last step is the whole traffic are so many quiet windows as good as a kept
/// one: nobody answers whom copies could be made of, and a guard with a rule of copies keeps no window any more. When nobody asked,
/// nobody could be refused: that is no quiet window. When the clock was set back the step is held from then on.
RampStep AdvanceRamp(const ModelConfig::Routing::Ramp& rules, const RampState& state,
                     const RampFacts& facts, int64_t now_ms);

/// The ramped's share of the traffic, 0 .. 1.
double RampShare(const ModelConfig::Routing::Ramp& rules, const RampState& state);

/// "int8" or "version 4".
std::string RampedName(const ModelConfig::Routing::Ramp& rules);

/// The state as a line of text, "step began_ms stopped passed", and back, where the last one may be absent; nullopt when that is not what it is or does not fit the rules.
std::string RampStateText(const RampState& state);
std::optional<RampState> ParseRampState(std::string_view text,
                                        const ModelConfig::Routing::Ramp& rules);

}  // namespace octet
