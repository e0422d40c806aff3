// Which of the waiting requests run next, together: a pure function of the queue and the time.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "server/scheduling/clock.h"

namespace octet {

/// What the policy knows of a waiting request.
struct QueuedFacts {
  uint64_t sequence = 0;  ///< Order of arrival.
  TimePoint queued;
  TimePoint deadline = kNever;
  int64_t rows = 1;
  size_t bytes = 0;
  uint32_t shape_class =
      0;  ///< Only requests of one class can share a batch: equal extents but the first.
  const std::atomic<bool>* cancelled = nullptr;

  /// When it should run at the latest: its deadline, or kPatience after its arrival if that is
  /// earlier, so that requests without a deadline are not starved by those that have one.
  TimePoint due() const;
  bool is_cancelled() const {
    return cancelled != nullptr && cancelled->load(std::memory_order_relaxed);
  }
};

inline constexpr std::chrono::seconds kPatience{1};

/// "Earlier": by due(), then by arrival. Queues are kept in this order.
bool RunsBefore(const QueuedFacts& a, const QueuedFacts& b);

struct BatchLimits {
  int64_t max_batch = 1;     ///< Rows; 1 for a model that does not batch.
  Nanoseconds max_delay{0};  ///< How long a batch that is not full may wait for more.
};

/// Indices into the queue, ascending. When `take` is empty and `wait_until` is set, ask again then.
struct BatchDecision {
  std::vector<size_t> take;
  std::vector<size_t> expired;    ///< Their deadline has passed: DEADLINE_EXCEEDED.
  std::vector<size_t> cancelled;  ///< Nobody waits for them: CANCELLED.
  std::optional<TimePoint> wait_until;
};

/// Smallest compiled batch size that holds `rows`: 1, 2, 4, 8, ... or max_batch.
int64_t BucketFor(int64_t rows, int64_t max_batch);

/// Decides on `queue`, which is ordered by RunsBefore.
/// - The most urgent live request leads; the others of its shape class follow in order as long as
///   they fit into max_batch. Expired and cancelled ones met on the way are dropped.
/// - A batch that would pad its compiled size by more than a quarter gives up its least urgent
///   requests if that makes it fuller: 5 rows run as 4 now and 1 next, not as 8.
/// - A batch that is not full waits until max_delay after the arrival of its oldest request, unless
///   a deadline comes first or `flush` is set.
BatchDecision DecideBatch(std::span<const QueuedFacts> queue, const BatchLimits& limits,
                          TimePoint now, bool flush);

}  // namespace octet
