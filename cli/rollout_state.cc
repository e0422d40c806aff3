#include "cli/rollout_state.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <vector>

#include "cli/json_text.h"
#include <sys/file.h>

#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Of state.json and the files beside it. 1, which is not written: previous.onnx is what the rollout under way has replaced.
constexpr int kLayout = 2;

constexpr std::array kPhases = {RolloutPhase::kPrepare, RolloutPhase::kServe,
                                RolloutPhase::kPromoted, RolloutPhase::kRolledBack,
                                RolloutPhase::kRefused};

template <typename T>
Json Maybe(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

std::optional<double> MaybeNumber(const nlohmann::json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

Json ToJson(const RolloutPlan& plan) {
  Json precisions = Json::array();
  for (const Precision precision : plan.precisions) precisions.push_back(PrecisionName(precision));
  return {{"baseline", PrecisionName(plan.baseline)},
          {"candidate", PrecisionName(plan.candidate)},
          {"agreement_percent", Maybe(plan.guard.agreement_percent)},
          {"sqnr_db", Maybe(plan.guard.sqnr_db)},
          {"error_percent", Maybe(plan.guard.error_percent)},
          {"p99_us", Maybe(plan.guard.p99_us)},
          {"window_seconds", plan.guard.window_seconds},
          {"min_samples", plan.guard.min_samples},
          {"shadow_percent", plan.shadow_percent},
          {"min_shadow_requests", plan.min_shadow_requests},
          {"windows", plan.windows},
          {"ramp_percent", plan.ramp_percent},
          {"hold_seconds", plan.hold.count()},
          {"patience_seconds", plan.patience.count()},
          {"precisions", std::move(precisions)}};
}

RolloutPlan PlanFrom(const nlohmann::json& json) {
  RolloutPlan plan;
  plan.baseline = ParsePrecision(json.at("baseline").get<std::string>()).value();
  plan.candidate = ParsePrecision(json.at("candidate").get<std::string>()).value();
  plan.guard.agreement_percent = MaybeNumber(json.at("agreement_percent"));
  plan.guard.sqnr_db = MaybeNumber(json.at("sqnr_db"));
  plan.guard.error_percent = MaybeNumber(json.at("error_percent"));
  plan.guard.p99_us = MaybeNumber(json.at("p99_us"));
  plan.guard.window_seconds = json.at("window_seconds").get<int>();
  plan.guard.min_samples = json.at("min_samples").get<int>();
  plan.shadow_percent = json.at("shadow_percent").get<double>();
  plan.min_shadow_requests = json.at("min_shadow_requests").get<int64_t>();
  plan.windows = json.at("windows").get<int>();
  plan.ramp_percent = json.at("ramp_percent").get<std::vector<double>>();
  plan.hold = std::chrono::seconds(json.at("hold_seconds").get<int64_t>());
  plan.patience = std::chrono::seconds(json.at("patience_seconds").get<int64_t>());
  // Not there in what older versions wrote.
  for (const nlohmann::json& name : json.value("precisions", nlohmann::json::array())) {
    plan.precisions.push_back(ParsePrecision(name.get<std::string>()).value());
  }
  return plan;
}

RolloutState StateFrom(const nlohmann::json& json) {
  RolloutState state;
  const std::string phase = json.at("phase").get<std::string>();
  const auto* const found = std::ranges::find(kPhases, phase, RolloutPhaseName);
  if (found == kPhases.end()) throw std::out_of_range("phase " + phase);
  state.phase = *found;
  state.model = json.at("model").get<std::string>();
  state.version = json.at("version").get<std::string>();
  state.plan = PlanFrom(json.at("plan"));
  const int kind = json.at("stage").at("kind").get<int>();
  if (kind < 0 || kind > static_cast<int>(RolloutStage::Kind::kPromoted)) {
    throw std::out_of_range("stage.kind");
  }
  state.stage.kind = static_cast<RolloutStage::Kind>(kind);
  state.stage.ramp = json.at("stage").at("ramp").get<size_t>();
  if (state.stage.ramp >= state.plan.ramp_percent.size()) throw std::out_of_range("stage.ramp");
  state.stage_began_ms = json.at("stage_began_ms").get<int64_t>();
  state.routed = json.at("routed").get<bool>();
  state.installed = json.at("installed").get<bool>();
  state.replaced = json.at("replaced").get<bool>();
  // Not there in what older versions wrote.
  state.stage_entered_ms = json.value("stage_entered_ms", state.stage_began_ms);
  state.experiment_ms = json.value("experiment_ms", int64_t{0});
  state.server_ms = json.value("server_ms", int64_t{0});
  state.restarts = json.value("restarts", 0);
  state.reason = json.at("reason").get<std::string>();
  return state;
}

/// What WriteWholeFile leaves of a process that is killed. Requires: the folder is held.
absl::Status RemoveHalfWritten(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (it->path().extension() == ".tmp") files.push_back(it->path());
  }
  if (error) return SystemError("read", folder, error.value());
  for (const fs::path& file : files) {
    fs::remove(file, error);
    if (error) return SystemError("remove", file.string(), error.value());
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view RolloutPhaseName(RolloutPhase phase) {
  switch (phase) {
    case RolloutPhase::kPrepare:
      return "prepare";
    case RolloutPhase::kServe:
      return "serve";
    case RolloutPhase::kPromoted:
      return "promoted";
    case RolloutPhase::kRolledBack:
      return "rolled back";
    case RolloutPhase::kRefused:
      return "refused";
  }
  return "unknown";
}

bool IsOver(RolloutPhase phase) {
  return phase != RolloutPhase::kPrepare && phase != RolloutPhase::kServe;
}

absl::StatusOr<RolloutFolder> RolloutFolder::Open(const std::string& model_folder) {
  std::error_code error;
  if (!fs::is_directory(model_folder, error)) {
    return NotFound("the repository has no such model: '{}'", model_folder);
  }
  const std::string folder = model_folder + "/.rollout";
  fs::create_directory(folder, error);
  if (error) return SystemError("create", folder, error.value());
  const std::string path = folder + "/lock";
  std::shared_ptr<std::FILE> lock(std::fopen(path.c_str(), "we"), [](std::FILE* file) {
    return file == nullptr ? 0 : std::fclose(file);
  });
  if (lock == nullptr) return SystemError("create", path, errno);
  if (flock(fileno(lock.get()), LOCK_EX | LOCK_NB) != 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "another process is at work on this rollout: '{}'", folder);
  }
  OCTET_RETURN_IF_ERROR(RemoveHalfWritten(folder));
  return RolloutFolder(folder, std::move(lock));
}

absl::Status RolloutFolder::Clear(std::span<const std::string> keep) const {
  for (const std::string& path :
       {candidate(), rejected(), routing_before(), calibration(), proof(), report()}) {
    std::error_code error;
    const auto is_it = [&](const std::string& kept) { return fs::equivalent(path, kept, error); };
    if (std::ranges::any_of(keep, is_it)) continue;
    fs::remove(path, error);
    if (error) return SystemError("remove", path, error.value());
  }
  return absl::OkStatus();
}

absl::Status RolloutFolder::KeepReplaced() const {
  std::error_code error;
  if (!fs::exists(replaced(), error)) return absl::OkStatus();
  fs::rename(replaced(), previous(), error);
  return error ? SystemError("move", replaced(), error.value()) : absl::OkStatus();
}

absl::StatusOr<RolloutState> RolloutFolder::Load() const {
  const std::string path = folder_ + "/state.json";
  std::ifstream file(path);
  if (!file) return NotFound("there was no rollout: '{}'", path);
  RolloutState state;
  int layout = 0;
  try {
    const auto json = nlohmann::json::parse(file);
    layout = json.value("layout", 1);
    if (layout <= kLayout) state = StateFrom(json);
  } catch (const std::exception& e) {
    return InvalidArgument("{}: damaged, remove it to begin anew: {}", path, e.what());
  }
  if (layout > kLayout) {
    return InvalidArgument(
        "{}: of a newer octet, which must go on with it: layout, expected at most {}, got {}", path,
        kLayout, layout);
  }
  std::error_code error;
  const bool has_moved = layout == 1 && state.replaced && !IsOver(state.phase) &&
                         !fs::exists(replaced(), error) && fs::exists(previous(), error);
  if (has_moved) fs::rename(previous(), replaced(), error);
  if (has_moved && error) return SystemError("move", previous(), error.value());
  return state;
}

absl::Status RolloutFolder::Save(const RolloutState& state) const {
  const Json json = {
      {"layout", kLayout},
      {"phase", RolloutPhaseName(state.phase)},
      {"model", state.model},
      {"version", state.version},
      {"plan", ToJson(state.plan)},
      {"stage", {{"kind", static_cast<int>(state.stage.kind)}, {"ramp", state.stage.ramp}}},
      {"stage_began_ms", state.stage_began_ms},
      {"stage_entered_ms", state.stage_entered_ms},
      {"routed", state.routed},
      {"installed", state.installed},
      {"replaced", state.replaced},
      {"experiment_ms", state.experiment_ms},
      {"server_ms", state.server_ms},
      {"restarts", state.restarts},
      {"reason", state.reason}};
  return WriteWholeFile(folder_ + "/state.json", JsonText(json) + "\n");
}

absl::Status RolloutFolder::Note(std::string_view event, Json details) const {
  const auto now = std::chrono::system_clock::now();
  Json line = {{"time", Format("{:%FT%TZ}", std::chrono::floor<std::chrono::milliseconds>(now))},
               {"event", event}};
  line.update(details);
  const std::string path = folder_ + "/journal.jsonl";
  std::ofstream journal(path, std::ios::app);
  journal << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n' << std::flush;
  if (!journal) return InvalidArgument("cannot write {}", path);
  return absl::OkStatus();
}

}  // namespace octet::cli
