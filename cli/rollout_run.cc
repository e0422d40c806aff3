#include "cli/rollout_run.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>

#include "cli/json_text.h"
#include "cli/report/measured_report.h"
#include "cli/report/page.h"
#include "cli/rollout_candidate.h"
#include "cli/rollout_capture.h"

#include "engine/engine.h"
#include "engine/tensor/pending_file.h"
#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

namespace fs = std::filesystem;

/// How often captures, which are read as a whole, are looked at.
constexpr std::chrono::seconds kCaptureInterval{2};

/// How often the server is asked who it is before anything is done: of two that are chosen at random, the second one stays
/// unseen once in 128 times.
constexpr int kIdentityLooks = 7;

absl::Status Move(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::rename(from, to, error);
  return error ? SystemError("move", from, error.value()) : absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  if (!file) return NotFound("cannot read {}", path);
  return bytes;
}

absl::Status Copy(const std::string& from, const std::string& to, mode_t mode = 0666) {
  OCTET_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(from));
  return WriteWholeFile(to, bytes, mode);
}

absl::Status Remove(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);
  return error ? SystemError("remove", path, error.value()) : absl::OkStatus();
}

bool Exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

/// An option's file, or folder, that the rollout is to be made from; nothing when it is not given.
absl::Status CheckReadable(std::string_view option, const std::string& path, bool may_be_folder) {
  std::error_code error;
  const bool folder = fs::is_directory(path, error);
  if (path.empty() || (folder && may_be_folder)) return absl::OkStatus();
  if (folder) return InvalidArgument("{}: a folder, expected a file: '{}'", option, path);
  if (!std::ifstream(path)) return NotFound("{}: cannot read '{}'", option, path);
  return absl::OkStatus();
}

/// A step that reads what a server answers. INTERNAL where nlohmann::json throws, as it does for what is not there or of another
/// type: who answered is another server, or another version of this one.
absl::Status Reading(const std::function<absl::Status()>& step) {
  try {
    return step();
  } catch (const nlohmann::json::exception& error) {
    return Internal("what answers is no octet server of this version: {}", error.what());
  }
}

/// What the configuration in `folder` has loaded, as a rollout before this one left it, with both of the plan; none where it
/// names none.
absl::StatusOr<std::vector<Precision>> PrecisionsOf(const std::string& folder,
                                                    const RolloutPlan& plan) {
  std::vector<Precision> precisions;
  for (const char* name : {"/model.yaml", "/rollout.yaml"}) {
    if (!Exists(folder + name)) continue;
    OCTET_ASSIGN_OR_RETURN(const ModelConfig config, LoadModelConfig(folder + name));
    if (!config.precisions.empty()) precisions = config.precisions;
  }
  if (precisions.empty()) return precisions;
  for (const Precision precision : {plan.baseline, plan.candidate}) {
    if (!std::ranges::contains(precisions, precision)) precisions.push_back(precision);
  }
  return precisions;
}

}  // namespace

absl::StatusOr<Rollout> Rollout::Open(RolloutOptions options, Report report) {
  OCTET_ASSIGN_OR_RETURN(RolloutServer server, RolloutServer::For(options.server, options.model));
  OCTET_ASSIGN_OR_RETURN(RolloutFolder folder,
                         RolloutFolder::Open(options.repository + "/" + options.model));
  return Rollout(std::move(options), std::move(report), std::move(folder), std::move(server));
}

std::string Rollout::VariantFile(Precision precision) const {
  return Format("{}/{}/{}.onnx", ModelFolder(), state_.version, PrecisionName(precision));
}

absl::Status Rollout::Save(std::string_view event) {
  OCTET_RETURN_IF_ERROR(folder_.Save(state_));
  nlohmann::ordered_json details = {{"model", state_.model},
                                    {"version", state_.version},
                                    {"candidate", PrecisionName(state_.plan.candidate)},
                                    {"baseline", PrecisionName(state_.plan.baseline)}};
  if (!state_.reason.empty()) details["reason"] = state_.reason;
  return folder_.Note(event, std::move(details));
}

absl::StatusOr<RolloutState> Rollout::Run() {
  auto loaded = folder_.Load();
  if (!loaded.ok() && !absl::IsNotFound(loaded.status())) return loaded.status();
  const bool begun = loaded.ok() && !IsOver(loaded->phase) &&
                     (loaded->routed || loaded->phase != RolloutPhase::kPrepare);
  OCTET_RETURN_IF_ERROR(Reading([&] { return begun ? GoOn(*std::move(loaded)) : Begin(); }));
  absl::Status status = Reading([&] { return Work(); });
  if (status.ok()) return state_;
  // Who is away may come back: the same command goes on then. What the server refuses it refuses again.
  if (!state_.routed || MayComeBack(status)) return status;
  OCTET_RETURN_IF_ERROR(RollBack(std::string(Message(status))));
  return state_;
}

absl::Status Rollout::Work() {
  if (state_.phase == RolloutPhase::kPrepare) OCTET_RETURN_IF_ERROR(Prepare());
  if (state_.phase == RolloutPhase::kServe) OCTET_RETURN_IF_ERROR(Serve());
  return absl::OkStatus();
}

absl::Status Rollout::GoOn(RolloutState state) {
  state_ = std::move(state);
  // Of a clock that was set back since.
  state_.stage_began_ms = std::min(state_.stage_began_ms, NowMs());
  state_.stage_entered_ms = std::min(state_.stage_entered_ms, NowMs());
  if (!state_.reason.empty()) return RollBack(state_.reason);  // was under way
  if (state_.plan.candidate != options_.plan.candidate) {
    return InvalidArgument("a rollout of {} is under way: go on with it or --abort it, got {}",
                           PrecisionName(state_.plan.candidate),
                           PrecisionName(options_.plan.candidate));
  }
  const bool serves = state_.phase == RolloutPhase::kServe;
  report_(Format("going on: {}", serves ? RolloutStageName(state_.plan, state_.stage)
                                        : RolloutPhaseName(state_.phase)));
  RolloutPlan asked = options_.plan;
  asked.baseline = state_.plan.baseline;
  asked.precisions = state_.plan.precisions;
  if (!(asked == state_.plan)) report_("  by the options that it was begun with");
  if (!serves) {
    OCTET_ASSIGN_OR_RETURN(const RolloutLook look, server_.Look());
    return CheckSources(look);
  }
  // Whoever stopped may have stopped on the way into the next stage. Else the server's guard knows what happened meanwhile,
  // and a load would make it forget.
  const std::string yaml = RolloutYaml(state_.plan, state_.stage);
  const auto there = ReadFile(ModelFolder() + "/rollout.yaml");
  if (there.ok() && *there == yaml) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(Route(yaml));
  state_.stage_began_ms = NowMs();
  return folder_.Save(state_);
}

absl::Status Rollout::Begin() {
  OCTET_ASSIGN_OR_RETURN(const RolloutLook look, server_.Look());
  OCTET_RETURN_IF_ERROR(CheckOneServer(look));
  const nlohmann::json& experiment = look.experiment;
  if (look.versions > 1) {
    return InvalidArgument(
        "{} versions of the model are served: a rollout proves the highest one, and would move the "
        "traffic of all of them",
        look.versions);
  }
  state_ = {.model = options_.model,
            .version = experiment.at("version").get<std::string>(),
            .plan = options_.plan};
  if (!options_.has_baseline) {
    OCTET_ASSIGN_OR_RETURN(state_.plan.baseline, AnsweringPrecision(experiment));
  }
  const std::string_view baseline = PrecisionName(state_.plan.baseline);
  const std::string_view candidate = PrecisionName(state_.plan.candidate);
  if (state_.plan.baseline == state_.plan.candidate) {
    return InvalidArgument("{} answers already: there is nothing to roll out", candidate);
  }
  const nlohmann::json* answers = FindArm(experiment, state_.plan.baseline);
  if (answers == nullptr || !answers->at("ready").get<bool>()) {
    return InvalidArgument("the baseline {} is not there, or not ready", baseline);
  }
  if (const nlohmann::json* arm = FindArm(experiment, state_.plan.candidate);
      arm != nullptr && arm->at("weight").get<double>() > 0) {
    return InvalidArgument("{} answers clients already, weight {}", candidate,
                           arm->at("weight").get<double>());
  }
  if (const auto ramp = experiment.find("ramp"); ramp != experiment.end() && !ramp->is_null()) {
    return InvalidArgument("the server has a ramp of {}: take routing.ramp out of model.yaml first",
                           ramp->at("ramped").get<std::string>());
  }
  OCTET_ASSIGN_OR_RETURN(state_.plan.precisions, PrecisionsOf(ModelFolder(), state_.plan));
  if (!Exists(VariantFile(state_.plan.baseline))) {
    return InvalidArgument("the server's {} of version {} is not in this repository: '{}'",
                           baseline, state_.version, VariantFile(state_.plan.baseline));
  }
  OCTET_RETURN_IF_ERROR(CheckSources(look));
  OCTET_RETURN_IF_ERROR(folder_.KeepReplaced());
  OCTET_RETURN_IF_ERROR(folder_.Clear(std::array{options_.candidate, options_.calibration}));
  const std::string routing = ModelFolder() + "/rollout.yaml";
  if (Exists(routing)) OCTET_RETURN_IF_ERROR(Copy(routing, folder_.routing_before()));
  report_(Format("{} version {}: {} -> {}", state_.model, state_.version, baseline, candidate));
  return Save("begin");
}

absl::Status Rollout::CheckOneServer(const RolloutLook& look) const {
  for (int i = 0; i < kIdentityLooks; ++i) {
    OCTET_ASSIGN_OR_RETURN(const RolloutLook next, server_.Look());
    if (next.server.at("started_ms") == look.server.at("started_ms")) continue;
    return InvalidArgument(
        "--server: several servers answer in turn, expected the address of one of those that serve "
        "the repository, got '{}'",
        options_.server);
  }
  return absl::OkStatus();
}

absl::Status Rollout::CheckSources(const RolloutLook& look) const {
  const bool captures = options_.candidate.empty() && options_.calibration.empty();
  if (captures && options_.captures.empty() && options_.plan.candidate == Precision::kInt8) {
    return InvalidArgument(
        "int8 needs --calibration: a capture, or any sample inputs (an .npz or .npy file, or a "
        "folder of them); or a finished file with --candidate");
  }
  if (captures && !options_.captures.empty() && !Exists(folder_.calibration())) {
    std::error_code error;
    if (!fs::is_directory(options_.captures, error)) {
      return NotFound("--captures: no such folder: '{}'", options_.captures);
    }
    OCTET_RETURN_IF_ERROR(CheckCaptureFolder(look.server, options_.captures));
    OCTET_ASSIGN_OR_RETURN(const bool redacts, Redacts(ModelFolder()));
    if (redacts) {
      return InvalidArgument(
          "model.yaml keeps inputs out of captures (capture.redact): zeros calibrate nothing, give "
          "--calibration");
    }
  }
  OCTET_RETURN_IF_ERROR(CheckReadable("--candidate", options_.candidate, false));
  return CheckReadable("--calibration", options_.calibration, true);
}

absl::Status Rollout::Capture() {
  const std::string folder = Format("{}/{}/{}", options_.captures, state_.model, state_.version);
  OCTET_RETURN_IF_ERROR(Route(BaselineYaml(state_.plan, "capture: {percent: 100}\n")));
  // What an earlier load has captured says nothing of today's traffic; the new one wrote it when it took over.
  const auto began = fs::file_time_type::clock::now();
  report_(Format("capture: {} samples", options_.capture_samples));
  const auto give_up = std::chrono::steady_clock::now() + state_.plan.patience;
  FullSample full;
  while (true) {
    OCTET_ASSIGN_OR_RETURN(const CapturedFile largest, LargestCapture(folder, began));
    if (largest.samples >= options_.capture_samples) {
      return Copy(largest.path, folder_.calibration(), 0600);
    }
    if (full.Look(largest)) {
      return MakeError(
          absl::StatusCode::kFailedPrecondition,
          "the server's sample is full with {} of {} samples: give model.yaml a larger "
          "capture.max_bytes, or --capture-samples {}",
          largest.samples, options_.capture_samples, largest.samples);
    }
    if (std::chrono::steady_clock::now() > give_up) {
      return MakeError(absl::StatusCode::kDeadlineExceeded,
                       "{} of {} samples were captured in {} s: '{}'", largest.samples,
                       options_.capture_samples, state_.plan.patience.count(), folder);
    }
    OCTET_RETURN_IF_ERROR(server_.Look().status());  // Who is away captures nothing.
    std::this_thread::sleep_for(kCaptureInterval);
  }
}

absl::Status Rollout::Prepare() {
  const bool captures =
      options_.candidate.empty() && options_.calibration.empty() && !options_.captures.empty();
  if (captures && !Exists(folder_.calibration())) OCTET_RETURN_IF_ERROR(Capture());
  const std::string data = captures ? folder_.calibration() : options_.calibration;
  const std::string model_yaml = ModelFolder() + "/model.yaml";
  const std::string map = Exists(model_yaml) ? model_yaml : "";
  OCTET_ASSIGN_OR_RETURN(const CandidateProof proof,
                         MakeCandidate({.baseline = VariantFile(state_.plan.baseline),
                                        .fp32 = VariantFile(Precision::kFp32),
                                        .finished = options_.candidate,
                                        .calibration = data,
                                        .map = map,
                                        .plan = state_.plan,
                                        .min_int8_percent = options_.min_int8_percent,
                                        .threads = options_.threads,
                                        .out = folder_.candidate()}));
  OCTET_RETURN_IF_ERROR(WriteWholeFile(folder_.proof(), JsonText(proof.json) + "\n"));
  report_(proof.summary);
  WritePage(data, map);
  if (!proof.refused.empty()) return Refuse(proof.refused);
  OCTET_RETURN_IF_ERROR(Install());
  return Enter({});
}

void Rollout::WritePage(const std::string& data, const std::string& map) {
  const std::string fp32 = VariantFile(Precision::kFp32);
  if (data.empty() || !Exists(fp32)) return;
  std::vector<std::string> variants = {folder_.candidate()};
  if (state_.plan.baseline != Precision::kFp32) {
    variants.insert(variants.begin(), VariantFile(state_.plan.baseline));
  }
  const auto write = [&]() -> absl::Status {
    ReportRequest request = {.data = data, .map = map};
    OCTET_ASSIGN_OR_RETURN(request.files, ReportFiles(fp32, variants));
    request.settings.threads = options_.threads;
    OCTET_ASSIGN_OR_RETURN(const nlohmann::ordered_json report, MeasureReport(request));
    return WriteWholeFile(folder_.report(), ReportPage(report));
  };
  const absl::Status written = write();
  report_(written.ok() ? Format("report: {}", folder_.report())
                       : Format("no report: {}", Message(written)));
}

/// Puts the candidate into the version's folder; who answers does not change by that: no split and no default name it.
absl::Status Rollout::Install() {
  const std::string target = VariantFile(state_.plan.candidate);
  if (!state_.installed) {
    state_.replaced = Exists(target);
    state_.installed = true;
    OCTET_RETURN_IF_ERROR(Save("install"));
  }
  // Before the file: it must not begin to answer by the default order.
  OCTET_RETURN_IF_ERROR(Route(BaselineYaml(state_.plan, "")));
  if (state_.replaced && !Exists(folder_.replaced())) {
    OCTET_RETURN_IF_ERROR(Move(target, folder_.replaced()));
  }
  return Exists(folder_.candidate()) ? Move(folder_.candidate(), target) : absl::OkStatus();
}

absl::Status Rollout::Route(const std::string& yaml) {
  if (!state_.routed) {
    state_.routed = true;
    OCTET_RETURN_IF_ERROR(folder_.Save(state_));
  }
  OCTET_RETURN_IF_ERROR(WriteWholeFile(ModelFolder() + "/rollout.yaml", yaml));
  state_.experiment_ms = 0;  // The load begins another one.
  return server_.Load();
}

absl::Status Rollout::RestoreRouting() {
  const std::string routing = ModelFolder() + "/rollout.yaml";
  return Exists(folder_.routing_before()) ? Copy(folder_.routing_before(), routing)
                                          : Remove(routing);
}

absl::Status Rollout::Enter(const RolloutStage& stage) {
  OCTET_RETURN_IF_ERROR(Route(RolloutYaml(state_.plan, stage)));
  state_.restarts = 0;
  const bool promoted = stage.kind == RolloutStage::Kind::kPromoted;
  state_.phase = RolloutPhase::kServe;
  state_.stage = stage;
  state_.stage_began_ms = state_.stage_entered_ms = NowMs();
  refusing_ = {};
  report_(RolloutStageName(state_.plan, stage));
  if (!promoted) return Save(RolloutStageName(state_.plan, stage));
  OCTET_RETURN_IF_ERROR(End(RolloutPhase::kPromoted));
  return folder_.KeepReplaced();
}

absl::Status Rollout::End(RolloutPhase phase) {
  // Clients sent it, and nobody needs it, unless the user has put it there.
  std::error_code error;
  if (!fs::equivalent(options_.calibration, folder_.calibration(), error))
    OCTET_RETURN_IF_ERROR(Remove(folder_.calibration()));
  state_.phase = phase;
  return Save(RolloutPhaseName(phase));
}

absl::Status Rollout::NoticeRestart(const RolloutLook& look) {
  const auto experiment_ms = look.experiment.at("started_ms").get<int64_t>();
  const auto server_ms = look.server.at("started_ms").get<int64_t>();
  if (state_.experiment_ms == experiment_ms) return absl::OkStatus();
  const bool first_look = state_.experiment_ms == 0;
  const bool restarted = state_.server_ms != server_ms;
  state_.experiment_ms = experiment_ms;
  state_.server_ms = server_ms;
  if (first_look) return folder_.Save(state_);
  state_.stage_began_ms = NowMs();
  if (restarted) ++state_.restarts;
  report_(Format("  {}: the stage is held from its beginning",
                 restarted ? "the server restarted" : "the model was loaded anew"));
  return Save(restarted ? "restart" : "load");
}

absl::StatusOr<RolloutFacts> Rollout::Observe() {
  OCTET_ASSIGN_OR_RETURN(const RolloutLook look, server_.Look());
  OCTET_RETURN_IF_ERROR(NoticeRestart(look));
  RolloutFacts facts;  // not ready
  if (look.experiment.at("version").get<std::string>() == state_.version) {
    facts = FactsOf(look.experiment, state_.plan, refusing_);
  }
  facts.restarts = state_.restarts;
  const int64_t now_ms = NowMs();
  facts.held = std::chrono::seconds((now_ms - state_.stage_began_ms) / 1000);
  facts.since_entered = std::chrono::seconds((now_ms - state_.stage_entered_ms) / 1000);
  return facts;
}

absl::Status Rollout::Serve() {
  std::string said;
  while (state_.phase == RolloutPhase::kServe) {
    OCTET_ASSIGN_OR_RETURN(const RolloutFacts facts, Observe());
    const RolloutDecision decision = DecideRollout(state_.plan, state_.stage, facts);
    switch (decision.verdict) {
      case RolloutDecision::Verdict::kWait:
        if (decision.reason != said) report_("  " + decision.reason);
        said = decision.reason;
        std::this_thread::sleep_for(kRolloutInterval);
        break;
      case RolloutDecision::Verdict::kForward:
        OCTET_RETURN_IF_ERROR(Enter(NextStage(state_.plan, state_.stage)));
        break;
      case RolloutDecision::Verdict::kBack:
        return RollBack(decision.reason);
    }
  }
  return absl::OkStatus();
}

absl::Status Rollout::Undo() {
  if (!state_.routed) return absl::OkStatus();
  // The baseline alone, whatever the default order makes of files that come and go.
  OCTET_RETURN_IF_ERROR(
      WriteWholeFile(ModelFolder() + "/rollout.yaml", BaselineYaml(state_.plan, "")));
  if (state_.installed) {
    const std::string target = VariantFile(state_.plan.candidate);
    const bool there = Exists(target) && !(state_.replaced && !Exists(folder_.replaced()));
    if (there) OCTET_RETURN_IF_ERROR(Move(target, folder_.rejected()));
    if (Exists(folder_.replaced())) OCTET_RETURN_IF_ERROR(Move(folder_.replaced(), target));
  }
  OCTET_RETURN_IF_ERROR(RestoreRouting());
  const absl::Status loaded = server_.Load();
  if (loaded.ok()) return absl::OkStatus();
  report_(Format("everything is as it was on disk, but the server has not followed: {}",
                 Message(loaded)));
  // What it refuses it refuses for another reason than this rollout, which is out of its way. Else the candidate may answer
  // still: the same command goes on.
  return WasRefused(loaded) ? absl::OkStatus() : loaded;
}

absl::Status Rollout::Refuse(const std::string& reason) {
  state_.reason = reason;
  OCTET_RETURN_IF_ERROR(folder_.Save(state_));
  OCTET_RETURN_IF_ERROR(Undo());
  OCTET_RETURN_IF_ERROR(Move(folder_.candidate(), folder_.rejected()));
  return End(RolloutPhase::kRefused);
}

absl::Status Rollout::RollBack(const std::string& reason) {
  // Whoever is killed on the way back goes on with it.
  state_.reason = reason;
  OCTET_RETURN_IF_ERROR(folder_.Save(state_));
  OCTET_RETURN_IF_ERROR(Undo());
  report_("rolled back: " + reason);
  return End(RolloutPhase::kRolledBack);
}

absl::StatusOr<RolloutState> Rollout::Abort() {
  OCTET_ASSIGN_OR_RETURN(state_, folder_.Load());
  if (IsOver(state_.phase)) {
    return NotFound("no rollout of {} is under way, the last one is over: {}", state_.model,
                    RolloutPhaseName(state_.phase));
  }
  OCTET_RETURN_IF_ERROR(RollBack("asked for with --abort"));
  return state_;
}

}  // namespace octet::cli