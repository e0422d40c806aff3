// A model made of others: its steps, found in the catalogue and wired.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "server/metrics/registry.h"
#include "server/repository/catalogue.h"
#include "server/repository/model_settings.h"
#include "server/repository/model_version.h"
#include "server/scheduling/variant_queue.h"

namespace octet {

/// Where a tensor comes from: output `index` of a step, or input `index` of the pipeline.
struct PipelineSource {
  std::optional<size_t> step;  ///< Nothing: the pipeline's input.
  size_t index = 0;
};

/// A step, and what it runs: a model, which may be a pipeline itself, or the decoding of pictures.
struct PipelineStep {
  std::string name;
  std::shared_ptr<const ModelVersion> version;  ///< Null where pictures are decoded...
  std::shared_ptr<VariantQueue> pictures;       ///< ...in this queue.
  std::optional<Precision> precision;           ///< Nothing: as the model's routing chooses.
  Signature signature;
  std::vector<InputRecipe> recipes;    ///< One per input of the signature.
  int64_t max_batch = 1;               ///< Rows, pictures.
  std::vector<PipelineSource> inputs;  ///< In the order of the signature.
  std::vector<bool> wanted;            ///< The outputs that somebody reads, likewise.
  std::vector<size_t> readers;         ///< The steps that wait for this one, each once.
  size_t waits_for = 0;                ///< Steps.
};

/// What the requests of a pipeline run. It holds the versions of its models: a request that found it finds them too. Immutable.
struct Pipeline {
  std::vector<PipelineStep> steps;   ///< Each behind those that it waits for.
  std::vector<InputRecipe> recipes;  ///< One per input of the pipeline's signature.
  std::vector<PipelineSource> outputs;
  std::shared_ptr<QueueObserver> observer;        ///< Of the pipeline's own requests.
  std::shared_ptr<const VariantMetrics> metrics;  ///< Likewise.
  bool compares = false;                          ///< A shadow may get copies of a step.
};

/// What a step that decodes pictures has for a model and a precision in metrics and traces. No model is called so: a name has
/// no slash.
std::string PicturesModel(std::string_view pipeline, std::string_view step);
inline constexpr std::string_view kPicturesPrecision = "preprocess";

/// What the folder of a pipeline says, and what lasts while its models come and go.
struct PipelineDefinition {
  PipelineDefinition(std::string model_name, ModelSettings model_settings,
                     std::shared_ptr<VersionStatistics> counts, MetricsRegistry& registry);

  /// Sets the gauges of the pipeline and of the steps that are its own.
  void ShowReady(bool ready) const;

  const std::string model;
  const ModelSettings settings;  ///< With config.pipeline.
  const std::shared_ptr<VersionStatistics> statistics;
  const std::shared_ptr<VariantMetrics> metrics;
  /// Of the steps that decode pictures.
  std::map<std::string, std::shared_ptr<VariantMetrics>> pictures;
};

/// Makes the version that answers the pipeline's requests, version 1, from the models that are ready. Errors name the step: as
/// Catalogue::Find; NOT_FOUND or UNAVAILABLE for a precision that its model does not have; INVALID_ARGUMENT for an input or
/// output that does not exist, tensors of other types or extents than their reader takes, steps that wait for each other, or
/// pictures that no model can take.
absl::StatusOr<std::shared_ptr<const ModelVersion>> LinkPipeline(
    const PipelineDefinition& definition, const Catalogue& catalogue);

/// Links every pipeline of the catalogue, those that are steps of others first; what cannot be linked is UNAVAILABLE, with the
/// reason. A pipeline whose models are those of `before`, the catalogue that this one replaces, stays what it is there.
void LinkPipelines(const Catalogue& before, Catalogue& catalogue);

}  // namespace octet
