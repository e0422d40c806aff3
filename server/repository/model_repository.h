// The folder of models, and which of its versions answer requests.
#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/server_config.h"
#include "server/metrics/registry.h"
#include "server/repository/model_version.h"
#include "server/repository/version_experiment.h"

namespace octet {

/// The protocol's states of a model version.
enum class VersionState : uint8_t { kUnavailable, kLoading, kReady, kUnloading };
/// "UNAVAILABLE", "LOADING", "READY", "UNLOADING".
std::string_view VersionStateName(VersionState state);

/// A row of the repository's index. A model without any version that could be looked at (a folder
/// without versions, a broken model.yaml) has one row with an empty version.
struct IndexEntry {
  std::string model;
  std::string version;
  VersionState state = VersionState::kUnavailable;
  std::string
      reason;  ///< Why it is not ready, or which of its variants are not. Empty = nothing to say.
};

/// Loads, swaps and unloads models; requests look versions up in an immutable catalogue.
///
///     (absent) --found--> LOADING --a variant loaded--> READY --Unload--> UNLOADING --> UNAVAILABLE
///                            |                            |                  (holders gone)
///                            +--none loaded--> UNAVAILABLE  --Load/changed--> LOADING
///     any --folder removed--> (absent)
///
/// A version that is READY stays so while a changed one loads; then the catalogue is swapped in one
/// step: requests that were accepted finish on the old one, whose memory goes with the last of
/// them. What fails leaves what answers in place: a variant whose changed file does not load goes on
/// with the model that it has, a version whose model.yaml became wrong with the one before it, and
/// versions that are no longer selected stay until one of the selected is ready. The index says so.
///
/// Files that did not change are not loaded again: a changed model.yaml (weights of the split,
/// queues, wire mappings) swaps the routing at once. Only another max_batch compiles anew.
///
/// Thread-safety: safe. Loads run on the caller's thread, one at a time; look-ups never wait for
/// them.
class ModelRepository {
 public:
  /// Makes a repository that has not read its folder yet: every look-up fails until Poll was called.
  /// NOT_FOUND when the folder does not exist; one that cannot be looked at is Poll's matter. `clock` is the sequences'.
  static absl::StatusOr<std::unique_ptr<ModelRepository>> Create(const ServerConfig& config,
                                                                 int worker_threads,
                                                                 MetricsRegistry& metrics,
                                                                 Clock& clock = Clock::Real());
  /// Create and Poll. A broken model is UNAVAILABLE and the rest serves, unless
  /// config.repository.strict: then as CheckAll.
  static absl::StatusOr<std::unique_ptr<ModelRepository>> Open(const ServerConfig& config,
                                                               int worker_threads,
                                                               MetricsRegistry& metrics,
                                                               Clock& clock = Clock::Real());
  virtual ~ModelRepository() = default;

  /// Returns the version that answers: the highest ready one for an empty `version` or the name of a
  /// precision, else the one with that number or label. NOT_FOUND ("Request for unknown model: ...")
  /// for a model or version that does not exist, INVALID_ARGUMENT for a version that is none of
  /// these, UNAVAILABLE with the reason for one that is not ready.
  virtual absl::StatusOr<std::shared_ptr<const ModelVersion>> Find(
      std::string_view model, std::string_view version) const = 0;

  /// Returns the version that answers a request which names none: as routing.versions shares them out by the key and
  /// the draw, of those that have the precision if one is asked for; the highest ready one when that leaves none.
  /// Counted as a draw unless the request says otherwise.
  /// Errors as Find.
  virtual absl::StatusOr<std::shared_ptr<const ModelVersion>> FindShare(
      std::string_view model, const RouteFacts& request) const = 0;

  /// Every ready version of a model, or of all models when `model` is empty; errors as Find.
  virtual absl::StatusOr<std::vector<std::shared_ptr<const ModelVersion>>> List(
      std::string_view model, std::string_view version) const = 0;

  /// What the versions that share a model's traffic by routing.versions have shown; of all such models when `model` is empty,
  /// of none when this one is not among them.
  virtual std::vector<VersionExperimentFacts> VersionExperiments(std::string_view model) const = 0;

  /// Every version of every model, by name and number; with `ready_only` those that answer.
  virtual std::vector<IndexEntry> Index(bool ready_only) const = 0;

  /// Reads the model's folder anew and loads what changed or failed before. The first error when
  /// nothing of it answers then, or something in its former form; NOT_FOUND when there is no such
  /// folder; UNAVAILABLE, with everything as it was, when something of it cannot be looked at.
  virtual absl::Status Load(std::string_view model) = 0;
  /// Takes the model out of the catalogue: new requests get UNAVAILABLE, accepted ones finish. It
  /// stays out until Load. NOT_FOUND for an unknown model.
  virtual absl::Status Unload(std::string_view model) = 0;

  /// Looks for models that appeared, changed or disappeared, and follows. The first call loads
  /// everything; later ones follow a change once two looks in a row have seen the same, so that
  /// files which are still being written are left alone. Errors end up in the index and the log. What cannot be looked at (see
  /// ScanModel) stays as it is, be it a model or, before anything was loaded, the whole folder: Ready() stays false then. A
  /// model that nothing was loaded of before is UNAVAILABLE, with that reason.
  /// Returns between two models when `stop` is requested.
  virtual void Poll(const std::stop_token& stop) = 0;
  void Poll() { Poll(std::stop_token()); }
  /// Poll, for who says that everything is in place: one look is enough, and what failed before, or could not be looked at, is
  /// tried and told again. What was unloaded stays out. NOT_FOUND or UNAVAILABLE, with everything as it was, when the folder
  /// itself cannot be read.
  virtual absl::Status Reload(const std::stop_token& stop) = 0;
  /// Poll, of that alone which no look has followed yet: of the whole folder until Ready(), then of the models that could not be
  /// looked at. For those who do not look for changes; costs nothing when there is nothing to try.
  virtual void Retry(const std::stop_token& stop) = 0;

  /// True once the first Poll is done: everything in the folder was tried. Stays true: a model that
  /// breaks later is the index's matter, it does not take the others out of service.
  virtual bool Ready() const = 0;
  /// FAILED_PRECONDITION with one line for each model, version, variant or model.yaml that failed; UNAVAILABLE or NOT_FOUND
  /// when the last Poll could not read the folder itself.
  virtual absl::Status CheckAll() const = 0;
};

}  // namespace octet
