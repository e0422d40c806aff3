// What a rollout remembers between two calls, so that it can go on where it was.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "server/routing/rollout.h"

namespace octet::cli {

/// How far a rollout is.
///
///     prepare --candidate made and good enough--> serve (its stage: shadow, ramp) --> promoted
///        +--not good enough--> refused              +--a rule broken, or --abort--> rolled back
enum class RolloutPhase : uint8_t { kPrepare, kServe, kPromoted, kRolledBack, kRefused };
std::string_view RolloutPhaseName(RolloutPhase phase);
/// True when there is nothing left to do.
bool IsOver(RolloutPhase phase);

struct RolloutState {
  RolloutPhase phase = RolloutPhase::kPrepare;
  std::string model;
  std::string version;
  RolloutPlan plan;
  RolloutStage stage;            ///< Of kServe.
  int64_t stage_began_ms = 0;    ///< As SteadyEpoch; anew with every load.
  int64_t stage_entered_ms = 0;  ///< As SteadyEpoch, whatever was loaded since.
  bool routed = false;           ///< rollout.yaml may be this rollout's.
  bool installed = false;        ///< The candidate's file may be in the version's folder.
  bool replaced = false;  ///< There was a file of the candidate's precision before; it is kept.
  /// When the experiment began that the server has of the stage, by its clock, since the epoch: a new one has forgotten what
  /// the last one saw. 0: not looked at yet.
  int64_t experiment_ms = 0;
  int64_t server_ms = 0;  ///< When the process began that has this experiment.
  int restarts = 0;       ///< Of the server, in the stage.
  std::string reason;     ///< Why it was refused or rolled back.
};

/// The folder of a model's rollout, MODEL_FOLDER/.rollout: the candidate, what it replaced, state and journal. The server
/// looks past folders that begin with a dot. Held by one process at a time.
class RolloutFolder {
 public:
  /// Makes the folder when there is none, and removes what killed processes had half written. FAILED_PRECONDITION while
  /// another process holds it.
  static absl::StatusOr<RolloutFolder> Open(const std::string& model_folder);

  std::string candidate() const { return folder_ + "/candidate.onnx"; }
  /// What the candidate's file has taken the place of, until the rollout is over.
  std::string replaced() const { return folder_ + "/replaced.onnx"; }
  /// The same, of the last promotion that replaced a file.
  std::string previous() const { return folder_ + "/previous.onnx"; }
  std::string rejected() const { return folder_ + "/rejected.onnx"; }
  /// The rollout.yaml before: of a rollout that was promoted earlier.
  std::string routing_before() const { return folder_ + "/rollout-before.yaml"; }
  /// What was captured for it, by clients' requests: until it is over.
  std::string calibration() const { return folder_ + "/calibration.npz"; }
  std::string proof() const { return folder_ + "/proof.json"; }
  /// The page of `octet report`, where there are data.
  std::string report() const { return folder_ + "/report.html"; }

  /// Removes what an earlier rollout left, but for its journal, previous() and `keep`, by whatever names: what the next one is
  /// made from.
  absl::Status Clear(std::span<const std::string> keep) const;
  /// replaced(), of a rollout that was promoted, becomes previous(). May be done again.
  absl::Status KeepReplaced() const;
  /// What an older version has left under way is put where this one looks for it: the replaced file was previous.onnx from the
  /// start. NOT_FOUND when there was no rollout; INVALID_ARGUMENT naming the file when it is damaged, or a newer version's.
  /// A state without a layout is taken for one of a version before replaced().
  absl::StatusOr<RolloutState> Load() const;
  /// On disk before what it announces is done, whatever bytes the reason has: a server's, or a proxy's, need not be UTF-8.
  absl::Status Save(const RolloutState& state) const;
  /// Adds a line to journal.jsonl: time, model, event, details.
  absl::Status Note(std::string_view event, nlohmann::ordered_json details) const;

 private:
  RolloutFolder(std::string folder, std::shared_ptr<std::FILE> lock)
      : folder_(std::move(folder)), lock_(std::move(lock)) {}
  std::string folder_;
  std::shared_ptr<std::FILE> lock_;  ///< Closing it lets go.
};

}  // namespace octet::cli
