// From cells to Prometheus' data model. Included by this folder alone.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

#include "server/metrics/registry.h"

namespace octet {

/// What a scrape collects. Thread-safety: safe.
class MetricsRegistry::Collector final : public prometheus::Collectable {
 public:
  explicit Collector(BuildInfo build) : build_(std::move(build)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

  std::shared_ptr<VariantMetrics> ForVariant(const VariantLabels& labels);
  std::shared_ptr<ShadowMetrics> ForShadow(const ShadowLabels& labels);
  std::shared_ptr<CaptureMetrics> ForCapture(const CaptureLabels& labels);
  std::shared_ptr<SequenceMetrics> ForSequences(const VariantLabels& labels);
  std::shared_ptr<ModelSequenceMetrics> ForSequences(const ModelLabels& labels);
  ServerMetrics& server() { return server_; }

 private:
  template <typename Labels, typename Metrics>
  using Held = std::map<Labels, std::weak_ptr<Metrics>>;

  const BuildInfo build_;
  ServerMetrics server_;
  mutable absl::Mutex mutex_;
  mutable Held<VariantLabels, VariantMetrics> variants_ ABSL_GUARDED_BY(mutex_);
  mutable Held<ShadowLabels, ShadowMetrics> shadows_ ABSL_GUARDED_BY(mutex_);
  mutable Held<CaptureLabels, CaptureMetrics> captures_ ABSL_GUARDED_BY(mutex_);
  mutable Held<VariantLabels, SequenceMetrics> sequences_ ABSL_GUARDED_BY(mutex_);
  mutable Held<ModelLabels, ModelSequenceMetrics> model_sequences_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
