// Whether a precision keeps to what its model.yaml demands of it: pure functions of what a window
// has seen.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "config/model_config.h"

namespace octet {

/// What one window has seen of a precision.
struct GuardFacts {
  uint64_t class_rows = 0;   ///< Of shadow copies.
  uint64_t agreed_rows = 0;  ///< Of these, with the answer's best class.
  uint64_t ratios = 0;       ///< SQNRs of shadow outputs.
  double ratio_sum_db = 0;
  /// Of these, without any: another shape, or no number where the answer has one. An answer of zeros alone has one, -150.
  uint64_t lost_outputs = 0;
  uint64_t requests = 0;  ///< Clients' own.
  uint64_t errors = 0;    ///< Of these, failed through our fault.
  uint64_t timed = 0;     ///< Clients' own since the limit of p99_us is measured with.
  uint64_t slow = 0;      ///< Of these, above it.
  uint64_t refused = 0;   ///< Beside the clients' own, for want of room or time.
  /// Others answer in its place: that it has no requests says nothing then, as long as another rule speaks.
  bool fallen_back = false;
};

/// What a window says. A rule with fewer than min_samples says nothing.
enum class GuardVerdict : uint8_t {
  kUndecided,  ///< No rule is broken, and one or more say nothing.
  kKept,       ///< Every rule is kept to.
  kBroken,     ///< At least one is not.
  kRefusing,  ///< No rule is broken, and more than kMostRefused of the requests were refused: not its to judge.
};

/// Of all requests. Who is refused has no time and no answer: what the others got says nothing of a whole load.
inline constexpr double kMostRefused = 0.01;

struct GuardJudgement {
  GuardVerdict verdict = GuardVerdict::kUndecided;
  std::string
      reason;  ///< Of kBroken: "agreement 91.50 % < 95 %; slower than 1500 us 2.00 % > 1 %".
};

/// Of a window's requests. "The 99th percentile is above the limit" is: more than so many took longer, counted one by one.
inline constexpr double kMostSlowPercent = 1;

/// Holds the window against the rules. One lost output breaks the one on the mean SQNR: its noise is without bound.
GuardJudgement Judge(const ModelConfig::Routing::Guard& rules, const GuardFacts& facts);

///     good --broken: alert, fall_back or shift--> tripped --recover_windows kept in a row--> good
///
/// A broken window starts the row anew, an undecided or refusing one leaves it as it is. With `shift` each broken window halves the
/// weight once more, at most kMostShifts times: who has requests left can show that it recovered.
struct GuardState {
  bool tripped = false;
  int kept_in_a_row = 0;
  int shifts = 0;
  bool operator==(const GuardState&) const = default;
};

inline constexpr int kMostShifts = 5;

/// What is to be done; the order of GuardActionLabel.
enum class GuardAction : uint8_t { kAlert, kFallBack, kRecover, kShift };

/// The state after a window, and what changes with it.
struct GuardStep {
  GuardState state;
  std::optional<GuardAction> action;
};
GuardStep Advance(const ModelConfig::Routing::Guard& rules, GuardState state, GuardVerdict verdict);

/// The quantile q of a histogram with these upper bounds, and one unbounded bucket more; within a
/// bucket in proportion, as Prometheus' histogram_quantile. The last bound above it; 0 of nothing.
double Quantile(double q, std::span<const double> bounds, std::span<const uint64_t> counts);

}  // namespace octet
