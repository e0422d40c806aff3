#include "cli/rollout_server.h"

#include <optional>
#include <thread>
#include <vector>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

/// How long the server may be away, restarting for instance, before the rollout stops where it is.
constexpr std::chrono::seconds kServerAway{60};

absl::StatusOr<RolloutLook> ReadLook(const nlohmann::json& answer) {
  const auto experiments = answer.find("experiments");
  const auto server = answer.find("server");
  const bool is_answer = experiments != answer.end() && experiments->is_array() &&
                         !experiments->empty() && experiments->back().contains("precisions") &&
                         experiments->back().contains("version") && server != answer.end() &&
                         server->contains("started_ms");
  if (!is_answer) {
    return Internal("what answers /v2/models/.../experiments is no octet server of this version");
  }
  if (experiments->back().at("precisions").empty()) {
    return InvalidArgument(
        "a pipeline has no precisions of its own: roll out the models of its steps");
  }
  return RolloutLook{
      .experiment = experiments->back(), .versions = experiments->size(), .server = *server};
}

/// Requests to a precision that did not run for want of room or time, those aside that were too late when they came.
uint64_t RefusedInTime(const nlohmann::json& arm) {
  uint64_t refused = 0;
  for (const auto& [reason, count] : arm.at("refused").items()) {
    if (reason != "expired") refused += count.get<uint64_t>();
  }
  return refused;
}

}  // namespace

bool MayComeBack(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
}

bool WasRefused(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
         absl::IsUnimplemented(status);
}

absl::StatusOr<RolloutServer> RolloutServer::For(const std::string& address, std::string model) {
  OCTET_ASSIGN_OR_RETURN(ServerClient client, ServerClient::For(address));
  return RolloutServer(std::move(client), std::move(model));
}

absl::StatusOr<RolloutLook> RolloutServer::Look() const {
  const std::string path = "/v2/models/" + UrlSegment(model_) + "/experiments";
  const auto give_up = std::chrono::steady_clock::now() + kServerAway;
  while (true) {
    auto answer = client_.Get(path);
    if (answer.ok()) return ReadLook(*answer);
    if (!absl::IsUnavailable(answer.status()) || std::chrono::steady_clock::now() > give_up) {
      return answer.status();
    }
    std::this_thread::sleep_for(kRolloutInterval);
  }
}

absl::Status RolloutServer::Load() const {
  return client_.Post("/v2/repository/models/" + UrlSegment(model_) + "/load").status();
}

const nlohmann::json* FindArm(const nlohmann::json& experiment, Precision precision) {
  for (const nlohmann::json& arm : experiment.at("precisions")) {
    if (arm.at("precision").get<std::string>() == PrecisionName(precision)) return &arm;
  }
  return nullptr;
}

absl::StatusOr<Precision> AnsweringPrecision(const nlohmann::json& experiment) {
  std::vector<Precision> answering;
  for (const nlohmann::json& arm : experiment.at("precisions")) {
    if (arm.at("weight").get<double>() <= 0) continue;
    if (const auto precision = ParsePrecision(arm.at("precision").get<std::string>())) {
      answering.push_back(*precision);
    }
  }
  if (answering.size() > 1) {
    return InvalidArgument(
        "the model's traffic is split between {} precisions: say with --baseline which one answers "
        "while the candidate is tried",
        answering.size());
  }
  if (answering.size() == 1) return answering[0];
  const nlohmann::json& baseline = experiment.at("baseline");
  if (baseline.is_null()) {
    return MakeError(absl::StatusCode::kUnavailable, "no precision of the model answers");
  }
  const auto name = baseline.get<std::string>();
  if (const auto precision = ParsePrecision(name)) return *precision;
  return Internal("the model's baseline is no precision that this octet knows: '{}'", name);
}

RolloutFacts FactsOf(const nlohmann::json& experiment, const RolloutPlan& plan,
                     RefusingWindows& refusing) {
  RolloutFacts facts;
  const nlohmann::json* arm = FindArm(experiment, plan.candidate);
  if (arm == nullptr) return facts;
  facts.ready = arm->at("ready").get<bool>();
  facts.requests = arm->at("drawn").get<uint64_t>() + arm->at("sticky").get<uint64_t>();
  if (const nlohmann::json& guard = arm->at("guard"); !guard.is_null()) {
    facts.fallen_back = guard.at("fallen_back").get<bool>();
    facts.kept_windows = guard.at("kept_windows").get<uint64_t>();
    facts.broken_windows = guard.at("broken_windows").get<uint64_t>();
    facts.undecided_windows = guard.at("undecided_windows").get<uint64_t>();
    facts.last_broken = guard.at("last_broken").get<std::string>();
    RefusalSums sums = {
        .windows = facts.kept_windows + facts.broken_windows + facts.undecided_windows,
        .refusing = guard.at("refusing_windows").get<uint64_t>()};
    sums.windows += sums.refusing;
    if (const nlohmann::json* baseline = FindArm(experiment, plan.baseline)) {
      sums.requests = baseline->at("latency_us").at("count").get<uint64_t>();
      sums.refused = RefusedInTime(*baseline);
    }
    refusing.Look(sums);
    facts.refusing_windows = refusing.count();
  }
  for (const nlohmann::json& pair : experiment.at("shadow")) {
    if (pair.at("against").get<std::string>() == PrecisionName(plan.baseline)) {
      facts.compared += pair.at("compared").get<uint64_t>();
      facts.class_rows += pair.at("class_rows").get<uint64_t>();
    }
  }
  return facts;
}

}  // namespace octet::cli
