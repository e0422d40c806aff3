#include "server/repository/model_repository.h"

#include <map>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "engine/tensor/status.h"
#include "server/logging/event_log.h"
#include "server/repository/catalogue.h"
#include "server/repository/model_files.h"
#include "server/repository/model_loader.h"
#include "server/repository/pipeline.h"

namespace octet {
namespace {

class FolderRepository final : public ModelRepository {
 public:
  FolderRepository(const ServerConfig& config, int worker_threads, MetricsRegistry& metrics,
                   Clock& clock)
      : config_(config), worker_threads_(worker_threads), metrics_(metrics), clock_(clock) {}

  absl::StatusOr<std::shared_ptr<const ModelVersion>> Find(
      std::string_view model, std::string_view version) const override {
    return Now()->Find(model, version);
  }
  absl::StatusOr<std::shared_ptr<const ModelVersion>> FindShare(
      std::string_view model, const RouteFacts& request) const override {
    return Now()->FindShare(model, request);
  }
  absl::StatusOr<std::vector<std::shared_ptr<const ModelVersion>>> List(
      std::string_view model, std::string_view version) const override {
    return Now()->List(model, version);
  }
  std::vector<IndexEntry> Index(bool ready_only) const override { return Now()->Index(ready_only); }
  std::vector<VersionExperimentFacts> VersionExperiments(std::string_view model) const override {
    return Now()->VersionExperiments(model);
  }
  bool Ready() const override { return Now()->complete; }

  absl::Status Load(std::string_view model) override;
  absl::Status Unload(std::string_view model) override;
  using ModelRepository::Poll;
  void Poll(const std::stop_token& stop) override;
  absl::Status Reload(const std::stop_token& stop) override { return LookAtFolder(stop, true); }
  void Retry(const std::stop_token& stop) override;
  absl::Status CheckAll() const override;

 private:
  /// A model's folder as it was seen and as it was followed last.
  struct Known {
    std::unique_ptr<ModelLoader> loader;
    ModelFiles seen;
    ModelFiles followed;
    std::set<std::string> ignored;  ///< Entries that the log has told of.
    bool gone = false;              ///< The last look did not find it.
    bool interrupted = false;       ///< An exception cut the following short: once more.

    /// Nothing answers of it, nor did anybody say so.
    bool untried() const { return followed.folder.empty() && !loader->unloaded(); }
  };

  std::shared_ptr<const Catalogue> Now() const {
    absl::MutexLock lock(&mutex_);
    return catalogue_;
  }
  /// Replaces the catalogue by a copy that `change` was applied to, and its pipelines follow, in the same step.
  template <typename Change>
  void Swap(const Change& change) {
    const std::shared_ptr<const Catalogue> before = Now();
    auto next = std::make_shared<Catalogue>(*before);
    change(*next);
    LinkPipelines(*before, *next);
    std::shared_ptr<const Catalogue> old = std::move(next);
    absl::MutexLock lock(&mutex_);
    catalogue_.swap(old);
  }

  /// Of a pipeline: what is wrong with its folder, else why its models do not make one.
  absl::Status StatusOf(const absl::Status& folder, std::string_view pipeline) const {
    return folder.ok() ? Now()->Find(pipeline, "").status() : folder;
  }

  /// Logs what the log has not told of.
  static void TellIgnored(const std::vector<std::string>& paths, std::set<std::string>& told);
  /// Poll and Reload. The error is that of ScanRepository: what answers goes on answering, for a mount that is away for a moment
  /// is no order to unload.
  absl::Status LookAtFolder(const std::stop_token& stop, bool reload);
  Known& Get(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loading_);
  void Follow(Known& known, ModelFiles files, bool retry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loading_);
  void Drop(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(loading_);
  /// What one look has found of a model; with `at_once` it is followed without a second one.
  void NoteFiles(Known& known, ModelFiles files, bool at_once)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loading_);
  /// The look could not: logged unless it was so at the last one, and the row of a model that has none.
  void NoteUnreadable(const std::string& name, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(loading_);

  const ServerConfig config_;
  const int worker_threads_;
  MetricsRegistry& metrics_;
  Clock& clock_;

  /// Held through a load, so that there is one at a time. Before `mutex_`.
  mutable absl::Mutex loading_;
  std::map<std::string, Known> known_ ABSL_GUARDED_BY(loading_);
  /// As ScanRepository and ScanModel said last.
  std::map<std::string, absl::Status> unreadable_ ABSL_GUARDED_BY(loading_);
  absl::Status root_ ABSL_GUARDED_BY(loading_);
  std::set<std::string> ignored_
      ABSL_GUARDED_BY(loading_);  ///< As Known's, of the repository's folder.

  /// Held to take or replace the pointer alone.
  mutable absl::Mutex mutex_;
  std::shared_ptr<const Catalogue> catalogue_ ABSL_GUARDED_BY(mutex_) =
      std::make_shared<Catalogue>();
};

FolderRepository::Known& FolderRepository::Get(const std::string& name) {
  Known& known = known_[name];
  if (known.loader == nullptr) {
    known.loader = std::make_unique<ModelLoader>(
        name, config_, worker_threads_, metrics_, clock_,
        [this, name](std::shared_ptr<const CatalogueModel> row) {
          Swap([&](Catalogue& catalogue) { catalogue.models[name] = std::move(row); });
        });
  }
  return known;
}

void FolderRepository::TellIgnored(const std::vector<std::string>& paths,
                                   std::set<std::string>& told) {
  for (const std::string& path : paths) {
    if (!told.insert(path).second) continue;
    LogEvent(LogLevel::kInfo, "entry_ignored", {{"path", path}});
  }
}

void FolderRepository::Follow(Known& known, ModelFiles files, bool retry) {
  TellIgnored(files.ignored, known.ignored);
  known.gone = false;
  known.seen = files;
  known.followed = std::move(files);
  known.interrupted = true;
  known.loader->Follow(known.followed, retry);
  known.interrupted = false;
}

void FolderRepository::Drop(const std::string& name) {
  Swap([&](Catalogue& catalogue) { catalogue.models.erase(name); });
  known_.erase(name);
  LogEvent(LogLevel::kInfo, "model_removed", {{"model", name}});
}

absl::Status FolderRepository::Load(std::string_view model) {
  absl::MutexLock lock(&loading_);
  auto files = ScanModel(config_.repository.path, model);
  if (absl::IsUnavailable(files.status())) return files.status();
  unreadable_.erase(std::string(model));
  if (!files.ok()) {
    if (known_.contains(std::string(model))) Drop(std::string(model));
    return NotFound("Request for unknown model: '{}' ({})", model, Message(files.status()));
  }
  Known& known = Get(std::string(model));
  Follow(known, *std::move(files), true);
  if (known.loader->is_pipeline()) return StatusOf(known.loader->status(), model);
  const bool taken = known.loader->ready() && !known.loader->stale();
  return taken ? absl::OkStatus() : known.loader->status();
}

absl::Status FolderRepository::Unload(std::string_view model) {
  absl::MutexLock lock(&loading_);
  const auto known = known_.find(std::string(model));
  if (known == known_.end()) return NotFound("Request for unknown model: '{}'", model);
  known->second.loader->Unload();
  return absl::OkStatus();
}

void FolderRepository::Poll(const std::stop_token& stop) {
  const absl::Status looked = LookAtFolder(stop, false);
  if (looked.ok()) return;
  LogEvent(LogLevel::kError, "repository_unreadable", {{"error", Message(looked)}});
}

absl::Status FolderRepository::LookAtFolder(const std::stop_token& stop, bool reload) {
  absl::MutexLock lock(&loading_);
  const bool first = !Ready();
  auto found = ScanRepository(config_.repository.path);
  root_ = found.status();
  OCTET_RETURN_IF_ERROR(root_);
  TellIgnored(found->ignored, ignored_);
  if (reload) unreadable_.clear();  // to be told again
  std::erase_if(unreadable_,
                [&](const auto& item) { return !found->unreadable.contains(item.first); });
  for (const auto& [name, status] : found->unreadable) NoteUnreadable(name, status);
  for (auto& [name, files] : found->models) {
    if (stop.stop_requested()) return absl::OkStatus();
    Known& known = Get(name);
    const bool failed = !known.loader->unloaded() && !known.loader->status().ok();
    if (reload && failed) {
      Follow(known, std::move(files), true);
    } else {
      NoteFiles(known, std::move(files), first || reload);
    }
  }
  std::vector<std::string> gone;
  for (auto& [name, known] : known_) {
    if (found->models.contains(name) || unreadable_.contains(name)) continue;
    if (known.gone || reload) gone.push_back(name);
    known.gone = true;
  }
  for (const std::string& name : gone) Drop(name);
  if (first) Swap([](Catalogue& catalogue) { catalogue.complete = true; });
  return absl::OkStatus();
}

void FolderRepository::Retry(const std::stop_token& stop) {
  if (!Ready()) return Poll(stop);
  absl::MutexLock lock(&loading_);
  std::vector<std::string> gone;
  for (auto& [name, known] : known_) {
    if (stop.stop_requested()) return;
    if (!known.untried()) continue;
    auto files = ScanModel(config_.repository.path, name);
    if (absl::IsUnavailable(files.status())) {
      NoteUnreadable(name, files.status());
      continue;
    }
    unreadable_.erase(name);
    if (files.ok()) {
      NoteFiles(known, *std::move(files), false);
    } else if (std::exchange(known.gone, true)) {
      gone.push_back(name);
    }
  }
  for (const std::string& name : gone) Drop(name);
}

void FolderRepository::NoteFiles(Known& known, ModelFiles files, bool at_once) {
  const bool settled = at_once || known.seen == files;
  known.seen = files;
  known.gone = false;
  const bool followed = known.followed == files && !known.interrupted;
  if (!settled || known.loader->unloaded() || followed) return;
  Follow(known, std::move(files), false);
}

void FolderRepository::NoteUnreadable(const std::string& name, const absl::Status& status) {
  Known& known = Get(name);
  known.gone = false;
  absl::Status& noted = unreadable_[name];
  if (noted == status) return;
  noted = status;
  LogEvent(LogLevel::kError, "model_unreadable", {{"model", name}, {"error", Message(status)}});
  if (!known.untried()) return;  // what is followed of it answers on
  auto row = std::make_shared<CatalogueModel>();
  row->problem = Message(status);
  Swap([&](Catalogue& catalogue) { catalogue.models[name] = std::move(row); });
}

absl::Status FolderRepository::CheckAll() const {
  absl::MutexLock lock(&loading_);
  OCTET_RETURN_IF_ERROR(root_);
  std::string failures;
  for (const auto& [name, status] : unreadable_) {
    failures += Format("{}{}: {}", failures.empty() ? "" : "\n", name, Message(status));
  }
  for (const auto& [name, known] : known_) {
    const absl::Status status = known.loader->is_pipeline() ? StatusOf(known.loader->status(), name)
                                                            : known.loader->status();
    if (status.ok()) continue;
    failures += Format("{}{}: {}", failures.empty() ? "" : "\n", name, Message(status));
  }
  return failures.empty() ? absl::OkStatus() : absl::FailedPreconditionError(failures);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRepository>> ModelRepository::Create(const ServerConfig& config,
                                                                         int worker_threads,
                                                                         MetricsRegistry& metrics,
                                                                         Clock& clock) {
  const absl::StatusOr<bool> is_folder = IsFolder(config.repository.path);
  if (is_folder.ok() && !*is_folder) {
    return NotFound("model repository is no folder: '{}'", config.repository.path);
  }
  return std::make_unique<FolderRepository>(config, worker_threads, metrics, clock);
}

absl::StatusOr<std::unique_ptr<ModelRepository>> ModelRepository::Open(const ServerConfig& config,
                                                                       int worker_threads,
                                                                       MetricsRegistry& metrics,
                                                                       Clock& clock) {
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<ModelRepository> repository,
                         Create(config, worker_threads, metrics, clock));
  repository->Poll();
  if (config.repository.strict) OCTET_RETURN_IF_ERROR(repository->CheckAll());
  return repository;
}

}  // namespace octet
