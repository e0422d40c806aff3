// The cumulative counts of a model version that the protocol's ModelStatistics reports.
#pragma once

#include <cstdint>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/scheduling/queue_observer.h"

namespace octet {

/// How often something took how long, in total.
struct StatisticDuration {
  uint64_t count = 0;
  Nanoseconds total{0};
  void Add(Nanoseconds time) {
    ++count;
    total += time;
  }
};

/// A copy of a version's statistics, all its precisions together.
struct StatisticsSnapshot {
  /// The batches of one size.
  struct Batch {
    StatisticDuration compute_input;
    StatisticDuration compute_infer;
    StatisticDuration compute_output;
  };

  int64_t last_inference_ms = 0;  ///< Since the epoch; 0 = none yet.
  uint64_t inference_count = 0;   ///< Rows of successful requests.
  uint64_t execution_count = 0;   ///< Batches run.
  StatisticDuration success;      ///< Requests, arrival to answer.
  StatisticDuration fail;
  StatisticDuration queue;  ///< Of successful requests, as are the next three.
  StatisticDuration compute_input;
  StatisticDuration compute_infer;
  StatisticDuration compute_output;
  std::map<int64_t, Batch> batches;  ///< By rows.
};

/// Counts requests from the queue on, as Triton does: one that was refused before (no message of the protocol, wrong tensors, no such
/// model), alone or in a stream, is none of a version's, and in octet_unrouted_requests_total alone. Survives reloads of its
/// version, so that clients see sums that only grow.
/// Thread-safety: safe; one short lock per batch and one per request.
class VersionStatistics {
 public:
  void OnBatch(const BatchRecord& record);
  void OnFinished(absl::StatusCode code, int64_t rows, const RequestTimings& timings);
  StatisticsSnapshot Read() const;

 private:
  mutable absl::Mutex mutex_;
  StatisticsSnapshot counts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
