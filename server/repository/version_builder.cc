#include "server/repository/version_builder.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "engine/tensor/status.h"
#include "server/repository/variant_observer.h"
#include "server/routing/shadow.h"

namespace octet {
namespace {

/// The signature that the version answers by; nullopt when nothing is loaded. It batches when all precisions that share it do.
std::optional<Signature> ReferenceSignature(const std::map<Precision, VariantState>& variants) {
  std::optional<Signature> reference;
  for (const auto& [unused, variant] : variants) {
    if (variant.loaded.model == nullptr) continue;
    const Signature& signature = variant.loaded.model->signature();
    if (!reference) reference = signature;
    if (!CheckSameSignature(*reference, signature).ok()) continue;  // Nobody is answered by it.
    reference->batches = reference->batches && signature.batches;
  }
  return reference;
}

absl::StatusOr<std::vector<InputRecipe>> MakeRecipes(
    const Signature& signature, const std::map<std::string, WireMapping>& mappings) {
  std::vector<InputRecipe> recipes;
  size_t used = 0;
  std::string names;
  for (const TensorInfo& input : signature.inputs) {
    const auto mapping = mappings.find(input.name);
    used += mapping == mappings.end() ? 0 : 1;
    names += (names.empty() ? "" : ", ") + input.name;
    OCTET_ASSIGN_OR_RETURN(
        InputRecipe recipe,
        InputRecipe::Make(input, mapping == mappings.end() ? nullptr : &mapping->second));
    recipes.push_back(std::move(recipe));
  }
  if (used == mappings.size()) return recipes;
  for (const auto& [name, unused] : mappings) {
    const auto same = [&](const TensorInfo& input) { return input.name == name; };
    if (std::ranges::any_of(signature.inputs, same)) continue;
    return InvalidArgument("inputs.{}.wire: the model has no such input, it has {}", name, names);
  }
  return recipes;
}

std::shared_ptr<VariantQueue> MakeQueue(const VersionParts& parts, ServedVariant& variant,
                                        const LoadedVariant& loaded, bool batches,
                                        std::vector<InputRecipe> recipes) {
  ExecutionTarget target;
  target.name = Format("{}/{}/{}", parts.model, parts.number, PrecisionName(variant.precision));
  target.model = loaded.model;
  target.alone = !batches;
  target.steady = loaded.steady;
  target.recipes = std::move(recipes);
  target.batch = {.max_batch = batches ? loaded.max_batch : 1,
                  .max_delay = std::chrono::microseconds(parts.batching.max_queue_delay_us),
                  .p99_target = Nanoseconds(std::llround(parts.batching.p99_target_ms * 1e6))};
  target.max_queue_requests = static_cast<size_t>(parts.batching.max_queue_requests);
  target.max_queue_bytes = static_cast<size_t>(parts.batching.max_queue_bytes);
  target.levels = {.count = parts.batching.priority_levels,
                   .default_level = parts.batching.DefaultPriority()};
  variant.observer =
      std::make_shared<VariantObserver>(variant.metrics, parts.statistics, variant.latency_limit);
  target.observer = variant.observer;
  auto queue = std::make_shared<VariantQueue>(std::move(target));
  if (variant.run_time) queue->times().Seed(*variant.run_time);
  return queue;
}

/// Why a variant that is ready is not considered where the default is the fastest; "" of one that is. Besides `exact`, which the
/// others are held to, only those that an archive of answers was held against.
std::string_view WhyNoCandidate(const ModelVersion& version, const ServedVariant& variant,
                                std::optional<Precision> exact) {
  if (!variant.run_time) return "its shapes are open, it is not measured: not a candidate";
  if (version.ramp != nullptr && version.ramp->rules().precision == variant.precision) {
    return "comes in by the ramp: not a candidate";
  }
  if (variant.held_to_golden || variant.precision == exact) return "";
  return "no golden.npz: not a candidate";
}

/// The candidate that takes the least time for one row; nullopt of none.
std::optional<Precision> FastestOf(const ModelVersion& version, std::optional<Precision> exact) {
  const ServedVariant* fastest = nullptr;
  for (const ServedVariant& variant : version.variants) {
    if (!variant.ready() || !WhyNoCandidate(version, variant, exact).empty()) continue;
    if (fastest == nullptr || *variant.run_time < *fastest->run_time) fastest = &variant;
  }
  return fastest == nullptr ? std::nullopt : std::optional(fastest->precision);
}

/// The one that would be the default if it were not the fastest.
std::optional<Precision> ExactOf(const ModelVersion& version) {
  RouteTable table = version.routes;
  table.default_precision = version.routing.default_precision;
  return DefaultPrecision(table);
}

/// "default int8: fp32 takes 0.910 ms, keeps to golden.npz; int8 takes ..."; of a version whose default is the fastest.
std::string ReasonOfDefault(const ModelVersion& version) {
  const auto chosen = DefaultPrecision(version.routes);
  if (!chosen) return "";
  const auto exact = ExactOf(version);
  std::string reason = Format("default {}:", PrecisionName(*chosen));
  std::string_view separator = " ";
  for (const ServedVariant& variant : version.variants) {
    if (!variant.ready()) continue;
    reason += Format("{}{}", separator, PrecisionName(variant.precision));
    if (variant.run_time) {
      reason += Format(" takes {:.3f} ms",
                       std::chrono::duration<double, std::milli>(*variant.run_time).count());
    }
    const std::string_view why = WhyNoCandidate(version, variant, exact);
    reason += Format(", {}", !why.empty()             ? why
                             : variant.held_to_golden ? "keeps to golden.npz"
                                                      : "the most exact one");
    separator = "; ";
  }
  return reason;
}

/// Fills in `served`, of a model that is loaded: a queue, or the reason why there is none.
absl::Status AddQueue(const VersionParts& parts, const VariantState& state,
                      const Signature& reference, ServedVariant& served) {
  const Signature& signature = state.loaded.model->signature();
  if (const absl::Status same = CheckSameSignature(reference, signature); !same.ok()) {
    served.reason = Format("signature differs from the other precisions': {}", Message(same));
    return absl::OkStatus();
  }
  OCTET_ASSIGN_OR_RETURN(std::vector<InputRecipe> recipes,
                         MakeRecipes(signature, parts.config.wire));
  served.certificate = state.loaded.certificate;
  served.run_time = state.loaded.run_time;
  served.held_to_golden = state.loaded.held_to_golden;
  const auto guard = parts.config.routing.guard.find(served.precision);
  if (guard != parts.config.routing.guard.end() && guard->second.p99_us) {
    served.latency_limit = std::make_shared<LatencyLimit>(*guard->second.p99_us);
  }
  served.queue = MakeQueue(parts, served, state.loaded, reference.batches, std::move(recipes));
  return absl::OkStatus();
}

/// The rows that every variant takes: one that goes on after a failed load was compiled for another number than is asked for.
int MostRows(const ModelVersion& version, int asked) {
  std::optional<int64_t> least;
  for (const ServedVariant& variant : version.variants) {
    if (!variant.ready()) continue;
    const int64_t most = variant.queue->target().batch.max_batch;
    least = std::min(least.value_or(most), most);
  }
  return least && version.signature.batches ? static_cast<int>(*least) : asked;
}

/// What `capture` asks for: the one of the version before, when it fits; null when it asks for nothing.
absl::StatusOr<std::shared_ptr<RequestCapture>> MakeCapture(const VersionParts& parts,
                                                            const Signature& signature,
                                                            MetricsRegistry& metrics) {
  const std::optional<ModelConfig::Capture>& rule = parts.config.capture;
  if (!rule) return nullptr;
  if (parts.before != nullptr && parts.before->capture != nullptr &&
      parts.before->capture->Serves(signature, *rule)) {
    return parts.before->capture;
  }
  return RequestCapture::Make(
      {.model = parts.model, .version = parts.number, .path = parts.capture_path}, signature, *rule,
      metrics.ForCapture({parts.model, std::to_string(parts.number)}));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ModelVersion>> BuildVersion(const VersionParts& parts,
                                                                 MetricsRegistry& metrics) {
  auto version = std::make_shared<ModelVersion>();
  version->model = parts.model;
  version->number = parts.number;
  version->version = std::to_string(parts.number);
  version->batching = parts.batching;
  version->policy = VersionPolicy(parts.config);
  version->wire = parts.config.wire;
  version->labels = parts.labels;
  version->routing = parts.config.routing;
  version->statistics = parts.statistics;
  version->events = parts.events;
  version->ramp = parts.ramp;
  const std::optional<Signature> reference = ReferenceSignature(parts.variants);
  if (reference) version->signature = *reference;
  for (const auto& [precision, state] : parts.variants) {
    ServedVariant& served = version->variants.emplace_back();
    served.precision = precision;
    served.metrics =
        metrics.ForVariant({parts.model, version->version, std::string(PrecisionName(precision))});
    if (!state.status.ok()) served.reason = Message(state.status);
    if (state.loaded.model == nullptr) continue;
    OCTET_RETURN_IF_ERROR(AddQueue(parts, state, *reference, served));
  }
  version->batching.max_batch = MostRows(*version, parts.batching.max_batch);
  if (reference && parts.sequences != nullptr) {
    OCTET_RETURN_IF_ERROR(AddSequences(parts.config, parts.sequences, metrics, *version));
  }
  version->shadow = MakeShadow(*version, metrics);
  if (reference) {
    OCTET_ASSIGN_OR_RETURN(version->capture, MakeCapture(parts, *reference, metrics));
  }
  AddGuards(*version);
  version->routes = MakeRoutes(*version);
  const bool goes_on = parts.before != nullptr && IsSameExperiment(*parts.before, *version);
  version->experiment =
      goes_on ? parts.before->experiment : std::make_shared<const Experiment>(*version);
  return version;
}

absl::Status AddSequences(const ModelConfig& config, std::shared_ptr<SequenceStore> store,
                          MetricsRegistry& metrics, ModelVersion& version) {
  OCTET_ASSIGN_OR_RETURN(StateLayout layout, StateLayout::Make(version.signature, config.state));
  version.signature = layout.clients;
  auto sequences = std::make_shared<ServedSequences>();
  sequences->store = std::move(store);
  OCTET_ASSIGN_OR_RETURN(sequences->recipes, MakeRecipes(layout.clients, config.wire));
  sequences->layout = std::make_shared<const StateLayout>(std::move(layout));
  sequences->bounds = config.sequences;
  version.sequences = std::move(sequences);
  for (ServedVariant& variant : version.variants) {
    variant.sequence_metrics = metrics.ForSequences(VariantLabels{
        version.model, version.version, std::string(PrecisionName(variant.precision))});
  }
  return absl::OkStatus();
}

void AddGuards(ModelVersion& version) {
  for (const auto& [precision, rules] : version.routing.guard) {
    const auto variant = std::ranges::find(version.variants, precision, &ServedVariant::precision);
    if (variant == version.variants.end() || !variant->ready()) continue;
    std::vector<std::shared_ptr<ShadowMetrics>> pairs;
    if (version.shadow != nullptr && version.routing.shadow->precision == precision) {
      for (const auto& [unused, pair] : version.shadow->pairs) pairs.push_back(pair);
    }
    variant->guard =
        std::make_shared<VariantGuard>(variant->queue->target().name, rules, variant->metrics,
                                       std::move(pairs), variant->latency_limit, version.events);
  }
}

RouteTable MakeRoutes(const ModelVersion& version) {
  const std::shared_ptr<ServedRamp>& ramp = version.ramp;
  std::vector<RouteCandidate> candidates;
  for (const ServedVariant& variant : version.variants) {
    RouteCandidate& candidate = candidates.emplace_back();
    candidate.precision = variant.precision;
    candidate.ready = variant.ready();
    candidate.ramped = ramp != nullptr && variant.precision == ramp->rules().precision;
    if (variant.guard == nullptr) continue;
    candidate.guard_share = {variant.guard, &variant.guard->share()};
  }
  RouteTable table = MakeRouteTable(version.routing, std::move(candidates));
  if (ramp != nullptr && ramp->rules().precision) table.ramp_share = {ramp, &ramp->share()};
  if (version.routing.default_is_fastest) {
    table.default_precision = FastestOf(version, DefaultPrecision(table));
  }
  return table;
}

std::shared_ptr<ServedShadow> MakeShadow(const ModelVersion& version, MetricsRegistry& metrics) {
  if (!version.routing.shadow) return nullptr;
  const ModelConfig::Routing::Shadow& rule = *version.routing.shadow;
  const std::string precision(PrecisionName(rule.precision));
  auto shadow = std::make_shared<ServedShadow>();
  shadow->name = Format("{}/{}/{}", version.model, version.number, precision);
  for (const ServedVariant& variant : version.variants) {
    if (!Compares(rule, variant.precision)) continue;
    shadow->pairs[variant.precision] = metrics.ForShadow(
        {version.model, version.version, precision, std::string(PrecisionName(variant.precision))});
  }
  const ServedVariant* variant = version.Find(rule.precision);
  if (variant == nullptr || !variant->ready()) return shadow;
  ExecutionTarget target = variant->queue->target();
  target.batch.max_delay = Nanoseconds::zero();
  target.batch.p99_target = Nanoseconds::zero();
  target.max_queue_requests = static_cast<size_t>(rule.max_queue_requests);
  target.max_queue_bytes = static_cast<size_t>(rule.max_queue_bytes);
  target.background = true;
  target.observer = std::make_shared<ShadowObserver>(variant->metrics);
  shadow->queue = std::make_shared<VariantQueue>(std::move(target));
  return shadow;
}

std::string ReasonOf(const ModelVersion& version, const ServedVariant& variant) {
  std::string reason = variant.reason;
  if (!reason.empty() && variant.ready()) reason += " (the file before it answers)";
  if (!version.routing.default_is_fastest || !variant.ready()) return reason;
  const std::string_view why = WhyNoCandidate(version, variant, ExactOf(version));
  if (why.empty()) return reason;
  return Format("{}{}default: auto: {}", reason, reason.empty() ? "" : "; ", why);
}

std::string ReasonsOf(const ModelVersion& version) {
  std::string reasons;
  const auto add = [&reasons](std::string_view reason) {
    if (!reason.empty()) reasons += Format("{}{}", reasons.empty() ? "" : "; ", reason);
  };
  for (const ServedVariant& variant : version.variants) {
    if (variant.reason.empty()) continue;
    add(Format("{}: {}{}", PrecisionName(variant.precision), variant.reason,
               variant.ready() ? " (the file before it answers)" : ""));
  }
  if (version.routing.default_is_fastest) add(ReasonOfDefault(version));
  return reasons;
}

void ShowReady(const ModelVersion& version, const std::map<Precision, VariantState>& variants) {
  for (const ServedVariant& variant : version.variants) {
    VariantMetrics& metrics = *variant.metrics;
    metrics.ready.Set(variant.ready() ? 1 : 0);
    if (variant.guard == nullptr) metrics.guard_tripped.Set(0);
    const bool ramped =
        version.ramp != nullptr && version.ramp->Concerns(version.number, variant.precision);
    metrics.ramp_share.Set(ramped ? version.ramp->share().load() : 0);
    const LoadedVariant& loaded = variants.at(variant.precision).loaded;
    // Of open shapes there is no certificate: that it is not known is no share of 0, which an alert looks for.
    if (const auto ratio = Int8MacRatio(loaded.certificate)) {
      metrics.int8_mac_ratio.Set(*ratio);
    } else {
      metrics.int8_mac_ratio.Clear();
    }
    // Of one whose file has gone nothing is left.
    const size_t weights = loaded.model == nullptr ? 0 : loaded.model->resident_weight_bytes();
    metrics.resident_weight_bytes.Set(static_cast<double>(weights));
    metrics.load_seconds.Set(std::chrono::duration<double>(loaded.load_time).count());
  }
}

void ShowGone(const ModelVersion& version, const ModelVersion* next) {
  for (const ServedVariant& variant : version.variants) {
    if (variant.observer != nullptr) variant.observer->Retire();
    if (next != nullptr && next->Find(variant.precision) != nullptr) continue;
    variant.metrics->ready.Clear();
    variant.metrics->ramp_share.Set(0);
    variant.metrics->guard_tripped.Set(0);  // nobody looks at its guard any more
  }
}

}  // namespace octet
