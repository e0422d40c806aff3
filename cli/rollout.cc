// octet rollout: one command from an fp32 model's traffic to another precision, or back.
#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/finite_range.h"
#include "cli/model_options.h"
#include "cli/rollout_run.h"
#include "cli/verb.h"

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

/// A refusal or a rollback is no failure of the command, but no success of the candidate either.
constexpr int kNotPromoted = 3;

struct VerbOptions {
  RolloutOptions rollout;
  std::string to = "int8";
  std::string baseline;
  double agreement = 99;
  double sqnr = 0;
  double error_percent = 0.1;
  double p99_us = 0;
  int64_t hold_seconds = 300;
  int64_t patience_seconds = 86400;
  bool abort = false;
};

/// INVALID_ARGUMENT when a stage is over before it can be kept to.
absl::Status CheckPatience(const RolloutPlan& plan) {
  const std::chrono::seconds windows{int64_t{plan.windows} * plan.guard.window_seconds};
  const std::chrono::seconds least = std::max(plan.hold, windows);
  if (plan.patience > least) return absl::OkStatus();
  return InvalidArgument(
      "--patience-seconds: a stage takes {} s, by --hold-seconds or --windows times "
      "--window-seconds: expected more than that, got {}",
      least.count(), plan.patience.count());
}

absl::StatusOr<RolloutState> Work(VerbOptions& options) {
  RolloutPlan& plan = options.rollout.plan;
  plan.candidate = *ParsePrecision(options.to);
  options.rollout.has_baseline = !options.baseline.empty();
  if (options.rollout.has_baseline) plan.baseline = *ParsePrecision(options.baseline);
  const auto rule = [](double value) { return value > 0 ? std::optional(value) : std::nullopt; };
  plan.guard.agreement_percent = rule(options.agreement);
  plan.guard.sqnr_db = rule(options.sqnr);
  plan.guard.error_percent = options.error_percent;
  plan.guard.p99_us = rule(options.p99_us);
  if (plan.guard.p99_us && *plan.guard.p99_us < 1) {
    return InvalidArgument("--max-p99-us: expected 0 or at least 1, got {}", *plan.guard.p99_us);
  }
  plan.hold = std::chrono::seconds(options.hold_seconds);
  plan.patience = std::chrono::seconds(options.patience_seconds);
  if (!std::ranges::is_sorted(plan.ramp_percent, std::less_equal())) {
    return InvalidArgument("--ramp: expected rising shares");
  }
  if (!options.abort) OCTET_RETURN_IF_ERROR(CheckPatience(plan));
  OCTET_ASSIGN_OR_RETURN(Rollout rollout, Rollout::Open(options.rollout, [](std::string_view line) {
                           std::cout << line
                                     << std::endl;  // flushed: it is watched while it goes on
                         }));
  return options.abort ? rollout.Abort() : rollout.Run();
}

int RunVerb(VerbOptions& options) {
  const absl::StatusOr<RolloutState> state = Work(options);
  if (!state.ok()) return Fail(state.status());
  if (state->phase == RolloutPhase::kPromoted || options.abort) return 0;
  std::cerr << Format("octet: {} was {}: {}\n", PrecisionName(state->plan.candidate),
                      RolloutPhaseName(state->phase), state->reason);
  return kNotPromoted;
}

void AddStages(CLI::App& verb, VerbOptions& options) {
  RolloutPlan& plan = options.rollout.plan;
  verb.add_option("--shadow-percent", plan.shadow_percent,
                  "Per cent of the baseline's answers that are copied and compared")
      ->check(FiniteRange(0.01, 100.0))
      ->capture_default_str();
  verb.add_option("--min-shadow-requests", plan.min_shadow_requests,
                  "Copies compared before the candidate answers a client")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--ramp", plan.ramp_percent, "Per cent of the traffic, stage by stage")
      ->delimiter(',')
      ->check(FiniteRange(0.01, 100.0))
      ->capture_default_str();
  verb.add_option("--hold-seconds", options.hold_seconds, "Least length of a stage")
      ->check(CLI::Range(0, 31'536'000))
      ->capture_default_str();
  verb.add_option("--windows", plan.windows, "Windows that the guard must have judged in a stage")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  verb.add_option("--patience-seconds", options.patience_seconds,
                  "Roll back when a stage takes longer")
      ->check(CLI::Range(1, 31'536'000))
      ->capture_default_str();
}

void AddGuard(CLI::App& verb, VerbOptions& options) {
  ModelConfig::Routing::Guard& guard = options.rollout.plan.guard;
  verb.add_option("--min-agreement", options.agreement,
                  "Per cent of rows whose best class is the baseline's; 0 = no rule")
      ->check(FiniteRange(0.0, 100.0))
      ->capture_default_str();
  verb.add_option("--min-sqnr-db", options.sqnr, "Least mean SQNR of outputs; 0 = no rule")
      ->check(FiniteRange(0.0, 150.0))
      ->capture_default_str();
  verb.add_option("--max-error-percent", options.error_percent,
                  "Per cent of the candidate's requests that may fail through the server's fault")
      ->check(FiniteRange(0.0, 100.0))
      ->capture_default_str();
  verb.add_option("--max-p99-us", options.p99_us, "Largest p99 of its requests; 0 = no rule")
      ->check(FiniteRange(0.0, 1e9))
      ->capture_default_str();
  verb.add_option("--window-seconds", guard.window_seconds, "Length of a window")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  verb.add_option("--min-samples", guard.min_samples,
                  "Rows or requests in a window without which a rule says nothing")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
}

}  // namespace

void AddRollout(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<VerbOptions>();
  const CLI::IsMember precisions({"fp32", "fp16", "bf16", "int8", "int8-dynamic"});
  CLI::App* verb = app.add_subcommand("rollout",
                                      "Make a precision, prove it, try it on live traffic step by "
                                      "step; promote it or roll it back");
  RolloutOptions& rollout = options->rollout;
  verb->add_option("MODEL", rollout.model, "Model of the repository")->required();
  verb->add_option("--server", rollout.server, "host:port of the server's HTTP endpoint")
      ->required();
  verb->add_option("--repository", rollout.repository, "The folder that the server serves")
      ->required();
  verb->add_option("--to", options->to, "Precision to roll out")
      ->check(precisions)
      ->capture_default_str();
  verb->add_option("--baseline", options->baseline,
                   "Precision that answers meanwhile; default the one that answers now")
      ->check(precisions);
  verb->add_option("--candidate", rollout.candidate,
                   "Finished ONNX file; default fp32.onnx, quantized");
  verb->add_option("--calibration", rollout.calibration,
                   "Sample inputs, to quantize and to compare: an .npz or .npy file, a capture for "
                   "instance, or a folder of them");
  verb->add_option(
      "--captures", rollout.captures,
      "The server's capture.path: without --calibration its traffic is captured first");
  verb->add_option("--capture-samples", rollout.capture_samples, "Samples to capture")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--require-int8", rollout.min_int8_percent,
                   "Least per cent of the candidate's multiply-adds that run in int8")
      ->check(FiniteRange(0.0, 100.0));
  verb->add_option("--threads", rollout.threads, "OpenMP threads to quantize with")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  AddGuard(*verb, *options);
  AddStages(*verb, *options);
  verb->add_flag("--abort", options->abort, "Roll back the rollout that is under way");
  verb->callback([options, &outcome] { outcome.exit_code = RunVerb(*options); });
}

}  // namespace octet::cli
