// A version of a model as requests see it: immutable, replaced as a whole when anything about it changes.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "engine/engine.h"
#include "server/capture/request_capture.h"
#include "server/metrics/registry.h"
#include "server/repository/experiment.h"
#include "server/repository/latency_limit.h"
#include "server/repository/served_ramp.h"
#include "server/repository/traffic_events.h"
#include "server/repository/variant_guard.h"
#include "server/repository/version_statistics.h"
#include "server/routing/routing.h"
#include "server/scheduling/variant_queue.h"
#include "server/sequence/sequence_store.h"

namespace octet {

class VariantObserver;

/// One precision of a version. `queue` is null while the variant cannot answer; `reason` says why.
/// With a queue the reason is empty, or why a changed file was not taken: the one before answers.
struct ServedVariant {
  Precision precision = Precision::kFp32;
  std::shared_ptr<VariantQueue> queue;
  std::shared_ptr<VariantObserver> observer;  ///< The queue's; null without one.
  std::shared_ptr<VariantMetrics> metrics;
  std::shared_ptr<VariantGuard> guard;          ///< Null without rules, and while it cannot answer.
  std::shared_ptr<LatencyLimit> latency_limit;  ///< Of the guard; null without its p99_us.
  std::shared_ptr<SequenceMetrics> sequence_metrics;  ///< Null without state.
  std::optional<Nanoseconds> run_time;  ///< Of one row alone, measured when it was loaded.
  bool held_to_golden = false;          ///< As LoadedVariant::held_to_golden.
  Certificate certificate;  ///< Of the plan for one row; empty while not ready or when shapes vary.
  std::string reason;

  bool ready() const { return queue != nullptr; }
};

/// Where the copies of a version's requests go, as its model.yaml says under routing.shadow. What is
/// not atomic does not change.
struct ServedShadow {
  std::string name;                     ///< "resnet/1/int8", for messages.
  std::shared_ptr<VariantQueue> queue;  ///< Of copies alone; null while the variant cannot answer.
  /// By the precision that answered: those that are compared.
  std::map<Precision, std::shared_ptr<ShadowMetrics>> pairs;
  /// The version was taken out or replaced: what still waits is dropped.
  std::atomic<bool> retired{false};
  std::atomic<bool> failure_logged{false};  ///< The first failed copy is an event, all are counted.
};

struct Pipeline;

/// What makes a version's requests parts of sequences. Immutable but for the store, which all versions of the model share.
struct ServedSequences {
  std::shared_ptr<SequenceStore> store;
  std::shared_ptr<const StateLayout> layout;
  std::vector<InputRecipe> recipes;  ///< Of layout->clients.
  ModelConfig::Sequences bounds;
};

/// What requests for a version need, found with one look-up. Immutable: who holds one may go on
/// using it after a reload or an unload; its queues stay valid until the last holder is gone.
struct ModelVersion {
  std::string model;
  int64_t number = 0;
  std::string version;  ///< `number` as text, as answers echo it.
  /// Of its ready variants, which agree; else of none: empty. Without its states.
  Signature signature;
  ServerConfig::Batching batching;
  ModelConfig::Versions policy = {.latest = 1};  ///< Of the model: VersionPolicy.
  std::map<std::string, WireMapping> wire;       ///< By input name.
  std::vector<std::string> labels;               ///< Of the classes, by index; empty when unknown.
  ModelConfig::Routing routing;
  RouteTable routes;
  std::vector<ServedVariant> variants;               ///< In the order of Precision.
  std::shared_ptr<ServedShadow> shadow;              ///< Null without routing.shadow.
  std::shared_ptr<RequestCapture> capture;           ///< Null without capture.
  std::shared_ptr<const ServedSequences> sequences;  ///< Null without state.
  std::shared_ptr<ServedRamp> ramp;                  ///< Null without one.
  std::shared_ptr<TrafficEvents> events;             ///< Of the model.
  std::shared_ptr<VersionStatistics> statistics;
  std::shared_ptr<const Experiment> experiment;
  std::shared_ptr<const Pipeline> pipeline;  ///< Null unless it is made of other models.

  /// Null when the version has no such precision.
  const ServedVariant* Find(Precision precision) const;
  /// True when at least one variant answers, or the pipeline.
  bool ready() const;
};

/// Where a sequence lives that `route` was chosen for. Requires: sequences, and the route's precision is ready.
SequenceHome HomeOf(const std::shared_ptr<const ModelVersion>& version, const Route& route);

}  // namespace octet
