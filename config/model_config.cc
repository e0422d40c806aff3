#include "config/model_config.h"

#include <algorithm>
#include <iterator>

#include "config/pipeline_config.h"
#include "config/routing_config.h"
#include "config/yaml_reader.h"
#include "engine/tensor/format.h"

namespace octet {
namespace {

/// What the rows write to before their names are turned into types.
struct Written {
  ModelConfig config;
  WrittenRouting routing;
  std::vector<std::string> precisions;
  /// What capture consists of; nothing of it is there without the section.
  struct Capture {
    std::optional<double> percent;
    std::optional<int64_t> max_bytes;
    std::vector<std::string> redact;
    bool operator==(const Capture&) const = default;
  } capture;
  ModelConfig::Pipeline pipeline;  ///< Empty without the section.
};

/// Names of the element types that a client may send for an input of reals.
std::vector<std::string> WireTypes() {
  return {"UINT8", "INT8", "UINT16", "INT16", "FP16", "BF16"};
}

/// A version's number; the name that stood for `*` is another name for it, and must not be taken for one of its own.
YamlBinding VersionLabel(std::map<std::string, int64_t>* labels) {
  return {
      "whole number >= 1",
      [labels](const YAML::Node& value, const std::string& name) -> absl::Status {
        const bool is_number =
            !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
        if (name.empty() || is_number || ParsePrecision(name)) {
          return InvalidArgument(
              "a label is no number and no precision, which clients may ask for as well: \"{}\"",
              name);
        }
        OCTET_ASSIGN_OR_RETURN((*labels)[name], ParseInteger(value, 1, INT64_MAX));
        return absl::OkStatus();
      }};
}

/// The rows of models with state.
std::vector<YamlKey> SequenceKeys(ModelConfig& c) {
  const std::function<YamlBinding(ModelConfig::State&)> output = [](ModelConfig::State& state) {
    return Text(&state.output);
  };
  const std::function<YamlBinding(ModelConfig::State&)> initial = [](ModelConfig::State& state) {
    return Number(&state.initial, -1e9, 1e9);
  };
  const std::function<YamlBinding(ModelConfig::State&)> shape = [](ModelConfig::State& state) {
    return NotEmpty(IntegerList(&state.shape, 0));
  };
  return {
      {"state.*.output", ForName(&c.state, output), "",
       "output that the next request of the same sequence gets as this input; clients see neither"},
      {"state.*.initial", ForName(&c.state, initial), "",
       "every element of it for the first request of a sequence (0 when absent)"},
      {"state.*.shape", ForName(&c.state, shape), "",
       "its extents for the first request of a sequence (the model's when absent, with 1 for an "
       "open first extent and 0 for other open ones)"},
      {"sequences.max_sequences", Integer(&c.sequences.max_sequences, 1, 10'000'000), "sequences",
       "live at a time (1024 when absent); one more is refused"},
      {"sequences.idle_seconds", Integer(&c.sequences.idle_seconds, 1, 86400), "s",
       "without a request until a sequence is forgotten (60 when absent)"},
      {"sequences.drain_seconds", Integer(&c.sequences.drain_seconds, 0, 86400), "s",
       "that a sequence may go on on a version that was replaced (300 when absent)"},
      {"sequences.max_state_bytes", Integer(&c.sequences.max_state_bytes, 1, INT64_MAX / 2),
       "bytes",
       "memory of the states whose extents the model leaves open, of all sequences together (1 GiB "
       "when absent); a request that needs more is refused, and its sequence stays as it was"},
  };
}

/// One row per key: path, where it goes and what it accepts, unit, meaning.
std::vector<YamlKey> Keys(Written& w) {
  ModelConfig& c = w.config;
  const std::function<YamlBinding(WireMapping&)> wire_dtype = [](WireMapping& wire) {
    return Choice(WireTypes(),
                  [&wire](const std::string& name) { wire.dtype = *ParseDType(name); });
  };
  const std::function<YamlBinding(WireMapping&)> wire_scale = [](WireMapping& wire) {
    return NumberList(&wire.scale);
  };
  const std::function<YamlBinding(WireMapping&)> wire_zero_point = [](WireMapping& wire) {
    return NumberList(&wire.zero_point);
  };
  std::vector<YamlKey> keys = {
      {"name", Text(&c.name), "", "the model's name; the folder's when absent"},

      {"batching.max_batch", Integer(&c.batching.max_batch, 1, 65536), "rows",
       "rows that run as one batch"},
      {"batching.max_queue_delay_us", Integer(&c.batching.max_queue_delay_us, 0, 60'000'000), "us",
       "how long a batch may wait to become full"},
      {"batching.max_queue_requests", Integer(&c.batching.max_queue_requests, 1, 1'000'000),
       "requests", "waiting per variant; one more is refused"},
      {"batching.max_queue_bytes", Integer(&c.batching.max_queue_bytes, 1, INT64_MAX / 2), "bytes",
       "waiting per variant; more is refused"},
      {"batching.p99_target_ms", Number(&c.batching.p99_target_ms, 0, 60'000), "ms",
       "from arrival to answer for 99 of 100 requests"},
      {"batching.priority_levels", Integer(&c.batching.priority_levels, 0, 255), "levels",
       "that a request's parameter \"priority\" may ask for, 1 goes first"},
      {"batching.default_priority", Integer(&c.batching.default_priority, 0, 255), "level",
       "of requests that ask for none of them; 0 = the last one"},

      {"inputs.*.wire.datatype", ForName(&c.wire, wire_dtype), "",
       "element type that clients may send for this input of reals, another than its own"},
      {"inputs.*.wire.scale", ForName(&c.wire, wire_scale), "real per step",
       "real = scale[c] * (q - zero_point[c]), c along axis 1"},
      {"inputs.*.wire.zero_point", ForName(&c.wire, wire_zero_point), "steps",
       "the q that stands for 0; need not be whole"},

      {"capture.percent", Number(&w.capture.percent, 0, 100), "%",
       "share of the answered requests whose inputs are offered to the sample"},
      {"capture.max_bytes", Integer(&w.capture.max_bytes, 1, INT64_MAX / 2), "bytes",
       "memory of the sample of each version (64 MiB when absent); its files take at most 4 times "
       "as "
       "much"},
      {"capture.redact", TextList(&w.capture.redact), "",
       "inputs that are kept as zeros, or empty strings"},

      {"versions.latest", Integer(&c.versions.latest, 1, 1'000'000), "versions",
       "load the so many highest versions"},
      {"versions.all", Boolean(&c.versions.all), "", "load every version"},
      {"versions.specific", NotEmpty(IntegerList(&c.versions.specific, 1)), "versions",
       "load these"},

      {"version_labels.*", VersionLabel(&c.version_labels), "version",
       "the number of the version that clients who ask for this name get"},

      {"golden.sqnr_db", Number(&c.golden.sqnr_db, -150, 150), "dB",
       "a precision is served when its answers to golden.npz, beside its file, have at least this "
       "SQNR (15 when absent)"},
      {"golden.agreement_percent", Number(&c.golden.agreement_percent, 0, 100), "%",
       "and at least this share of rows with the same best class (95 when absent)"},

      {"precisions", NotEmpty(TextList(&w.precisions, CheckPrecision)), "",
       "precisions that load; every file that is there when absent"},
  };
  std::ranges::move(RoutingKeys(&c.routing, &w.routing), std::back_inserter(keys));
  std::ranges::move(SequenceKeys(c), std::back_inserter(keys));
  std::ranges::move(PipelineKeys(&w.pipeline), std::back_inserter(keys));
  return keys;
}

absl::Status CheckWire(const std::string& file, const std::string& input, const WireMapping& wire) {
  const std::string key = Format("{}: inputs.{}.wire", file, input);
  if (wire.dtype == DType::kUndefined) return InvalidArgument("{}: datatype is missing", key);
  if (wire.scale.empty() || wire.zero_point.empty()) {
    return InvalidArgument("{}: scale and zero_point need at least one number", key);
  }
  if (wire.scale.size() != wire.zero_point.size() && wire.scale.size() != 1 &&
      wire.zero_point.size() != 1) {
    return InvalidArgument("{}: scale and zero_point differ in length: {} and {}", key,
                           wire.scale.size(), wire.zero_point.size());
  }
  for (const float scale : wire.scale) {
    if (!(scale > 0)) return InvalidArgument("{}: scale must be > 0, got {}", key, scale);
  }
  return absl::OkStatus();
}

/// `capture` as it was written; nothing when it was not.
absl::StatusOr<std::optional<ModelConfig::Capture>> MakeCapture(std::string_view file,
                                                                const Written::Capture& written) {
  if (written == Written::Capture()) return std::nullopt;
  if (!written.percent) return InvalidArgument("{}: capture: percent is missing", file);
  ModelConfig::Capture capture;
  capture.percent = *written.percent;
  capture.max_bytes = written.max_bytes.value_or(capture.max_bytes);
  capture.redact = written.redact;
  return capture;
}

absl::Status CheckState(const std::string& file, const ModelConfig& config) {
  if (config.state.empty()) {
    if (config.sequences == ModelConfig::Sequences()) return absl::OkStatus();
    return InvalidArgument("{}: sequences: the model has none without `state`", file);
  }
  std::map<std::string, std::string> taken;
  for (const auto& [input, state] : config.state) {
    const std::string key = Format("{}: state.{}", file, input);
    if (state.output.empty()) return InvalidArgument("{}: output is missing", key);
    if (const auto [other, fresh] = taken.emplace(state.output, input); !fresh) {
      return InvalidArgument("{}: output '{}' is the state of '{}' already", key, state.output,
                             other->second);
    }
    if (config.wire.contains(input)) {
      return InvalidArgument("{}: clients do not send it: no inputs.{}.wire", key, input);
    }
  }
  // A request is not all that its answer follows from: alone it can be neither compared nor calibrated with.
  if (config.routing.shadow || config.capture) {
    return InvalidArgument("{}: a model with `state` has no routing.shadow and no capture", file);
  }
  return absl::OkStatus();
}

absl::Status CheckModelConfig(const std::string& file, const ModelConfig& config) {
  OCTET_RETURN_IF_ERROR(CheckState(file, config));
  for (const auto& [input, wire] : config.wire) OCTET_RETURN_IF_ERROR(CheckWire(file, input, wire));
  OCTET_RETURN_IF_ERROR(CheckRouting(file, config));
  const int policies = (config.versions.latest ? 1 : 0) + (config.versions.all ? 1 : 0) +
                       (config.versions.specific.empty() ? 0 : 1);
  if (policies > 1) {
    return InvalidArgument("{}: versions: give one of latest, all and specific", file);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text, std::string_view file) {
  Written written;
  OCTET_RETURN_IF_ERROR(ReadYaml(text, file, Keys(written)));
  ModelConfig& config = written.config;
  for (const std::string& name : written.precisions) {
    config.precisions.push_back(*ParsePrecision(name));
  }
  OCTET_RETURN_IF_ERROR(TakeRouting(file, written.routing, &config.routing));
  OCTET_ASSIGN_OR_RETURN(config.capture, MakeCapture(file, written.capture));
  if (!(written.pipeline == ModelConfig::Pipeline())) {
    OCTET_RETURN_IF_ERROR(CheckPipeline(file, written.pipeline));
    config.pipeline = std::move(written.pipeline);
  }
  OCTET_RETURN_IF_ERROR(CheckModelConfig(std::string(file), config));
  OCTET_RETURN_IF_ERROR(CheckShifts(std::string(file), config.routing));
  for (auto& [input, wire] : config.wire) {
    // One number beside several serves every channel.
    const size_t count = std::max(wire.scale.size(), wire.zero_point.size());
    wire.scale.resize(count, wire.scale[0]);
    wire.zero_point.resize(count, wire.zero_point[0]);
  }
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  OCTET_ASSIGN_OR_RETURN(const std::string text, ReadConfigFile(path));
  return ParseModelConfig(text, path);
}

absl::StatusOr<ModelConfig> ApplyRollout(ModelConfig model, const ModelConfig& rollout,
                                         std::string_view file) {
  ModelConfig::Routing& routing = model.routing;
  ModelConfig allowed;
  allowed.precisions = rollout.precisions;
  allowed.routing.default_precision = rollout.routing.default_precision;
  allowed.routing.default_is_fastest = rollout.routing.default_is_fastest;
  allowed.routing.split = rollout.routing.split;
  allowed.routing.shadow = rollout.routing.shadow;
  allowed.routing.guard = rollout.routing.guard;
  if (rollout.capture) allowed.capture = {.percent = rollout.capture->percent};
  if (!(allowed == rollout)) {
    return InvalidArgument(
        "{}: expected routing.default, split, shadow and guard, capture.percent and precisions; "
        "got "
        "other keys",
        file);
  }
  if (rollout.routing.default_precision || rollout.routing.default_is_fastest) {
    routing.default_precision = rollout.routing.default_precision;
    routing.default_is_fastest = rollout.routing.default_is_fastest;
  }
  if (!rollout.routing.split.empty()) {
    routing.split = rollout.routing.split;
    // Those of the model's own are of its own split.
    routing.shadow.reset();
    if (routing.ramp && routing.ramp->precision) routing.ramp.reset();
    // But a version's ramp goes on, and needs somebody who consents.
    const auto& loaded = rollout.precisions.empty() ? model.precisions : rollout.precisions;
    std::erase_if(routing.guard, [&](const auto& item) {
      const auto& [precision, guard] = item;
      const bool loads = loaded.empty() || std::ranges::contains(loaded, precision);
      return !routing.ramp || !loads || guard.agreement_percent || guard.sqnr_db;
    });
    using Action = ModelConfig::Routing::Guard::Action;
    for (auto& [precision, guard] : routing.guard) {
      if (guard.action == Action::kShift && !HasWeight(routing, precision)) {
        guard.action = Action::kAlert;
      }
    }
  }
  if (rollout.routing.shadow) routing.shadow = rollout.routing.shadow;
  if (!rollout.routing.guard.empty()) routing.guard = rollout.routing.guard;
  if (!rollout.precisions.empty()) model.precisions = rollout.precisions;
  // What the model's own section withholds stays withheld.
  if (rollout.capture) {
    if (!model.capture) model.capture = ModelConfig::Capture{};
    model.capture->percent = rollout.capture->percent;
  }
  OCTET_RETURN_IF_ERROR(CheckModelConfig(std::string(file), model));
  return model;
}

absl::StatusOr<ServerConfig::Batching> ResolveBatching(const ServerConfig& server,
                                                       const ModelConfig& model) {
  ServerConfig::Batching batching = server.batching;
  batching.max_batch = model.batching.max_batch.value_or(batching.max_batch);
  batching.max_queue_delay_us =
      model.batching.max_queue_delay_us.value_or(batching.max_queue_delay_us);
  batching.max_queue_requests =
      model.batching.max_queue_requests.value_or(batching.max_queue_requests);
  batching.max_queue_bytes = model.batching.max_queue_bytes.value_or(batching.max_queue_bytes);
  batching.p99_target_ms = model.batching.p99_target_ms.value_or(batching.p99_target_ms);
  if (model.batching.priority_levels) {
    batching.priority_levels = *model.batching.priority_levels;
    batching.default_priority = 0;  // the server's is a level among the server's
  }
  batching.default_priority = model.batching.default_priority.value_or(batching.default_priority);
  OCTET_RETURN_IF_ERROR(CheckPriorities(batching));
  if (batching.max_batch > server.limits.max_batch) {
    return InvalidArgument("batching.max_batch: larger than the server's limits.max_batch = {}: {}",
                           server.limits.max_batch, batching.max_batch);
  }
  return batching;
}

ModelConfig::Versions VersionPolicy(const ModelConfig& config) {
  ModelConfig::Versions policy = config.versions;
  if (policy.latest || policy.all || !policy.specific.empty()) return policy;
  const ModelConfig::Routing& routing = config.routing;
  for (const auto& [number, share] : routing.versions) policy.specific.push_back(number);
  if (!policy.specific.empty() && routing.ramp && routing.ramp->version) {
    policy.specific.push_back(*routing.ramp->version);
  }
  if (policy.specific.empty()) policy.latest = 1;
  return policy;
}

std::vector<int64_t> SelectVersions(const ModelConfig& config, std::vector<int64_t> existing) {
  const ModelConfig::Versions policy = VersionPolicy(config);
  std::ranges::sort(existing, std::greater<>());
  if (policy.latest) {
    existing.resize(std::min<size_t>(existing.size(), *policy.latest));
  } else if (!policy.all) {
    std::erase_if(existing, [&](int64_t v) { return !std::ranges::contains(policy.specific, v); });
  }
  return existing;
}

std::vector<ConfigKeyInfo> ModelConfigKeys() {
  Written written;
  return DescribeKeys(Keys(written));
}

}  // namespace octet