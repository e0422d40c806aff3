// How a rollout moves a model's traffic to another precision: pure functions of what was seen.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/model_config.h"

namespace octet {

/// What a rollout is to keep to.
struct RolloutPlan {
  Precision baseline = Precision::kFp32;   ///< Answers before.
  Precision candidate = Precision::kInt8;  ///< Answers afterwards.
  ModelConfig::Routing::Guard guard;       ///< What the candidate must keep to all the time.
  double shadow_percent = 10;              ///< Of the baseline's answers that are copied.
  int64_t min_shadow_requests = 1000;  ///< Compared before a client is answered by the candidate.
  int windows = 3;                     ///< Of the guard, per stage.
  std::vector<double> ramp_percent = {1, 5, 25, 100};  ///< Rising shares of the candidate.
  std::chrono::seconds hold{300};                      ///< At least, per stage.
  std::chrono::seconds patience{86400};  ///< At most, per stage: then it is rolled back.
  std::vector<Precision> precisions;     ///< That load; empty = as model.yaml says.
  bool operator==(const RolloutPlan&) const = default;
};

/// Where a rollout that serves is:
///
///     shadow --enough compared--> ramp 0 --held--> ramp 1 ... --held--> promoted
///        +---------------------------+-- a rule broken, requests refused, or patience over --> rolled back
struct RolloutStage {
  enum class Kind : uint8_t { kShadow, kRamp, kPromoted };
  Kind kind = Kind::kShadow;
  size_t ramp = 0;  ///< Of kRamp: the index of the share.
  bool operator==(const RolloutStage&) const = default;
};

/// "shadow", "ramp to 5 %", "promoted".
std::string RolloutStageName(const RolloutPlan& plan, const RolloutStage& stage);
/// The stage behind one that was kept to. Requires: not kPromoted.
RolloutStage NextStage(const RolloutPlan& plan, const RolloutStage& stage);

/// What was seen of the candidate since the stage began.
struct RolloutFacts {
  bool ready = false;
  bool fallen_back = false;
  uint64_t kept_windows = 0;
  uint64_t broken_windows = 0;
  uint64_t undecided_windows = 0;
  uint64_t refusing_windows = 0;  ///< As RefusingWindows counts them beside the baseline.
  std::string last_broken;
  uint64_t compared = 0;                  ///< Copies.
  uint64_t class_rows = 0;                ///< Of these, rows of class scores.
  uint64_t requests = 0;                  ///< Clients' own.
  std::chrono::seconds held{0};           ///< Since the last load.
  std::chrono::seconds since_entered{0};  ///< The stage, whatever was loaded since.
  int restarts = 0;  ///< Of the server in the stage: it has forgotten what it saw before.
};

struct RolloutDecision {
  enum class Verdict : uint8_t { kWait, kForward, kBack };
  Verdict verdict = Verdict::kWait;
  std::string reason;  ///< What it waits for, or why it goes back.
};

/// Goes back as soon as the guard broke, the candidate does not answer or the server restarted a second time, and when it is to agree on
/// classes and no output has any; on the ramp also after plan.windows windows in which it refused requests and the baseline did not. Goes
/// forward when the stage was held, and the guard looked at enough windows:
/// kept ones in the shadow, where it has a rule there; on the ramp undecided ones count, too, as one per
/// cent of the traffic may be less than a rule wants to see, but nobody having been answered does not.
/// Requires: not kPromoted.
RolloutDecision DecideRollout(const RolloutPlan& plan, const RolloutStage& stage,
                              const RolloutFacts& facts);

/// rollout.yaml of a stage. The copies go on as long as the baseline answers anybody; what only they
/// can show is no rule of the promoted candidate any more, and what only a client's requests can show
/// none in the shadow: a rule that has nothing to look at leaves every window undecided.
std::string RolloutYaml(const RolloutPlan& plan, const RolloutStage& stage);

/// rollout.yaml while only the baseline answers; `more` are further lines. The candidate, whose file comes and goes, is not to
/// be loaded.
std::string BaselineYaml(const RolloutPlan& plan, std::string_view more);

}  // namespace octet
