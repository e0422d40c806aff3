// model.yaml over the server's defaults: what a model's folder asks for.
#pragma once

#include <map>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "config/server_config.h"
#include "server/repository/model_files.h"

namespace octet {

struct ModelSettings {
  ModelConfig config;
  ServerConfig::Batching batching;
  std::vector<std::string> labels;  ///< The lines of labels.txt beside model.yaml, if there is one.
  bool operator==(const ModelSettings&) const = default;
};

/// Reads the model's model.yaml, and over it rollout.yaml, with which `octet rollout` moves traffic and
/// leaves the operator's file alone; the defaults where there is none. INVALID_ARGUMENT naming the
/// file, with one line per mistake: also when it is for a model of another name.
absl::StatusOr<ModelSettings> ReadModelSettings(const ServerConfig& server, std::string_view name,
                                                const ModelFiles& files);

/// INVALID_ARGUMENT when the folder, which is a pipeline's, has versions of its own.
absl::Status CheckPipelineFolder(const ModelFiles& files);

/// The precisions that a version has or should have: those that `precisions` lists, else those
/// whose files are there and those that the routing names.
std::vector<Precision> WantedPrecisions(const ModelConfig& config,
                                        const std::map<Precision, VariantFile>& present);

/// Tries every model.yaml of the repository without loading a model. INVALID_ARGUMENT with one line
/// for each mistake, and for each version and file that model.yaml names and that does not exist; NOT_FOUND when
/// the repository does not exist.
absl::Status CheckModelSettings(const ServerConfig& server);

}  // namespace octet
