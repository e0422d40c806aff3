// From cells to Prometheus' data model. Included by this folder alone.
#pragma once

#include <map>
#include <memory>
#include <utility>
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
  ServerMetrics& server() { return server_; }

 private:
  /// The variants that somebody holds. Forgets the others.
  std::vector<std::pair<VariantLabels, std::shared_ptr<const VariantMetrics>>> Live() const;

  const BuildInfo build_;
  ServerMetrics server_;
  mutable absl::Mutex mutex_;
  mutable std::map<VariantLabels, std::weak_ptr<VariantMetrics>> variants_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
