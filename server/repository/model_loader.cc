#include "server/repository/model_loader.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <new>
#include <string>
#include <tuple>
#include <utility>

#include "engine/tensor/format.h"
#include "engine/tensor/status.h"
#include "server/logging/event_log.h"
#include "server/repository/pipeline.h"

namespace octet {
namespace {

constexpr std::string_view kUnloadedReason = "unloaded";

bool IsInt8(Precision precision) {
  return precision == Precision::kInt8 || precision == Precision::kInt8Dynamic;
}

LoadOptions OptionsFor(const ServerConfig::Engine& engine, Precision precision, int threads,
                       int max_batch) {
  LoadOptions options;
  options.precision = precision;
  options.threads = threads;
  options.max_batch = max_batch;
  options.narrow_inputs = true;
  options.disabled_passes = engine.disabled_passes;
  options.require_int8_percent = IsInt8(precision) ? engine.require_int8_percent : 0;
  options.max_cached_plans = engine.max_cached_plans;
  options.max_file_bytes = static_cast<uint64_t>(engine.max_model_bytes);
  return options;
}

/// Lets go of the copies that wait: they keep the variant in memory.
void RetireShadow(const ModelVersion& version) {
  if (version.shadow != nullptr) version.shadow->retired = true;
}

/// Writes what was captured, when nobody goes on with it; throws it away when the next one is not to show all of it.
void CloseCapture(const ModelVersion& version, const RequestCapture* next) {
  if (version.capture == nullptr || version.capture.get() == next) return;
  if (next != nullptr && version.capture->ShowsMoreThan(*next)) {
    version.capture->Discard();
  } else {
    version.capture->Close();
  }
}

/// Lets the sequences of a version go on in `next`, which may be null, where it serves the same models.
void LeaveSequences(const std::shared_ptr<const ModelVersion>& version,
                    const std::shared_ptr<const ModelVersion>& next) {
  if (version->sequences == nullptr) return;
  std::vector<SequenceHome> homes;
  if (next != nullptr && next->sequences != nullptr) {
    for (const ServedVariant& variant : next->variants) {
      if (variant.ready()) homes.push_back(HomeOf(next, {.precision = variant.precision}));
    }
  }
  version->sequences->store->Replace(version, homes);
}

/// BuildVersion; RESOURCE_EXHAUSTED when there is no memory for it, the states of sequences first of all.
absl::StatusOr<std::shared_ptr<const ModelVersion>> TryBuildVersion(const VersionParts& parts,
                                                                    MetricsRegistry& metrics) {
  try {
    return BuildVersion(parts, metrics);
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "out of memory to make version {}",
                     parts.number);
  }
}

void LogLoaded(std::string_view model, int64_t number, Precision precision,
               const LoadedVariant& loaded) {
  LogField int8 = {"int8_mac_ratio", std::string_view("unknown")};
  if (const auto ratio = Int8MacRatio(loaded.certificate)) int8.value = *ratio;
  LogEvent(LogLevel::kInfo, "variant_loaded",
           {{"model", model},
            {"version", number},
            {"precision", PrecisionName(precision)},
            {"seconds", std::chrono::duration<double>(loaded.load_time).count()},
            {"weight_bytes", uint64_t{loaded.model->resident_weight_bytes()}},
            int8});
  const std::string& meet = loaded.model->signature().samples_meet_in;
  if (meet.empty()) return;
  LogEvent(LogLevel::kWarn, "requests_not_stacked",
           {{"model", model},
            {"version", number},
            {"precision", PrecisionName(precision)},
            {"reason", Format("samples meet in {}: each request runs by itself", meet)}});
}

}  // namespace

ModelLoader::ModelLoader(std::string name, const ServerConfig& config, int worker_threads,
                         MetricsRegistry& metrics, Clock& clock, Publish publish)
    : name_(std::move(name)),
      server_(config),
      worker_threads_(worker_threads),
      metrics_(metrics),
      clock_(clock),
      publish_(std::move(publish)) {}

ModelLoader::~ModelLoader() {
  DropPipeline();
  for (auto& [unused, version] : versions_) TakeOut(version, "");
  if (sequences_ != nullptr) sequences_->EndAll();
}

bool ModelLoader::ready() const {
  return std::ranges::any_of(
      versions_, [](const auto& item) { return item.second.row.state == VersionState::kReady; });
}

void ModelLoader::Follow(const ModelFiles& files, bool retry) {
  unloaded_ = false;
  stale_ = false;
  status_ = absl::OkStatus();
  problem_.clear();
  FollowConfig(files, retry);
  FollowPipeline(files);
  std::vector<int64_t> wanted;
  if (settings_ && settings_->config.pipeline) {
    problem_ = std::string(Message(status_));
  } else if (settings_) {
    std::vector<int64_t> existing;
    for (const auto& [number, unused] : files.versions) existing.push_back(number);
    wanted = SelectVersions(settings_->config, std::move(existing));
    if (wanted.empty()) {
      Fail(
          NotFound("no version to load, expected a folder with a positive integer for a name: '{}'",
                   files.folder),
          "no_version");
      problem_ = Message(status_);
    }
  } else {
    problem_ = config_problem_;
  }
  OrderByShare(wanted);
  FollowSequences();
  FollowRamp(files, wanted);
  for (const int64_t number : wanted) {
    CatalogueVersion& row = versions_[number].row;
    if (row.state == VersionState::kReady) continue;
    // What is shown of it stays known: Rebuild takes back what the next one does not have.
    row.state = VersionState::kLoading;
    row.reason.clear();
  }
  PublishRow();
  for (const int64_t number : wanted) {
    FollowVersion(number, files, retry);
    PublishRow();
  }
  Retire(wanted, files);
  PublishRow();
  EndSequences();
}

void ModelLoader::OrderByShare(std::vector<int64_t>& wanted) const {
  if (!settings_) return;
  const ModelConfig::Routing& routing = settings_->config.routing;
  const auto ramped = routing.ramp ? routing.ramp->version : std::nullopt;
  std::ranges::stable_partition(wanted, [&](int64_t number) { return number != ramped; });
  std::vector<int64_t> named;
  for (const auto& [number, unused] : routing.versions) named.push_back(number);
  if (ramped) named.push_back(*ramped);
  for (const int64_t number : named) {
    if (std::ranges::contains(wanted, number)) continue;
    LogEvent(LogLevel::kWarn, "routed_version_missing", {{"model", name_}, {"version", number}});
  }
  for (const int64_t number : settings_->config.versions.specific) {
    if (std::ranges::contains(wanted, number) || std::ranges::contains(named, number)) continue;
    LogEvent(LogLevel::kWarn, "selected_version_missing", {{"model", name_}, {"version", number}});
  }
}

void ModelLoader::FollowSequences() {
  if (!settings_) return;
  const ModelConfig& config = settings_->config;
  if (config.state.empty()) return;  // what is still served with a state may go on: EndSequences
  if (sequences_ == nullptr) {
    sequences_ =
        std::make_shared<SequenceStore>(name_, clock_, metrics_.ForSequences(ModelLabels{name_}));
  }
  sequences_->SetLimits(
      {.max_sequences = static_cast<size_t>(config.sequences.max_sequences),
       .idle = std::chrono::seconds(config.sequences.idle_seconds),
       .drain = std::chrono::seconds(config.sequences.drain_seconds),
       .max_state_bytes = static_cast<size_t>(config.sequences.max_state_bytes),
       .max_waiting_requests = static_cast<size_t>(settings_->batching.max_queue_requests),
       .max_waiting_bytes = static_cast<size_t>(settings_->batching.max_queue_bytes)});
}

void ModelLoader::EndSequences() {
  if (sequences_ == nullptr) return;
  const bool served = ready() && std::ranges::any_of(versions_, [this](const auto& item) {
                        const auto& version = item.second.row.served;
                        return version != nullptr && version->sequences != nullptr &&
                               version->sequences->store == sequences_;
                      });
  if (served) return;
  sequences_->EndAll();
  if (settings_ && settings_->config.state.empty()) sequences_ = nullptr;
}

void ModelLoader::FollowConfig(const ModelFiles& files, bool retry) {
  const bool again = retry && !config_problem_.empty();
  const std::tuple stamps(files.config, files.rollout, files.labels);
  if (!config_read_ || again || stamps != config_stamps_) {
    absl::StatusOr<ModelSettings> settings = ReadModelSettings(server_, name_, files);
    const absl::Status status = settings.status();
    if (settings.ok()) settings_ = *std::move(settings);
    config_problem_ = status.ok() ? "" : Message(status);
    // Only now: what was cut short is read again.
    config_read_ = true;
    config_stamps_ = stamps;
    if (status.ok() && files.config) {
      LogEvent(LogLevel::kInfo, "model_config_read",
               {{"model", name_}, {"file", files.config_path()}});
    }
    if (status.ok() && files.rollout) {
      LogEvent(LogLevel::kInfo, "rollout_config_read",
               {{"model", name_}, {"file", files.rollout_path()}});
    }
    Fail(status, "model_config_refused");
  } else if (!config_problem_.empty()) {
    status_ = absl::InvalidArgumentError(config_problem_);
  }
  stale_ = settings_ && !config_problem_.empty();
}

void ModelLoader::FollowPipeline(const ModelFiles& files) {
  if (!settings_ || !settings_->config.pipeline) return DropPipeline();
  if (const absl::Status alone = CheckPipelineFolder(files); !alone.ok()) {
    Fail(alone, "pipeline_refused");
    return DropPipeline();
  }
  if (pipeline_ != nullptr && pipeline_->settings == *settings_) return;
  pipeline_ =
      std::make_shared<const PipelineDefinition>(name_, *settings_, pipeline_statistics_, metrics_);
}

void ModelLoader::DropPipeline() {
  if (pipeline_ != nullptr) pipeline_->ShowReady(false);
  pipeline_.reset();
}

void ModelLoader::FollowRamp(const ModelFiles& files, const std::vector<int64_t>& wanted) {
  const std::string file = files.folder + "/.ramp";
  const auto rules = settings_ ? settings_->config.routing.ramp : std::nullopt;
  if (!rules) {
    if (ramp_ != nullptr) ramp_->Retire();
    // Begun again it begins anew; a rollout does not end it, but keeps it waiting.
    std::error_code error;
    if (settings_ && config_problem_.empty() && !files.rollout)
      std::filesystem::remove(file, error);
    if (ramp_ != nullptr) {
      LogEvent(LogLevel::kInfo, "ramp_ended",
               {{"model", name_}, {"ramped", RampedName(ramp_->rules())}});
    }
    ramp_.reset();
    return;
  }
  std::string identity = Format("{}, held {} s:", RampedName(*rules), rules->hold_seconds);
  for (const float step : rules->steps) identity += Format(" {}", step);
  for (const auto& [number, variants] : files.versions) {
    // One that nobody is answered by says nothing of the traffic, wherever its folder goes.
    if (!std::ranges::contains(wanted, number)) continue;
    for (const auto& [precision, variant] : variants) {
      const bool ramped =
          rules->precision ? precision == *rules->precision : number == *rules->version;
      if (!ramped || variant.stamps.empty()) continue;
      const FileStamp& stamp = variant.stamps.front();
      identity +=
          Format("; {}/{} {} {}", number, PrecisionName(precision), stamp.modified_ns, stamp.bytes);
    }
  }
  if (ramp_ != nullptr && ramp_->identity() == identity) return;
  if (ramp_ != nullptr) ramp_->Retire();
  const TimePoint now = clock_.Now();
  ramp_ = std::make_shared<ServedRamp>(name_, *rules, std::move(identity), file, events_,
                                       SteadyEpoch(now), now);
}

void ModelLoader::FollowVersion(int64_t number, const ModelFiles& files, bool retry) {
  Version& version = versions_[number];
  const std::map<Precision, VariantFile>& present = files.versions.at(number);
  const std::vector<Precision> wanted = WantedPrecisions(settings_->config, present);
  std::erase_if(version.variants,
                [&](const auto& item) { return !std::ranges::contains(wanted, item.first); });
  for (const Precision precision : wanted) {
    const auto file = present.find(precision);
    VariantState& state = version.variants[precision];
    if (file != present.end()) {
      FollowVariant(number, precision, file->second, retry, state);
    } else {
      state = {.status =
                   NotFound("file does not exist: '{}'", VariantPath(files, number, precision))};
      Fail(state.status, "variant_missing");
    }
  }
  if (wanted.empty()) {
    const absl::Status status = NotFound(
        "no model file, expected fp32.onnx, fp16.onnx, bf16.onnx, int8.onnx or int8-dynamic.onnx: "
        "'{}/{}'",
        files.folder, number);
    Fail(status, "version_empty");
    TakeOut(version, std::string(Message(status)));
    return;
  }
  Rebuild(number, version);
}

void ModelLoader::FollowVariant(int64_t number, Precision precision, const VariantFile& file,
                                bool retry, VariantState& state) {
  const bool tried = state.file == file && state.max_batch == settings_->batching.max_batch &&
                     state.golden == settings_->config.golden;
  if (tried && (state.status.ok() || !retry)) {
    if (!state.status.ok() && status_.ok()) status_ = state.status;
    stale_ |= !state.status.ok() && state.loaded.model != nullptr;
    return;
  }
  VariantFile loading = file;
  state.max_batch = settings_->batching.max_batch;
  state.golden = settings_->config.golden;
  LoadOptions options =
      OptionsFor(server_.engine, precision, worker_threads_, settings_->batching.max_batch);
  options.on_compile = [metrics = metrics_.ForVariant({name_, std::to_string(number),
                                                       std::string(PrecisionName(precision))})](
                           std::chrono::nanoseconds time) {
    metrics->plan_compile_duration.Observe(std::chrono::duration<double>(time).count());
  };
  // Until its outcome is known no file is the one that was tried: a load that an exception cuts short is made again.
  state.status = Internal("the load was interrupted: '{}'", file.path);
  state.file = {};
  absl::StatusOr<LoadedVariant> loaded =
      LoadVariant(file.path, options, {.file = GoldenPath(file.path), .floor = state.golden});
  state.status = loaded.status();
  state.file = std::move(loading);
  if (loaded.ok()) {
    state.loaded = *std::move(loaded);
    metrics_.server().loads.Add();
    LogLoaded(name_, number, precision, state.loaded);
  } else {
    stale_ |= state.loaded.model != nullptr;
    Fail(state.status, "variant_refused");
  }
}

void ModelLoader::Rebuild(int64_t number, Version& version) {
  CatalogueVersion& row = version.row;
  auto built = TryBuildVersion({.model = name_,
                                .number = number,
                                .variants = version.variants,
                                .config = settings_->config,
                                .batching = settings_->batching,
                                .statistics = version.statistics,
                                .events = events_,
                                .ramp = ramp_,
                                .labels = settings_->labels,
                                .capture_path = server_.capture.path,
                                .sequences = settings_->config.state.empty() ? nullptr : sequences_,
                                .before = row.served},
                               metrics_);
  if (!built.ok()) {
    const absl::Status status = Annotate(built.status(), Format("{}/model.yaml", name_));
    Fail(status, "version_refused");
    row.reason = Message(status);
    if (row.state == VersionState::kReady) {
      stale_ = true;
    } else {
      row.state = VersionState::kUnavailable;
    }
    return;
  }
  if (row.served != nullptr) {
    ShowGone(*row.served, built->get());
    RetireShadow(*row.served);
    CloseCapture(*row.served, (*built)->capture.get());
    LeaveSequences(row.served, *built);
  }
  row = {.reason = ReasonsOf(**built), .served = *std::move(built)};
  ShowReady(*row.served, version.variants);
  row.state = row.served->ready() ? VersionState::kReady : VersionState::kUnavailable;
  LogEvent(row.served->ready() ? LogLevel::kInfo : LogLevel::kError,
           row.served->ready() ? "version_ready" : "version_unavailable",
           {{"model", name_}, {"version", number}, {"reason", row.reason}});
}

void ModelLoader::Retire(const std::vector<int64_t>& wanted, const ModelFiles& files) {
  const bool replaced = std::ranges::any_of(
      wanted, [&](int64_t number) { return versions_[number].row.state == VersionState::kReady; });
  for (auto it = versions_.begin(); it != versions_.end();) {
    auto& [number, version] = *it;
    if (std::ranges::contains(wanted, number)) {
      ++it;
      continue;
    }
    const bool exists = files.versions.contains(number);
    if (exists && !replaced && version.row.state == VersionState::kReady) {
      version.row.reason = "answers until a selected version is ready";
      ++it;
      continue;
    }
    LogEvent(LogLevel::kInfo, "version_retired", {{"model", name_}, {"version", number}});
    TakeOut(version, "");
    it = versions_.erase(it);
  }
}

void ModelLoader::TakeOut(Version& version, std::string reason) {
  std::vector<std::weak_ptr<const VariantQueue>> leaving;
  if (version.row.served != nullptr) {
    ShowGone(*version.row.served, nullptr);
    RetireShadow(*version.row.served);
    CloseCapture(*version.row.served, nullptr);
    LeaveSequences(version.row.served, nullptr);
    for (const ServedVariant& variant : version.row.served->variants) {
      if (variant.queue != nullptr) leaving.push_back(variant.queue);
    }
    if (const auto& shadow = version.row.served->shadow; shadow && shadow->queue) {
      leaving.push_back(shadow->queue);
    }
  }
  version.variants.clear();
  version.row = {.reason = std::move(reason), .leaving = std::move(leaving)};
}

void ModelLoader::Unload() {
  DropPipeline();
  for (auto& [unused, version] : versions_) TakeOut(version, std::string(kUnloadedReason));
  if (sequences_ != nullptr) sequences_->EndAll();
  problem_ = kUnloadedReason;
  unloaded_ = true;
  status_ = absl::OkStatus();
  PublishRow();
  LogEvent(LogLevel::kInfo, "model_unloaded", {{"model", name_}});
}

void ModelLoader::Fail(const absl::Status& status, std::string_view what) {
  if (status.ok()) return;
  metrics_.server().load_failures.Add();
  if (status_.ok()) status_ = status;
  LogEvent(LogLevel::kError, what, {{"model", name_}, {"error", Message(status)}});
}

void ModelLoader::PublishRow() {
  auto model = std::make_shared<CatalogueModel>();
  model->problem = problem_;
  model->pipeline = pipeline_;
  if (settings_) {
    const auto& labels = settings_->config.version_labels;
    model->labels.insert(labels.begin(), labels.end());
  }
  for (const auto& [number, version] : versions_) {
    CatalogueVersion& row = model->versions.emplace(number, version.row).first->second;
    // The one that its guards are looked at for: a version that could not be made anew goes on with the ramp before.
    const auto& ramp = row.served == nullptr ? nullptr : row.served->ramp;
    if (ramp != nullptr && ramp->rules().version == number) model->ramp = ramp;
    if (config_problem_.empty() || unloaded_) continue;
    row.reason += Format("{}the model.yaml before answers: {}", row.reason.empty() ? "" : "; ",
                         config_problem_);
  }
  AddShares(*model);
  publish_(std::move(model));
}

void ModelLoader::AddShares(CatalogueModel& model) {
  if (!settings_) return;
  const ModelConfig::Routing& routing = settings_->config.routing;
  model.salt = routing.sticky.salt;
  std::vector<std::shared_ptr<const ModelVersion>> served;
  for (const auto& [number, weight] : routing.versions) {
    const auto version = model.versions.find(number);
    const bool ready =
        version != model.versions.end() && version->second.state == VersionState::kReady;
    if (!ready || weight <= 0) continue;
    model.shares.push_back({number, weight});
    served.push_back(version->second.served);
  }
  if (routing.versions.empty()) {
    version_experiment_.reset();
  } else if (version_experiment_ == nullptr ||
             !version_experiment_->GoesOnWith(model.shares, served)) {
    version_experiment_ = std::make_shared<VersionExperiment>(model.shares, served);
  }
  model.version_experiment = version_experiment_;
}

}  // namespace octet
