// The server that a rollout moves, as the rollout sees it.
#pragma once

#include <chrono>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/server_client.h"

#include "server/routing/refusing_windows.h"
#include "server/routing/rollout.h"

namespace octet::cli {

/// How often the server is asked while it is waited for.
inline constexpr std::chrono::milliseconds kRolloutInterval{500};

/// Whether the server may do later what it has not done now.
bool MayComeBack(const absl::Status& status);
/// Whether the server itself answered, and that it will not.
bool WasRefused(const absl::Status& status);

/// One look at what a server says of a model.
struct RolloutLook {
  nlohmann::json experiment;  ///< Of the highest version that answers.
  size_t versions = 0;        ///< That answer.
  nlohmann::json server;      ///< What is the process's own, as DescribeExperiments says.
};

/// One model of a server. Thread-safety: one call at a time.
class RolloutServer {
 public:
  /// Errors: as ServerClient::For.
  static absl::StatusOr<RolloutServer> For(const std::string& address, std::string model);

  /// A server that is away, restarting for instance, is waited for. INVALID_ARGUMENT for a pipeline, INTERNAL when it is no
  /// server of ours; else as ServerClient::Get.
  absl::StatusOr<RolloutLook> Look() const;
  /// Has it read the model's folder anew. Errors: the server's.
  absl::Status Load() const;

 private:
  RolloutServer(ServerClient client, std::string model)
      : client_(std::move(client)), model_(std::move(model)) {}

  ServerClient client_;
  std::string model_;
};

/// A precision's part of an experiment; null when it has none.
const nlohmann::json* FindArm(const nlohmann::json& experiment, Precision precision);

/// The precision that answers by itself now. INVALID_ARGUMENT when several do, UNAVAILABLE when none does, INTERNAL when it is an unknown one.
absl::StatusOr<Precision> AnsweringPrecision(const nlohmann::json& experiment);

/// What an experiment says of the plan's candidate, but for the time in the stage and restarts; `refusing` has looked at it
/// before in the stage.
RolloutFacts FactsOf(const nlohmann::json& experiment, const RolloutPlan& plan,
                     RefusingWindows& refusing);

}  // namespace octet::cli
