// Counts what happens to a variant's requests: for Prometheus and for the protocol's statistics.
#pragma once

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/metrics/registry.h"
#include "server/repository/latency_limit.h"
#include "server/repository/version_statistics.h"
#include "server/scheduling/queue_observer.h"

namespace octet {

/// Thread-safety: safe.
class VariantObserver final : public QueueObserver {
 public:
  /// `limit`: what its guard holds its requests' times against; null: nothing.
  VariantObserver(std::shared_ptr<VariantMetrics> metrics,
                  std::shared_ptr<VersionStatistics> statistics,
                  std::shared_ptr<LatencyLimit> limit = nullptr)
      : metrics_(std::move(metrics)),
        statistics_(std::move(statistics)),
        limit_(std::move(limit)) {}

  void OnQueued(size_t bytes) override;
  void OnDequeued(size_t bytes) override;
  void OnRefused(Refusal reason) override;
  void OnBatch(const BatchRecord& record) override;
  void OnFinished(absl::StatusCode code, int64_t rows, const RequestTimings& timings) override;

  /// Its queue gives way, be it to none or to another one that has these metrics, too: what was measured of its batches is
  /// forgotten, and those that it still runs show nothing of it.
  void Retire();

 private:
  const std::shared_ptr<VariantMetrics> metrics_;
  const std::shared_ptr<VersionStatistics> statistics_;
  const std::shared_ptr<LatencyLimit> limit_;
  absl::Mutex mutex_;  ///< Held while batch_time is set.
  bool retired_ ABSL_GUARDED_BY(mutex_) = false;
};

/// Counts what happens to a variant's shadow copies, where nothing of it is taken for a client's.
/// Thread-safety: safe.
class ShadowObserver final : public QueueObserver {
 public:
  explicit ShadowObserver(std::shared_ptr<VariantMetrics> metrics) : metrics_(std::move(metrics)) {}

  void OnQueued(size_t bytes) override;
  void OnDequeued(size_t bytes) override;
  void OnBatch(const BatchRecord& record) override;
  void OnRefused(Refusal) override {}
  /// Nothing: whoever made the copy counts what became of it.
  void OnFinished(absl::StatusCode, int64_t, const RequestTimings&) override {}

 private:
  const std::shared_ptr<VariantMetrics> metrics_;
};

}  // namespace octet
