// The `pipeline` section of model.yaml. Included by this folder's sources only.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "config/model_config.h"
#include "config/yaml_reader.h"

namespace octet {

/// The rows under `pipeline`, which write to `pipeline`.
std::vector<YamlKey> PipelineKeys(ModelConfig::Pipeline* pipeline);

/// What can be said of a pipeline without its models. INVALID_ARGUMENT naming the file and the key.
absl::Status CheckPipeline(std::string_view file, const ModelConfig::Pipeline& pipeline);

}  // namespace octet
