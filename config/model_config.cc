#include "config/model_config.h"

#include <algorithm>
#include <iterator>

#include "config/pipeline_config.h"
#include "config/yaml_reader.h"
#include "engine/tensor/format.h"

namespace octet {
namespace {

std::vector<std::string> PrecisionNames() {
  std::vector<std::string> names;
  for (const Precision precision : kAllPrecisions) names.emplace_back(PrecisionName(precision));
  return names;
}

/// What stands for the fastest precision.
constexpr std::string_view kFastest = "auto";

/// What the rows write to before their names are turned into types.
struct Written {
  ModelConfig config;
  std::map<std::string, double> split;
  std::vector<std::string> precisions;
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
  /// What capture consists of; nothing of it is there without the section.
  struct Capture {
    std::optional<double> percent;
    std::optional<int64_t> max_bytes;
    std::vector<std::string> redact;
    bool operator==(const Capture&) const = default;
  } capture;
  ModelConfig::Pipeline pipeline;  ///< Empty without the section.
};

absl::Status CheckPrecision(const std::string& name) {
  if (ParsePrecision(name)) return absl::OkStatus();
  std::string list;
  for (const std::string& known : PrecisionNames()) list += (list.empty() ? "" : ", ") + known;
  return InvalidArgument("expected one of {}; got \"{}\"", list, name);
}

/// Names of the element types that a client may send for an FP32 input.
std::vector<std::string> WireTypes() {
  return {"UINT8", "INT8", "UINT16", "INT16", "FP16", "BF16"};
}

/// A weight; the name that stood for `*` must be a precision.
YamlBinding SplitWeight(std::map<std::string, double>* split) {
  return {"0 .. 1000000",
          [split](const YAML::Node& value, const std::string& name) -> absl::Status {
            OCTET_RETURN_IF_ERROR(CheckPrecision(name));
            OCTET_ASSIGN_OR_RETURN((*split)[name], ParseNumber(value, 0, 1e6));
            return absl::OkStatus();
          }};
}

/// A weight; the name that stood for `*` must be a version's number.
YamlBinding VersionWeight(std::map<int64_t, double>* weights) {
  return {"0 .. 1000000",
          [weights](const YAML::Node& value, const std::string& name) -> absl::Status {
            const auto number = ParseInteger(YAML::Node(name), 1, INT64_MAX);
            OCTET_RETURN_IF_ERROR(Annotate(number.status(), "a version"));
            OCTET_ASSIGN_OR_RETURN((*weights)[*number], ParseNumber(value, 0, 1e6));
            return absl::OkStatus();
          }};
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

/// One of the two precisions of routing.shadow, which must differ from the other one.
YamlBinding ShadowPrecision(std::optional<Precision>* target, std::optional<Precision>* other) {
  YamlBinding choice = Choice(
      PrecisionNames(), [target](const std::string& name) { *target = ParsePrecision(name); });
  choice.store = [store = choice.store, target, other](const YAML::Node& value,
                                                       const std::string& name) -> absl::Status {
    OCTET_RETURN_IF_ERROR(store(value, name));
    if (*target != *other) return absl::OkStatus();
    return InvalidArgument("a precision is not compared with itself: {}", PrecisionName(**target));
  };
  return choice;
}

/// A number in [min, max] that may be absent.
YamlBinding OptionalNumber(std::optional<double>* target, double min, double max) {
  return {Format("{} .. {}", min, max),
          [=](const YAML::Node& value, const std::string&) -> absl::Status {
            OCTET_ASSIGN_OR_RETURN(*target, ParseNumber(value, min, max));
            return absl::OkStatus();
          }};
}

using Guard = ModelConfig::Routing::Guard;

/// A key of a guard; the name that stood for `*` must be a precision.
YamlBinding GuardKey(std::map<std::string, Guard>* guards,
                     const std::function<YamlBinding(Guard&)>& bind) {
  YamlBinding binding = ForName(guards, bind);
  binding.store = [store = binding.store](const YAML::Node& value,
                                          const std::string& name) -> absl::Status {
    OCTET_RETURN_IF_ERROR(CheckPrecision(name));
    return store(value, name);
  };
  return binding;
}

YamlBinding GuardLimit(std::map<std::string, Guard>* guards, std::optional<double> Guard::* limit,
                       double min, double max) {
  return GuardKey(guards, [=](Guard& guard) { return OptionalNumber(&(guard.*limit), min, max); });
}

YamlBinding GuardCount(std::map<std::string, Guard>* guards, int Guard::* count, int64_t min,
                       int64_t max) {
  return GuardKey(guards, [=](Guard& guard) { return Integer(&(guard.*count), min, max); });
}

YamlBinding GuardAction(std::map<std::string, Guard>* guards) {
  return GuardKey(guards, [](Guard& guard) {
    return Choice({"alert", "fall_back", "shift"}, [&guard](const std::string& name) {
      guard.action = name == "alert"   ? Guard::Action::kAlert
                     : name == "shift" ? Guard::Action::kShift
                                       : Guard::Action::kFallBack;
    });
  });
}

/// The rows under routing.guard.
std::vector<YamlKey> GuardKeys(Written& w) {
  return {
      {"routing.guard.*.agreement_percent", GuardLimit(&w.guard, &Guard::agreement_percent, 0, 100),
       "%", "least share of shadow rows whose best class is that of the answer"},
      {"routing.guard.*.sqnr_db", GuardLimit(&w.guard, &Guard::sqnr_db, -150, 150), "dB",
       "least mean signal to noise ratio of shadow outputs; a NaN or an infinity where the answer "
       "is finite, or another shape, breaks it; what differs from an answer of zeros alone counts "
       "as -150"},
      {"routing.guard.*.error_percent", GuardLimit(&w.guard, &Guard::error_percent, 0, 100), "%",
       "largest share of its requests that may fail as INTERNAL, UNKNOWN or DATA_LOSS"},
      {"routing.guard.*.p99_us", GuardLimit(&w.guard, &Guard::p99_us, 1, 1e9), "us",
       "largest 99th percentile of its requests' time: broken when more than 1 % of them took "
       "longer"},
      {"routing.guard.*.window_seconds", GuardCount(&w.guard, &Guard::window_seconds, 1, 86400),
       "s", "the rules are looked at this often, each time over that long (60 when absent)"},
      {"routing.guard.*.min_samples", GuardCount(&w.guard, &Guard::min_samples, 1, 1'000'000), "",
       "rows, outputs or requests in a window without which a rule says nothing (100 when absent)"},
      {"routing.guard.*.recover_windows", GuardCount(&w.guard, &Guard::recover_windows, 0, 10'000),
       "windows",
       "in a row that keep to every rule before it is back (3 when absent); 0 = a load brings it "
       "back"},
      {"routing.guard.*.action", GuardAction(&w.guard), "",
       "what a broken rule does (alert when absent); fall_back: others answer unless it is asked "
       "for; shift: each broken window halves its weight"},
  };
}

/// The rows under routing.ramp.
std::vector<YamlKey> RampKeys(Written& w) {
  return {
      {"routing.ramp.precision",
       Choice(PrecisionNames(),
              [&w](const std::string& name) { w.ramp.precision = ParsePrecision(name); }),
       "", "precision that comes in"},
      {"routing.ramp.version", Integer(&w.ramp.version, 1, INT64_MAX), "version",
       "version that comes in"},
      {"routing.ramp.steps", NumberList(&w.ramp.steps), "%", "rising shares of the traffic"},
      {"routing.ramp.hold_seconds", Integer(&w.ramp.hold_seconds, 1, 10'000'000), "s",
       "of each step, at least"},
  };
}

/// The rows of models with state.
std::vector<YamlKey> SequenceKeys(ModelConfig& c) {
  const std::function<YamlBinding(ModelConfig::State&)> output = [](ModelConfig::State& state) {
    return Text(&state.output);
  };
  const std::function<YamlBinding(ModelConfig::State&)> initial = [](ModelConfig::State& state) {
    return Number(&state.initial, -1e9, 1e9);
  };
  return {
      {"state.*.output", ForName(&c.state, output), "",
       "output that the next request of the same sequence gets as this input; clients see neither"},
      {"state.*.initial", ForName(&c.state, initial), "",
       "every element of it for the first request of a sequence (0 when absent)"},
      {"sequences.max_sequences", Integer(&c.sequences.max_sequences, 1, 10'000'000), "sequences",
       "live at a time (1024 when absent); one more is refused"},
      {"sequences.idle_seconds", Integer(&c.sequences.idle_seconds, 1, 86400), "s",
       "without a request until a sequence is forgotten (60 when absent)"},
      {"sequences.drain_seconds", Integer(&c.sequences.drain_seconds, 0, 86400), "s",
       "that a sequence may go on on a version that was replaced (300 when absent)"},
  };
}

/// One row per key: path, where it goes and what it accepts, unit, meaning.
std::vector<YamlKey> Keys(Written& w) {
  ModelConfig& c = w.config;
  const auto default_precision = [&c](const std::string& name) {
    c.routing.default_precision = ParsePrecision(name);
    c.routing.default_is_fastest = name == kFastest;
  };
  std::vector<std::string> defaults = PrecisionNames();
  defaults.emplace_back(kFastest);
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
      {"batching.p99_target_ms", OptionalNumber(&c.batching.p99_target_ms, 0, 60'000), "ms",
       "from arrival to answer for 99 of 100 requests"},
      {"batching.priority_levels", Integer(&c.batching.priority_levels, 0, 255), "levels",
       "that a request's parameter \"priority\" may ask for, 1 goes first"},
      {"batching.default_priority", Integer(&c.batching.default_priority, 0, 255), "level",
       "of requests that ask for none of them; 0 = the last one"},

      {"inputs.*.wire.datatype", ForName(&c.wire, wire_dtype), "",
       "element type that clients may send for this FP32 input"},
      {"inputs.*.wire.scale", ForName(&c.wire, wire_scale), "real per step",
       "real = scale[c] * (q - zero_point[c]), c along axis 1"},
      {"inputs.*.wire.zero_point", ForName(&c.wire, wire_zero_point), "steps",
       "the q that stands for 0; need not be whole"},

      {"routing.default", Choice(std::move(defaults), default_precision), "",
       "precision that answers when neither the request nor a split says; auto = the fastest on "
       "this machine of those that golden.npz holds to their answers"},
      {"routing.split.*", SplitWeight(&w.split), "weight",
       "share of the traffic of this precision"},
      {"routing.versions.*", VersionWeight(&c.routing.versions), "weight",
       "share of this version among requests that name none"},
      {"routing.sticky.parameter", Text(&c.routing.sticky.parameter), "",
       "request parameter whose value keeps to one precision"},
      {"routing.sticky.metadata", Text(&c.routing.sticky.metadata), "",
       "metadata key whose value keeps to one precision"},
      {"routing.sticky.salt", Text(&c.routing.sticky.salt), "",
       "another salt draws the groups anew"},
      {"routing.shadow.precision", ShadowPrecision(&w.shadow.precision, &w.shadow.against), "",
       "precision that gets copies of answered requests, to be compared by; nobody hears its "
       "answers"},
      {"routing.shadow.against", ShadowPrecision(&w.shadow.against, &w.shadow.precision), "",
       "precision whose answers are compared; any other one when absent"},
      {"routing.shadow.percent", OptionalNumber(&w.shadow.percent, 0, 100), "%",
       "share of those answers of which a copy is made"},
      {"routing.shadow.max_queue_requests", Integer(&w.shadow.max_queue_requests, 1, 1'000'000),
       "requests", "copies that wait (64 when absent); one more is dropped"},
      {"routing.shadow.max_queue_bytes", Integer(&w.shadow.max_queue_bytes, 1, INT64_MAX / 2),
       "bytes", "inputs and answers of copies that wait (64 MiB when absent); more is dropped"},

      {"capture.percent", OptionalNumber(&w.capture.percent, 0, 100), "%",
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
      {"versions.specific", IntegerList(&c.versions.specific, 1), "versions", "load these"},

      {"version_labels.*", VersionLabel(&c.version_labels), "version",
       "the number of the version that clients who ask for this name get"},

      {"golden.sqnr_db", Number(&c.golden.sqnr_db, -150, 150), "dB",
       "a precision is served when its answers to golden.npz, beside its file, have at least this "
       "SQNR (15 when absent)"},
      {"golden.agreement_percent", Number(&c.golden.agreement_percent, 0, 100), "%",
       "and at least this share of rows with the same best class (95 when absent)"},

      {"precisions", TextList(&w.precisions, CheckPrecision), "",
       "precisions that load; every file that is there when absent"},
  };
  std::ranges::move(GuardKeys(w), std::back_inserter(keys));
  std::ranges::move(SequenceKeys(c), std::back_inserter(keys));
  std::ranges::move(PipelineKeys(&w.pipeline), std::back_inserter(keys));
  std::ranges::move(RampKeys(w), std::back_inserter(keys));
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

absl::Status CheckVersionShares(const std::string& file, const ModelConfig& config) {
  double sum = 0;
  for (const auto& [number, weight] : config.routing.versions) {
    sum += weight;
    if (config.versions.specific.empty() ||
        std::ranges::contains(config.versions.specific, number)) {
      continue;
    }
    return InvalidArgument("{}: routing.versions.{}: not among `versions.specific`", file, number);
  }
  if (config.routing.versions.empty() || sum > 0) return absl::OkStatus();
  return InvalidArgument("{}: routing.versions: the weights sum to 0", file);
}

absl::Status CheckRamp(const std::string& file, const ModelConfig& config) {
  using Ramp = ModelConfig::Routing::Ramp;
  const ModelConfig::Routing& routing = config.routing;
  if (!routing.ramp) return absl::OkStatus();
  const Ramp& ramp = *routing.ramp;
  const auto refuse = [&](std::string_view what) {
    return InvalidArgument("{}: routing.ramp: {}", file, what);
  };
  if (ramp.precision.has_value() == ramp.version.has_value()) {
    return refuse("give one of precision and version");
  }
  float before = 0;
  for (const float step : ramp.steps) {
    if (!(step > before && step <= 100)) return refuse("steps: expected rising shares up to 100");
    before = step;
  }
  if (ramp.steps.empty()) return refuse("steps: expected at least one share");
  if (ramp.version) {
    if (routing.guard.empty()) return refuse("needs a guard that consents, routing.guard");
    if (routing.versions.empty() || routing.versions.contains(*ramp.version)) {
      return refuse("version: routing.versions must name who answers the rest, and not this one");
    }
    if (const auto& specific = config.versions.specific;
        !specific.empty() && !std::ranges::contains(specific, *ramp.version)) {
      return refuse("version: not among `versions.specific`");
    }
    return absl::OkStatus();
  }
  if (!routing.guard.contains(*ramp.precision)) {
    return refuse("needs a guard that consents, routing.guard of the precision");
  }
  if (routing.split.contains(*ramp.precision) || routing.default_precision == ramp.precision) {
    return refuse("precision: its share comes from the ramp, not from routing.split or default");
  }
  return absl::OkStatus();
}

/// Of a file alone: a rollout that gives a guard with this action gives its split, too.
absl::Status CheckShifts(const std::string& file, const ModelConfig::Routing& routing) {
  for (const auto& [precision, guard] : routing.guard) {
    const auto weight = routing.split.find(precision);
    if (guard.action != Guard::Action::kShift ||
        (weight != routing.split.end() && weight->second > 0)) {
      continue;
    }
    return InvalidArgument(
        "{}: routing.guard.{}.action: shift lowers a weight, expected routing.split.{}", file,
        PrecisionName(precision), PrecisionName(precision));
  }
  return absl::OkStatus();
}

absl::Status CheckRouting(const std::string& file, const ModelConfig& config) {
  const ModelConfig::Routing& routing = config.routing;
  double sum = 0;
  for (const auto& [precision, weight] : routing.split) sum += weight;
  if (!routing.split.empty() && sum <= 0) {
    return InvalidArgument("{}: routing.split: the weights sum to 0", file);
  }
  const auto loads = [&config](Precision precision) {
    return config.precisions.empty() || std::ranges::contains(config.precisions, precision);
  };
  for (const auto& [precision, weight] : routing.split) {
    if (!loads(precision)) {
      return InvalidArgument("{}: routing.split.{}: not among `precisions`", file,
                             PrecisionName(precision));
    }
  }
  const auto check = [&](std::string_view key, std::optional<Precision> precision) -> absl::Status {
    if (!precision || loads(*precision)) return absl::OkStatus();
    return InvalidArgument("{}: routing.{}: not among `precisions`: {}", file, key,
                           PrecisionName(*precision));
  };
  OCTET_RETURN_IF_ERROR(check("default", routing.default_precision));
  for (const auto& [precision, guard] : routing.guard) {
    const std::string key = Format("guard.{}", PrecisionName(precision));
    OCTET_RETURN_IF_ERROR(check(key, precision));
    if (!guard.has_rule()) {
      return InvalidArgument(
          "{}: routing.{}: no rule, expected agreement_percent, sqnr_db, error_percent or p99_us",
          file, key);
    }
    const bool of_shadow = guard.agreement_percent || guard.sqnr_db;
    if (of_shadow && (!routing.shadow || routing.shadow->precision != precision)) {
      return InvalidArgument(
          "{}: routing.{}: agreement_percent and sqnr_db need copies, expected "
          "routing.shadow.precision: {}",
          file, key, PrecisionName(precision));
    }
  }
  if (!routing.shadow) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(check("shadow.precision", routing.shadow->precision));
  return check("shadow.against", routing.shadow->against);
}

/// routing.shadow as it was written; nothing when it was not.
absl::StatusOr<std::optional<ModelConfig::Routing::Shadow>> MakeShadow(
    std::string_view file, const Written::Shadow& written) {
  if (written == Written::Shadow()) return std::nullopt;
  if (!written.precision || !written.percent) {
    return InvalidArgument("{}: routing.shadow: {} is missing", file,
                           written.precision ? "percent" : "precision");
  }
  ModelConfig::Routing::Shadow shadow;
  shadow.precision = *written.precision;
  shadow.against = written.against;
  shadow.percent = *written.percent;
  shadow.max_queue_requests = written.max_queue_requests.value_or(shadow.max_queue_requests);
  shadow.max_queue_bytes = written.max_queue_bytes.value_or(shadow.max_queue_bytes);
  return shadow;
}

/// routing.ramp as it was written; nothing when it was not.
std::optional<ModelConfig::Routing::Ramp> MakeRamp(const ModelConfig::Routing::Ramp& written) {
  if (written == Written().ramp) return std::nullopt;
  ModelConfig::Routing::Ramp ramp;
  ramp.precision = written.precision;
  ramp.version = written.version;
  if (!written.steps.empty()) ramp.steps = written.steps;
  if (written.hold_seconds > 0) ramp.hold_seconds = written.hold_seconds;
  return ramp;
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
  OCTET_RETURN_IF_ERROR(CheckVersionShares(file, config));
  OCTET_RETURN_IF_ERROR(CheckRamp(file, config));
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
  for (const auto& [name, weight] : written.split) {
    config.routing.split[*ParsePrecision(name)] = weight;
  }
  for (const std::string& name : written.precisions) {
    config.precisions.push_back(*ParsePrecision(name));
  }
  OCTET_ASSIGN_OR_RETURN(config.routing.shadow, MakeShadow(file, written.shadow));
  config.routing.ramp = MakeRamp(written.ramp);
  OCTET_ASSIGN_OR_RETURN(config.capture, MakeCapture(file, written.capture));
  if (!(written.pipeline == ModelConfig::Pipeline())) {
    OCTET_RETURN_IF_ERROR(CheckPipeline(file, written.pipeline));
    config.pipeline = std::move(written.pipeline);
  }
  for (const auto& [name, guard] : written.guard) {
    config.routing.guard[*ParsePrecision(name)] = guard;
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
