// The `routing` section of model.yaml. Included by this folder's sources only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "config/model_config.h"
#include "config/yaml_reader.h"

namespace octet {

/// What the rows under `routing` write to before their names are turned into types.
struct WrittenRouting {
  std::map<std::string, double> split;
  /// What routing.shadow consists of; nothing of it is there without the section.
  struct Shadow {
    std::optional<Precision> precision;
    std::optional<Precision> against;
    std::optional<double> percent;
    std::optional<int> max_queue_requests;
    std::optional<int64_t> max_queue_bytes;
    bool operator==(const Shadow&) const = default;
  } shadow;
  std::map<std::string, ModelConfig::Routing::Guard> guard;
  /// What routing.ramp consists of; nothing of it is there without the section.
  ModelConfig::Routing::Ramp ramp = {.steps = {}, .hold_seconds = 0};
};

/// The names of all precisions.
std::vector<std::string> PrecisionNames();
/// INVALID_ARGUMENT listing the precisions when `name` is none.
absl::Status CheckPrecision(const std::string& name);

/// The rows under `routing`, which write to `routing` and, what TakeRouting looks at, to `written`.
std::vector<YamlKey> RoutingKeys(ModelConfig::Routing* routing, WrittenRouting* written);

/// Puts what was written into the routing. INVALID_ARGUMENT naming the file and the key when it is half a section.
absl::Status TakeRouting(std::string_view file, const WrittenRouting& written,
                         ModelConfig::Routing* routing);

/// What can be said of a model's routing without its files: shares, precisions, guards, ramp. INVALID_ARGUMENT naming the
/// file and the key.
absl::Status CheckRouting(const std::string& file, const ModelConfig& config);

/// Whether the split gives the precision any of the traffic.
bool HasWeight(const ModelConfig::Routing& routing, Precision precision);

/// INVALID_ARGUMENT when a guard shifts a weight that is not there. Of a file alone: a rollout that gives a guard with this
/// action gives its split, too.
absl::Status CheckShifts(const std::string& file, const ModelConfig::Routing& routing);

}  // namespace octet
