// The work of `octet rollout`.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/rollout_server.h"
#include "cli/rollout_state.h"

#include "server/routing/refusing_windows.h"
#include "server/routing/steady_epoch.h"

namespace octet::cli {

/// What the command line says.
struct RolloutOptions {
  std::string model;
  std::string server;      ///< HOST:PORT of the HTTP port.
  std::string repository;  ///< The folder that the server serves.
  std::string candidate;   ///< A finished file; empty: `calibration` makes one.
  std::string
      calibration;  ///< Samples, a file or a folder, in the model's own types or those that its model.yaml maps.
  std::string
      captures;  ///< The server's capture.path: without `calibration` the traffic itself is captured.
  int64_t capture_samples = 200;
  double min_int8_percent = 0;  ///< Of the candidate's multiply-adds, by its certificate.
  int threads = 1;
  RolloutPlan plan;
  bool has_baseline = false;  ///< plan.baseline was asked for.
};

/// Drives one rollout: every step is on disk before it is done and may be done twice, so that whoever calls Run after a crash
/// goes on with it. Not thread-safe; one process per model.
class Rollout {
 public:
  /// Says what happens, a line each.
  using Report = std::function<void(std::string_view line)>;

  static absl::StatusOr<Rollout> Open(RolloutOptions options, Report report);

  /// Begins, or goes on with, the rollout and returns how it ended.
  absl::StatusOr<RolloutState> Run();
  /// Takes it back, wherever it is. NOT_FOUND when there is none under way.
  absl::StatusOr<RolloutState> Abort();

 private:
  Rollout(RolloutOptions options, Report report, RolloutFolder folder, RolloutServer server)
      : options_(std::move(options)),
        report_(std::move(report)),
        folder_(std::move(folder)),
        server_(std::move(server)) {}

  /// The steps up to an end, or to what went wrong.
  absl::Status Work();
  absl::Status Begin();
  /// INVALID_ARGUMENT when who gave `look` is not who answers next, as behind a balancer: loads, guards and counts are each
  /// server's own.
  absl::Status CheckOneServer(const RolloutLook& look) const;
  /// Whether what the candidate is to be made from is there, or can come. INVALID_ARGUMENT, NOT_FOUND.
  absl::Status CheckSources(const RolloutLook& look) const;
  absl::Status GoOn(RolloutState state);
  absl::Status Prepare();
  /// Writes the page about the candidate, where there are data and the fp32 file. What it cannot say is no reason to stop.
  void WritePage(const std::string& data, const std::string& map);
  /// Has the server capture, and takes what it has captured when that is enough.
  absl::Status Capture();
  absl::Status Install();
  absl::Status Enter(const RolloutStage& stage);
  absl::Status Serve();
  /// Writes rollout.yaml and has the server load it.
  absl::Status Route(const std::string& yaml);
  /// The rollout.yaml of before, or none.
  absl::Status RestoreRouting();
  /// Routing and files as they were, and the server follows. May be done again, and is to be when the server was away
  /// (MayComeBack).
  absl::Status Undo();
  absl::Status RollBack(const std::string& reason);
  absl::Status Refuse(const std::string& reason);
  absl::Status Save(std::string_view event);
  /// Nothing is left to do.
  absl::Status End(RolloutPhase phase);
  /// What another experiment than the last look's knows begins anew; the stage's hold with it, not its patience. Of another
  /// process it counts as a restart; that somebody had the model loaded says nothing of the candidate.
  absl::Status NoticeRestart(const RolloutLook& look);
  absl::StatusOr<RolloutFacts> Observe();

  /// By which stages are held, and patience ends.
  int64_t NowMs() const { return epoch_.MsAt(std::chrono::steady_clock::now()); }
  std::string ModelFolder() const { return options_.repository + "/" + options_.model; }
  std::string VariantFile(Precision precision) const;

  RolloutOptions options_;
  Report report_;
  RolloutFolder folder_;
  RolloutServer server_;
  RolloutState state_;
  RefusingWindows refusing_;  ///< Of the stage.
  SteadyEpoch epoch_{std::chrono::steady_clock::now()};
};

}  // namespace octet::cli
