// Follows the files of one model: loads what changed, keeps what answers.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "config/server_config.h"
#include "server/metrics/registry.h"
#include "server/repository/catalogue.h"
#include "server/repository/model_files.h"
#include "server/repository/model_settings.h"
#include "server/repository/version_builder.h"

namespace octet {

/// The life of one model. Not thread-safe: one load at a time.
class ModelLoader {
 public:
  /// Puts a new row into the catalogue.
  using Publish = std::function<void(std::shared_ptr<const CatalogueModel>)>;

  /// `config`, `metrics` and `clock`, the sequences', outlive it.
  ModelLoader(std::string name, const ServerConfig& config, int worker_threads,
              MetricsRegistry& metrics, Clock& clock, Publish publish);
  /// Takes the model out of service.
  ~ModelLoader();
  ModelLoader(const ModelLoader&) = delete;
  ModelLoader& operator=(const ModelLoader&) = delete;

  /// Loads what differs from what is loaded, and with `retry` what failed before; publishes after
  /// every step. Errors are the catalogue's, the log's and status()'s.
  void Follow(const ModelFiles& files, bool retry);
  /// Takes everything out of service, until the next Follow.
  void Unload();

  bool unloaded() const { return unloaded_; }
  /// True when its versions are what LinkPipelines makes of other models.
  bool is_pipeline() const { return pipeline_ != nullptr; }
  /// The first thing that failed in the last Follow; OK when all of it answers.
  const absl::Status& status() const { return status_; }
  /// True when a version answers.
  bool ready() const;
  /// True when something answers in a form that its files no longer have, because that failed.
  bool stale() const { return stale_; }

 private:
  struct Version {
    std::map<Precision, VariantState> variants;
    std::shared_ptr<VersionStatistics> statistics = std::make_shared<VersionStatistics>();
    CatalogueVersion row;
  };

  void FollowConfig(const ModelFiles& files, bool retry);
  /// Defines the pipeline that model.yaml asks for, or none.
  void FollowPipeline(const ModelFiles& files);
  void DropPipeline();
  /// Makes the ramp that the configuration asks for, unless it is the one that there is: of the files in the `wanted` versions.
  void FollowRamp(const ModelFiles& files, const std::vector<int64_t>& wanted);
  /// Puts the version that a ramp brings in behind those that answer the rest: loaded first it would have all of the
  /// traffic. Logs versions that routing or `versions` names and that are not there.
  void OrderByShare(std::vector<int64_t>& wanted) const;
  void FollowVersion(int64_t number, const ModelFiles& files, bool retry);
  /// Loads the precision's file unless it is loaded as it is.
  void FollowVariant(int64_t number, Precision precision, const VariantFile& file, bool retry,
                     VariantState& state);
  void Rebuild(int64_t number, Version& version);
  /// Makes or bounds the sequences as the settings say.
  void FollowSequences();
  /// Ends them when nothing that is served goes on with them.
  void EndSequences();
  /// Takes the versions out that are not in `wanted`.
  void Retire(const std::vector<int64_t>& wanted, const ModelFiles& files);
  void TakeOut(Version& version, std::string reason);
  void Fail(const absl::Status& status, std::string_view what);
  void PublishRow();
  /// Which of its versions share the traffic, and what counts their draws.
  void AddShares(CatalogueModel& model);

  const std::string name_;
  const ServerConfig& server_;
  const int worker_threads_;
  MetricsRegistry& metrics_;
  Clock& clock_;
  const Publish publish_;
  std::shared_ptr<SequenceStore> sequences_;  ///< Null without `state`, once no version has one.

  std::optional<ModelSettings> settings_;  ///< The last that were right.
  /// Of model.yaml, rollout.yaml and labels.txt as they were read last, right or wrong.
  std::tuple<std::optional<FileStamp>, std::optional<FileStamp>, std::optional<FileStamp>>
      config_stamps_;
  bool config_read_ = false;
  std::string config_problem_;
  std::shared_ptr<const PipelineDefinition> pipeline_;
  /// Of the pipeline's requests, whatever becomes of its definition.
  const std::shared_ptr<VersionStatistics> pipeline_statistics_ =
      std::make_shared<VersionStatistics>();
  std::string problem_;  ///< Why there is no version.
  std::map<int64_t, Version> versions_;
  std::shared_ptr<TrafficEvents> events_ = std::make_shared<TrafficEvents>();
  std::shared_ptr<ServedRamp> ramp_;                       ///< Null without one.
  std::shared_ptr<VersionExperiment> version_experiment_;  ///< Null without routing.versions.
  absl::Status status_;
  bool stale_ = false;
  bool unloaded_ = false;
};

}  // namespace octet
