#include "server/routing/rollout.h"

#include <algorithm>

#include "engine/tensor/format.h"
#include "server/routing/guard.h"

namespace octet {
namespace {

using Guard = ModelConfig::Routing::Guard;
using Kind = RolloutStage::Kind;
using Verdict = RolloutDecision::Verdict;

constexpr double kWhole = 100;
/// Of a server in a stage: one may be anybody's.
constexpr int kMostRestarts = 1;

/// The candidate's share of the traffic.
double ShareOf(const RolloutPlan& plan, const RolloutStage& stage) {
  if (stage.kind == Kind::kShadow) return 0;
  return stage.kind == Kind::kPromoted ? kWhole : plan.ramp_percent[stage.ramp];
}

/// The line that says what loads; empty where model.yaml does.
std::string PrecisionsYaml(const std::vector<Precision>& precisions) {
  std::string names;
  for (const Precision precision : precisions) {
    names += Format("{}{}", names.empty() ? "" : ", ", PrecisionName(precision));
  }
  return names.empty() ? "" : Format("precisions: [{}]\n", names);
}

/// The rules of a stage; empty without one.
std::string GuardYaml(const RolloutPlan& plan, bool has_copies, bool has_requests) {
  std::string rules;
  const auto add = [&rules](std::string_view key, const std::optional<double>& limit) {
    if (limit) rules += Format("      {}: {}\n", key, *limit);
  };
  if (has_copies) {
    add("agreement_percent", plan.guard.agreement_percent);
    add("sqnr_db", plan.guard.sqnr_db);
  }
  if (has_requests) {
    add("error_percent", plan.guard.error_percent);
    add("p99_us", plan.guard.p99_us);
  }
  if (rules.empty()) return "";
  return Format(
      "  guard:\n    {}:\n{}      window_seconds: {}\n      min_samples: {}\n"
      "      recover_windows: 0\n      action: fall_back\n",
      PrecisionName(plan.candidate), rules, plan.guard.window_seconds, plan.guard.min_samples);
}

}  // namespace

std::string RolloutStageName(const RolloutPlan& plan, const RolloutStage& stage) {
  switch (stage.kind) {
    case Kind::kShadow:
      return "shadow";
    case Kind::kRamp:
      return Format("ramp to {} %", plan.ramp_percent[stage.ramp]);
    case Kind::kPromoted:
      return "promoted";
  }
  return "unknown";
}

RolloutStage NextStage(const RolloutPlan& plan, const RolloutStage& stage) {
  const size_t next = stage.kind == Kind::kShadow ? 0 : stage.ramp + 1;
  if (next < plan.ramp_percent.size()) return {Kind::kRamp, next};
  return {Kind::kPromoted, 0};
}

RolloutDecision DecideRollout(const RolloutPlan& plan, const RolloutStage& stage,
                              const RolloutFacts& facts) {
  const std::string_view name = PrecisionName(plan.candidate);
  if (!facts.ready) return {Verdict::kBack, Format("{} does not answer", name)};
  if (facts.restarts > kMostRestarts) {
    return {Verdict::kBack,
            Format("the server restarted {} times while {} was on trial", facts.restarts, name)};
  }
  if (facts.broken_windows > 0 || facts.fallen_back) {
    return {Verdict::kBack, Format("the guard of {}: {}", name,
                                   facts.last_broken.empty() ? "fell back" : facts.last_broken)};
  }
  const bool shadow = stage.kind == Kind::kShadow;
  if (!shadow && facts.refusing_windows >= static_cast<uint64_t>(plan.windows)) {
    return {Verdict::kBack,
            Format("{} windows in which more than {} % of the requests to {} were refused, and of "
                   "those to {} no more than that",
                   facts.refusing_windows, 100 * kMostRefused, name, PrecisionName(plan.baseline))};
  }
  const bool guarded = !shadow || plan.guard.agreement_percent || plan.guard.sqnr_db;
  const uint64_t windows = facts.kept_windows + (shadow ? 0 : facts.undecided_windows);
  const auto wanted_windows = static_cast<uint64_t>(guarded ? plan.windows : 0);
  const auto wanted_copies = shadow ? static_cast<uint64_t>(plan.min_shadow_requests) : 0;
  const uint64_t wanted_requests = shadow ? 0 : 1;
  if (shadow && plan.guard.agreement_percent && facts.compared > 0 &&
      facts.compared >= wanted_copies && facts.class_rows == 0) {
    return {Verdict::kBack,
            "agreement on classes is asked for, and no output has class scores: ask for an SQNR "
            "instead"};
  }
  std::string waits;
  const auto wait = [&waits](std::string_view what, uint64_t got, uint64_t wanted) {
    if (got >= wanted) return;
    waits += Format("{}{} of {} {}", waits.empty() ? "" : ", ", got, wanted, what);
  };
  // A clock that was set back must not end the stage.
  wait("seconds held", static_cast<uint64_t>(std::max<int64_t>(facts.held.count(), 0)),
       static_cast<uint64_t>(plan.hold.count()));
  wait(shadow ? "windows kept" : "windows not broken", windows, wanted_windows);
  wait("copies compared", facts.compared, wanted_copies);
  wait("requests answered", facts.requests, wanted_requests);
  if (waits.empty()) return {Verdict::kForward, ""};
  if (facts.since_entered < plan.patience) return {Verdict::kWait, waits};
  return {Verdict::kBack, Format("after {} s still {}", plan.patience.count(), waits)};
}

std::string RolloutYaml(const RolloutPlan& plan, const RolloutStage& stage) {
  const std::string_view candidate = PrecisionName(plan.candidate);
  const std::string_view baseline = PrecisionName(plan.baseline);
  const double share = ShareOf(plan, stage);
  const bool promoted = stage.kind == Kind::kPromoted;
  const bool has_copies = share < kWhole;
  std::string yaml =
      Format("# Written by `octet rollout`, {}: over model.yaml as long as this file is here.\n",
             RolloutStageName(plan, stage));
  yaml += PrecisionsYaml(plan.precisions);
  yaml += Format("routing:\n  default: {}\n  split:\n", promoted ? candidate : baseline);
  if (has_copies) yaml += Format("    {}: {}\n", baseline, kWhole - share);
  if (share > 0) yaml += Format("    {}: {}\n", candidate, share);
  if (has_copies) {
    yaml += Format("  shadow:\n    precision: {}\n    against: {}\n    percent: {}\n", candidate,
                   baseline, plan.shadow_percent);
  }
  return yaml + GuardYaml(plan, has_copies, share > 0);
}

std::string BaselineYaml(const RolloutPlan& plan, std::string_view more) {
  const std::string_view baseline = PrecisionName(plan.baseline);
  std::vector<Precision> loaded = plan.precisions;
  std::erase(loaded, plan.candidate);
  return Format(
      "# Written by `octet rollout`: over model.yaml as long as this file is here.\n"
      "routing: {{default: {}, split: {{{}: 100}}}}\n{}{}",
      baseline, baseline, PrecisionsYaml(loaded), more);
}

}  // namespace octet
