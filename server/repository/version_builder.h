// From loaded variants and a configuration to what requests use.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "config/server_config.h"
#include "server/repository/model_files.h"
#include "server/repository/model_version.h"
#include "server/repository/variant_loader.h"

namespace octet {

/// A precision of a version as far as its loading got.
struct VariantState {
  VariantFile file;            ///< What was loaded or tried last.
  int max_batch = 0;           ///< What it was tried for.
  ModelConfig::Golden golden;  ///< What it was held to.
  LoadedVariant loaded;        ///< Without a model when nothing has loaded yet.
  absl::Status status;         ///< Of the last load.
};

/// What a version is made of.
struct VersionParts {
  std::string model;
  int64_t number = 0;
  const std::map<Precision, VariantState>& variants;
  const ModelConfig& config;
  ServerConfig::Batching batching;
  std::shared_ptr<VersionStatistics> statistics;
  std::shared_ptr<TrafficEvents> events;
  std::shared_ptr<ServedRamp> ramp;
  std::vector<std::string> labels;
  std::string capture_path;
  std::shared_ptr<SequenceStore> sequences = nullptr;  ///< Not null when config.state asks for it.
  /// What this one replaces; null for the first. Its capture and its experiment go on where they fit.
  std::shared_ptr<const ModelVersion> before;
};

/// Makes the version: queues, routes, metrics. A variant that did not load, or whose signature is
/// not that of the first loaded one (in the order of Precision), is listed with its reason; the
/// version itself may then have no variant that answers. INVALID_ARGUMENT when model.yaml does not
/// fit the model: a wire mapping for an input that does not exist or cannot be mapped, a capture as
/// RequestCapture::Make refuses it, or a state as StateLayout::Make does.
absl::StatusOr<std::shared_ptr<const ModelVersion>> BuildVersion(const VersionParts& parts,
                                                                 MetricsRegistry& metrics);

/// Makes clients of the version see the model without the states of `config`, which is not empty there. As StateLayout::Make.
absl::Status AddSequences(const ModelConfig& config, std::shared_ptr<SequenceStore> store,
                          MetricsRegistry& metrics, ModelVersion& version);

/// Makes what routing.shadow asks for from the version's variants; null when it asks for nothing.
std::shared_ptr<ServedShadow> MakeShadow(const ModelVersion& version, MetricsRegistry& metrics);

/// Gives the variants that answer the guards that routing.guard asks for.
void AddGuards(ModelVersion& version);

/// What routing is to know of the variants. Requires: AddGuards.
RouteTable MakeRoutes(const ModelVersion& version);

/// Why the variant is not ready, or is not as its file says, or, where the default is the fastest, why it may not be it; or "".
std::string ReasonOf(const ModelVersion& version, const ServedVariant& variant);

/// "int8: file does not exist; bf16: ...", why the default is which where it is the fastest, or "".
std::string ReasonsOf(const ModelVersion& version);

/// Sets the gauges of the version's variants: ready, weights, load time, int8 share.
void ShowReady(const ModelVersion& version, const std::map<Precision, VariantState>& variants);
/// Of a version that was taken out or replaced: what `next`, which may be null, does not have is neither ready nor not. Its
/// weights are shown as long as they are there: its sequences may go on for a while.
void ShowGone(const ModelVersion& version, const ModelVersion* next);

}  // namespace octet
