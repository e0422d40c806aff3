#include "config/routing_config.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

namespace octet {
namespace {

/// What stands for the fastest precision.
constexpr std::string_view kFastest = "auto";

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
  return GuardKey(guards, [=](Guard& guard) { return Number(&(guard.*limit), min, max); });
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
std::vector<YamlKey> GuardKeys(WrittenRouting& w) {
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
std::vector<YamlKey> RampKeys(WrittenRouting& w) {
  return {
      {"routing.ramp.precision",
       Choice(PrecisionNames(),
              [&w](const std::string& name) { w.ramp.precision = ParsePrecision(name); }),
       "", "precision that comes in"},
      {"routing.ramp.version", Integer(&w.ramp.version, 1, INT64_MAX), "version",
       "version that comes in"},
      {"routing.ramp.steps", NotEmpty(NumberList(&w.ramp.steps)), "%",
       "rising shares of the traffic"},
      {"routing.ramp.hold_seconds", Integer(&w.ramp.hold_seconds, 1, 10'000'000), "s",
       "of each step, at least"},
  };
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

absl::Status CheckPrecisions(const std::string& file, const ModelConfig& config) {
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
    std::string_view file, const WrittenRouting::Shadow& written) {
  if (written == WrittenRouting::Shadow()) return std::nullopt;
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
  if (written == WrittenRouting().ramp) return std::nullopt;
  ModelConfig::Routing::Ramp ramp;
  ramp.precision = written.precision;
  ramp.version = written.version;
  if (!written.steps.empty()) ramp.steps = written.steps;
  if (written.hold_seconds > 0) ramp.hold_seconds = written.hold_seconds;
  return ramp;
}

}  // namespace

std::vector<std::string> PrecisionNames() {
  std::vector<std::string> names;
  for (const Precision precision : kAllPrecisions) names.emplace_back(PrecisionName(precision));
  return names;
}

absl::Status CheckPrecision(const std::string& name) {
  if (ParsePrecision(name)) return absl::OkStatus();
  std::string list;
  for (const std::string& known : PrecisionNames()) list += (list.empty() ? "" : ", ") + known;
  return InvalidArgument("expected one of {}; got \"{}\"", list, name);
}

std::vector<YamlKey> RoutingKeys(ModelConfig::Routing* routing, WrittenRouting* written) {
  ModelConfig::Routing& r = *routing;
  WrittenRouting& w = *written;
  const auto default_precision = [&r](const std::string& name) {
    r.default_precision = ParsePrecision(name);
    r.default_is_fastest = name == kFastest;
  };
  std::vector<std::string> defaults = PrecisionNames();
  defaults.emplace_back(kFastest);
  std::vector<YamlKey> keys = {
      {"routing.default", Choice(std::move(defaults), default_precision), "",
       "precision that answers when neither the request nor a split says; auto = the fastest on "
       "this machine of those that golden.npz holds to their answers"},
      {"routing.split.*", SplitWeight(&w.split), "weight",
       "share of the traffic of this precision"},
      {"routing.versions.*", VersionWeight(&r.versions), "weight",
       "share of this version among requests that name none"},
      {"routing.sticky.parameter", Text(&r.sticky.parameter), "",
       "request parameter whose value keeps to one precision"},
      {"routing.sticky.metadata", Text(&r.sticky.metadata), "",
       "metadata key whose value keeps to one precision"},
      {"routing.sticky.salt", Text(&r.sticky.salt), "", "another salt draws the groups anew"},
      {"routing.shadow.precision", ShadowPrecision(&w.shadow.precision, &w.shadow.against), "",
       "precision that gets copies of answered requests, to be compared by; nobody hears its "
       "answers"},
      {"routing.shadow.against", ShadowPrecision(&w.shadow.against, &w.shadow.precision), "",
       "precision whose answers are compared; any other one when absent"},
      {"routing.shadow.percent", Number(&w.shadow.percent, 0, 100), "%",
       "share of those answers of which a copy is made"},
      {"routing.shadow.max_queue_requests", Integer(&w.shadow.max_queue_requests, 1, 1'000'000),
       "requests", "copies that wait (64 when absent); one more is dropped"},
      {"routing.shadow.max_queue_bytes", Integer(&w.shadow.max_queue_bytes, 1, INT64_MAX / 2),
       "bytes", "inputs and answers of copies that wait (64 MiB when absent); more is dropped"},
  };
  std::ranges::move(GuardKeys(w), std::back_inserter(keys));
  std::ranges::move(RampKeys(w), std::back_inserter(keys));
  return keys;
}

absl::Status TakeRouting(std::string_view file, const WrittenRouting& written,
                         ModelConfig::Routing* routing) {
  for (const auto& [name, weight] : written.split) routing->split[*ParsePrecision(name)] = weight;
  OCTET_ASSIGN_OR_RETURN(routing->shadow, MakeShadow(file, written.shadow));
  routing->ramp = MakeRamp(written.ramp);
  for (const auto& [name, guard] : written.guard) routing->guard[*ParsePrecision(name)] = guard;
  return absl::OkStatus();
}

absl::Status CheckRouting(const std::string& file, const ModelConfig& config) {
  OCTET_RETURN_IF_ERROR(CheckPrecisions(file, config));
  OCTET_RETURN_IF_ERROR(CheckVersionShares(file, config));
  return CheckRamp(file, config);
}

bool HasWeight(const ModelConfig::Routing& routing, Precision precision) {
  const auto weight = routing.split.find(precision);
  return weight != routing.split.end() && weight->second > 0;
}

absl::Status CheckShifts(const std::string& file, const ModelConfig::Routing& routing) {
  for (const auto& [precision, guard] : routing.guard) {
    if (guard.action != Guard::Action::kShift || HasWeight(routing, precision)) continue;
    return InvalidArgument(
        "{}: routing.guard.{}.action: shift lowers a weight, expected routing.split.{}", file,
        PrecisionName(precision), PrecisionName(precision));
  }
  return absl::OkStatus();
}

}  // namespace octet
