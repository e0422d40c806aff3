// A repository without files: its models are those that a test puts in.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "engine/tensor/status.h"
#include "server/repository/model_repository.h"
#include "server/repository/version_builder.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_request.h"

namespace octet {

/// Thread-safety: safe.
class FakeRepository final : public ModelRepository {
 public:
  explicit FakeRepository(MetricsRegistry& metrics) : metrics_(metrics) {}

  std::function<absl::Status(std::string_view model)> on_load;  ///< What Load does and answers.
  std::vector<VersionExperimentFacts>
      splits;  ///< What VersionExperiments answers; set it before others ask.
  std::atomic<bool> ready{true};
  std::atomic<int> polls{0};
  size_t max_queue_bytes = size_t{1} << 30;  ///< Of the variants that Make makes.
  PriorityLevels levels;                     ///< Likewise.

  /// A version whose variants are `models`, each with a queue of its own; Put it in when it is complete.
  std::shared_ptr<ModelVersion> Make(
      const std::string& name, int64_t number,
      const std::map<Precision, std::shared_ptr<const Model>>& models,
      std::map<std::string, WireMapping> wire = {}, ModelConfig::Routing routing = {},
      size_t max_queue_requests = 100) {
    auto version = std::make_shared<ModelVersion>();
    version->model = name;
    version->number = number;
    version->version = std::to_string(number);
    version->signature = models.begin()->second->signature();
    version->wire = std::move(wire);
    version->routing = routing;
    version->statistics = std::make_shared<VersionStatistics>();
    version->events = std::make_shared<TrafficEvents>();
    for (const auto& [precision, model] : models) {
      ServedVariant variant;
      variant.precision = precision;
      variant.metrics =
          metrics_.ForVariant({name, version->version, std::string(PrecisionName(precision))});
      variant.metrics->resident_weight_bytes.Set(1000);
      variant.queue =
          std::make_shared<VariantQueue>(Target(*version, precision, model, max_queue_requests));
      version->variants.push_back(std::move(variant));
    }
    version->shadow = MakeShadow(*version, metrics_);
    AddGuards(*version);
    version->routes = MakeRoutes(*version);
    version->experiment = std::make_shared<const Experiment>(*version);
    return version;
  }

  void Put(std::shared_ptr<const ModelVersion> version) {
    absl::MutexLock lock(&mutex_);
    versions_[version->model][version->number] = std::move(version);
  }
  /// The model exists and cannot answer.
  void Break(const std::string& name, std::string reason) {
    absl::MutexLock lock(&mutex_);
    versions_.erase(name);
    broken_[name] = std::move(reason);
  }
  const std::shared_ptr<CountingObserver>& observer() const { return observer_; }

  absl::StatusOr<std::shared_ptr<const ModelVersion>> Find(
      std::string_view model, std::string_view version) const override {
    OCTET_ASSIGN_OR_RETURN(const auto versions, List(model, version));
    return versions.back();
  }

  absl::StatusOr<std::shared_ptr<const ModelVersion>> FindShare(std::string_view model,
                                                                const RouteFacts&) const override {
    return Find(model, "");
  }

  absl::StatusOr<std::vector<std::shared_ptr<const ModelVersion>>> List(
      std::string_view model, std::string_view version) const override {
    absl::MutexLock lock(&mutex_);
    std::vector<std::shared_ptr<const ModelVersion>> found;
    for (const auto& [name, numbers] : versions_) {
      if (!model.empty() && name != model) continue;
      for (const auto& [number, entry] : numbers) {
        const bool any = version.empty() || ParsePrecision(version);
        if (any || entry->version == version) found.push_back(entry);
      }
    }
    const auto broken = broken_.find(std::string(model));
    if (broken != broken_.end())
      return MakeError(absl::StatusCode::kUnavailable, "{}", broken->second);
    if (found.empty()) return NotFound("Request for unknown model: \"{}\"", model);
    return found;
  }

  std::vector<VersionExperimentFacts> VersionExperiments(std::string_view) const override {
    return splits;
  }

  std::vector<IndexEntry> Index(bool ready_only) const override {
    absl::MutexLock lock(&mutex_);
    std::vector<IndexEntry> entries;
    for (const auto& [name, numbers] : versions_) {
      for (const auto& [number, entry] : numbers) {
        entries.push_back({name, entry->version, VersionState::kReady, ""});
      }
    }
    for (const auto& [name, reason] : broken_) {
      if (!ready_only) entries.push_back({name, "1", VersionState::kUnavailable, reason});
    }
    return entries;
  }

  absl::Status Load(std::string_view model) override {
    return on_load ? on_load(model) : absl::OkStatus();
  }
  absl::Status Unload(std::string_view model) override {
    Break(std::string(model), "unloaded");
    return absl::OkStatus();
  }
  void Poll(const std::stop_token&) override { ++polls; }
  absl::Status Reload(const std::stop_token&) override { return absl::OkStatus(); }
  void Retry(const std::stop_token&) override {}
  bool Ready() const override { return ready; }
  absl::Status CheckAll() const override { return absl::OkStatus(); }

 private:
  ExecutionTarget Target(const ModelVersion& version, Precision precision,
                         std::shared_ptr<const Model> model, size_t max_queue_requests) const {
    ExecutionTarget target;
    target.name = Format("{}/{}/{}", version.model, version.version, PrecisionName(precision));
    for (const TensorInfo& input : model->signature().inputs) {
      const auto mapping = version.wire.find(input.name);
      target.recipes.push_back(
          *InputRecipe::Make(input, mapping == version.wire.end() ? nullptr : &mapping->second));
    }
    target.batch.max_batch = model->signature().batches ? version.batching.max_batch : 1;
    target.model = std::move(model);
    target.max_queue_requests = max_queue_requests;
    target.max_queue_bytes = max_queue_bytes;
    target.levels = levels;
    target.observer = observer_;
    return target;
  }

  MetricsRegistry& metrics_;
  const std::shared_ptr<CountingObserver> observer_ = std::make_shared<CountingObserver>();
  mutable absl::Mutex mutex_;
  std::map<std::string, std::map<int64_t, std::shared_ptr<const ModelVersion>>> versions_
      ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> broken_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
