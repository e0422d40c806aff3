// Counts what happens to a variant's requests: for Prometheus and for the protocol's statistics.
#pragma once

#include <memory>
#include <utility>

#include "server/metrics/registry.h"
#include "server/repository/version_statistics.h"
#include "server/scheduling/queue_observer.h"

namespace octet {

/// Thread-safety: safe.
class VariantObserver final : public QueueObserver {
 public:
  VariantObserver(std::shared_ptr<VariantMetrics> metrics,
                  std::shared_ptr<VersionStatistics> statistics)
      : metrics_(std::move(metrics)), statistics_(std::move(statistics)) {}

  void OnQueued(size_t bytes) override;
  void OnDequeued(size_t bytes) override;
  void OnBatch(const BatchRecord& record) override;
  void OnFinished(absl::StatusCode code, int64_t rows, const RequestTimings& timings) override;

 private:
  const std::shared_ptr<VariantMetrics> metrics_;
  const std::shared_ptr<VersionStatistics> statistics_;
};

}  // namespace octet
