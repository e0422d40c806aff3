#include "server/scheduling/batch_policy.h"

#include <algorithm>
#include <bit>

namespace octet {
namespace {

/// Length of the longest prefix of `take` that fills its compiled size to three quarters; of the
/// fullest one when none does.
size_t FullestPrefix(std::span<const QueuedFacts> queue, std::span<const size_t> take,
                     int64_t max_batch) {
  size_t best = take.size();
  double best_fill = 0;
  int64_t rows = 0;
  for (size_t i = 0; i < take.size(); ++i) {
    rows += queue[take[i]].rows;
    const double fill = static_cast<double>(rows) / static_cast<double>(BucketFor(rows, max_batch));
    if (fill >= std::min(best_fill, 0.75)) {
      best_fill = fill;
      best = i + 1;
    }
  }
  return best;
}

/// When the batch should start although it is not full.
TimePoint StartTime(std::span<const QueuedFacts> queue, std::span<const size_t> take,
                    Nanoseconds max_delay) {
  TimePoint start = kNever;
  TimePoint deadline = kNever;
  for (const size_t i : take) {
    start = std::min(start, queue[i].queued + max_delay);
    deadline = std::min(deadline, queue[i].deadline);
  }
  // Waiting past a deadline would only make it miss: start now.
  return deadline <= start ? TimePoint::min() : start;
}

}  // namespace

TimePoint QueuedFacts::due() const { return std::min(deadline, queued + kPatience); }

bool RunsBefore(const QueuedFacts& a, const QueuedFacts& b) {
  const TimePoint due_a = a.due();
  const TimePoint due_b = b.due();
  return due_a != due_b ? due_a < due_b : a.sequence < b.sequence;
}

int64_t BucketFor(int64_t rows, int64_t max_batch) {
  const auto power =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(rows, 1))));
  return std::min(power, std::max(rows, max_batch));
}

BatchDecision DecideBatch(std::span<const QueuedFacts> queue, const BatchLimits& limits,
                          TimePoint now, bool flush) {
  BatchDecision decision;
  int64_t rows = 0;
  for (size_t i = 0; i < queue.size() && rows < limits.max_batch; ++i) {
    const QueuedFacts& facts = queue[i];
    if (facts.is_cancelled()) {
      decision.cancelled.push_back(i);
    } else if (facts.deadline <= now) {
      decision.expired.push_back(i);
    } else if (decision.take.empty() || (facts.shape_class == queue[decision.take[0]].shape_class &&
                                         rows + facts.rows <= limits.max_batch)) {
      decision.take.push_back(i);
      rows += facts.rows;
    }
  }
  if (decision.take.empty() || rows >= limits.max_batch) return decision;
  const TimePoint start = StartTime(queue, decision.take, limits.max_delay);
  if (limits.max_delay > Nanoseconds::zero() && now < start && !flush) {
    decision.wait_until = start;
    decision.take.clear();
    return decision;
  }
  decision.take.resize(FullestPrefix(queue, decision.take, limits.max_batch));
  return decision;
}

}  // namespace octet
