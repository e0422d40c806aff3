// What requests and the index look up: every model, version and state, as one immutable value.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "server/repository/model_repository.h"
#include "server/repository/model_version.h"
#include "server/repository/version_experiment.h"

namespace octet {

/// A version and what is to be said about it.
struct CatalogueVersion {
  VersionState state = VersionState::kUnavailable;  ///< kReady: `served` answers.
  std::string reason;                               ///< As IndexEntry::reason.
  std::shared_ptr<const ModelVersion> served;       ///< Null when nothing of it is loaded.
  /// Queues of the version after it was taken out: while requests hold one it is UNLOADING.
  std::vector<std::weak_ptr<const VariantQueue>> leaving;

  VersionState StateNow() const;
};

struct PipelineDefinition;

/// A model.
struct CatalogueModel {
  /// Why it has no versions; of a pipeline, what is wrong although it answers.
  std::string problem;
  std::map<std::string, int64_t, std::less<>> labels;  ///< Other names of versions.
  std::map<int64_t, CatalogueVersion> versions;
  /// Of a model made of others: its one version is what LinkPipelines makes of it.
  std::shared_ptr<const PipelineDefinition> pipeline;
  std::vector<VersionShare> shares;  ///< Of routing.versions, those that are ready.
  std::shared_ptr<VersionExperiment>
      version_experiment;                  ///< Of `shares`; null without routing.versions.
  std::string salt;                        ///< Of routing.sticky.
  std::shared_ptr<const ServedRamp> ramp;  ///< Of a version; null without one.
};

/// The repository at one moment.
struct Catalogue {
  std::map<std::string, std::shared_ptr<const CatalogueModel>, std::less<>> models;
  bool complete = false;  ///< The folder has been read, and everything in it was tried.

  /// As the functions of ModelRepository.
  absl::StatusOr<std::shared_ptr<const ModelVersion>> Find(std::string_view model,
                                                           std::string_view version) const;
  absl::StatusOr<std::shared_ptr<const ModelVersion>> FindShare(std::string_view model,
                                                                const RouteFacts& request) const;
  absl::StatusOr<std::vector<std::shared_ptr<const ModelVersion>>> List(
      std::string_view model, std::string_view version) const;
  std::vector<IndexEntry> Index(bool ready_only) const;
  std::vector<VersionExperimentFacts> VersionExperiments(std::string_view model) const;
};

}  // namespace octet
