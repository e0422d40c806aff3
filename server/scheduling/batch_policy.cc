#include "server/scheduling/batch_policy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

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

/// Length of the longest prefix of `take` whose batch ends before every deadline in it; at least 1.
size_t PrefixInTime(std::span<const QueuedFacts> queue, std::span<const size_t> take,
                    int64_t max_batch, const BatchCurve& curve, TimePoint now) {
  TimePoint deadline = kNever;
  int64_t rows = 0;
  for (size_t i = 0; i < take.size(); ++i) {
    deadline = std::min(deadline, queue[take[i]].deadline);
    rows += queue[take[i]].rows;
    if (now + curve.TimeOf(BucketFor(rows, max_batch)) > deadline) return std::max<size_t>(i, 1);
  }
  return take.size();
}

Nanoseconds AimOf(const BatchLimits& limits) {
  return Nanoseconds(static_cast<int64_t>(kAim * static_cast<double>(limits.p99_target.count())));
}

/// Rows that a batch of `rows` gets through in a nanosecond, its way to a worker and back included.
double RateOf(int64_t rows, int64_t max_batch, const BatchCurve& curve) {
  const Nanoseconds time = curve.TimeOf(BucketFor(rows, max_batch)) + kHandOver;
  return static_cast<double>(rows) / static_cast<double>(time.count());
}

/// Rows that each worker gets when they share what waits, rounded up. `queue`: not empty.
int64_t ShareOf(std::span<const QueuedFacts> queue, const BatchLimits& limits, int64_t workers) {
  int64_t rows = 0;
  for (const QueuedFacts& facts : queue) {
    rows += facts.rows;
    if (rows >= limits.max_batch * workers) return limits.max_batch;
  }
  return (rows + workers - 1) / workers;
}

/// Length of the prefix of `take` with the smallest compiled size that gets through nearly as many rows a second as the
/// fastest one, of those that keep to the target if any does; beyond a worker's share of what waits it is a faster one that
/// counts.
size_t FastestPrefix(std::span<const QueuedFacts> queue, std::span<const size_t> take,
                     const BatchLimits& limits, const QueueMeasurements& measured, TimePoint now) {
  constexpr double kNearly = 0.97;
  constexpr double kGainBeyondShare = 1.2;
  const BatchCurve& curve = measured.curve;
  // What a worker left of a batch that has waited to become full would wait anew.
  const bool waits =
      limits.max_delay > Nanoseconds::zero() || limits.p99_target > Nanoseconds::zero();
  const int64_t share = waits
                            ? limits.max_batch
                            : BucketFor(ShareOf(queue, limits, measured.workers), limits.max_batch);
  /// The longest prefix of a compiled size: who fits into it costs nothing.
  struct Candidate {
    int64_t size = 0;
    size_t length = 0;
    double rate = 0;  ///< Rows in a nanosecond, as far as they count.
  };
  std::array<Candidate, kBatchSizes + 1> candidates;  // the first one is none
  size_t last = 0;
  double fastest = 0;
  bool aims = limits.p99_target > Nanoseconds::zero();
  TimePoint end = kNever;
  int64_t rows = 0;
  for (size_t i = 0; i < take.size(); ++i) {
    const QueuedFacts& facts = queue[take[i]];
    const TimePoint aim = facts.queued + AimOf(limits);
    const bool late = now + curve.TimeOf(BucketFor(facts.rows, limits.max_batch)) > aim;
    if (i == 0 && late) aims = false;
    // One of a later level that is late whatever the size does not keep the others from sharing a batch.
    if (!late) end = std::min(end, aim);
    rows += facts.rows;
    const int64_t size = BucketFor(rows, limits.max_batch);
    // Each prefix takes at least as long as those in it, and begins as early.
    if (aims && now + curve.TimeOf(size) > end) break;
    if (size != candidates[last].size) ++last;
    const double rate = RateOf(rows, limits.max_batch, curve);
    candidates[last] = {size, i + 1, size <= share ? rate : rate / kGainBeyondShare};
    fastest = std::max(fastest, candidates[last].rate);
  }
  const auto nearly = [&](const Candidate& candidate) {
    return candidate.rate >= kNearly * fastest;
  };
  return std::ranges::find_if(candidates, nearly)->length;
}

/// When the batch should start although it is not full: at the end of its delay, or at once where a batch that begins then
/// with one more request would end behind a deadline in it.
TimePoint StartTime(std::span<const QueuedFacts> queue, std::span<const size_t> take,
                    const BatchLimits& limits, const BatchCurve& curve) {
  TimePoint start = kNever;
  TimePoint deadline = kNever;
  int64_t rows = 1;
  for (const size_t i : take) {
    start = std::min(start, queue[i].queued + limits.max_delay);
    deadline = std::min(deadline, queue[i].deadline);
    rows += queue[i].rows;
  }
  const Nanoseconds time = curve.TimeOf(BucketFor(rows, limits.max_batch));
  return deadline - start <= time ? TimePoint::min() : start;
}

/// The same with a target: when the next size is expected to be full, if that is worth it and in time.
TimePoint StartForTarget(std::span<const QueuedFacts> queue, std::span<const size_t> take,
                         const BatchLimits& limits, const QueueMeasurements& measured) {
  constexpr double kLeastGain = 1.1;
  if (take.size() < 2 || !measured.curve.known() || measured.arrival == Nanoseconds::zero()) {
    return TimePoint::min();
  }
  int64_t rows = 0;
  TimePoint newest = TimePoint::min();
  TimePoint end = kNever;
  for (const size_t i : take) {
    rows += queue[i].rows;
    newest = std::max(newest, queue[i].queued);
    end = std::min({end, queue[i].queued + AimOf(limits), queue[i].deadline});
  }
  const int64_t next = BucketFor(rows + 1, limits.max_batch);
  const TimePoint full = newest + measured.arrival * (next - rows);
  const bool gains = RateOf(next, limits.max_batch, measured.curve) >=
                     kLeastGain * RateOf(rows, limits.max_batch, measured.curve);
  return gains && full + measured.curve.TimeOf(next) <= end ? full : TimePoint::min();
}

/// A batch of its own would end behind its deadline.
bool IsHopeless(const QueuedFacts& facts, int64_t max_batch, const BatchCurve& curve,
                TimePoint now) {
  if (facts.own_time > Nanoseconds::zero()) return facts.deadline - now < facts.own_time;
  return curve.fresh && facts.deadline - now < curve.TimeOf(BucketFor(facts.rows, max_batch));
}

}  // namespace

TimePoint QueuedFacts::due() const { return std::min(deadline, queued + kPatience); }

TimePoint QueuedFacts::turn() const { return due() + (level - 1) * kPatience; }

bool RunsBefore(const QueuedFacts& a, const QueuedFacts& b) {
  return std::pair(a.turn(), a.sequence) < std::pair(b.turn(), b.sequence);
}

bool IsDueBefore(const QueuedFacts& a, const QueuedFacts& b) {
  return std::pair(a.due(), a.sequence) < std::pair(b.due(), b.sequence);
}

int64_t BucketFor(int64_t rows, int64_t max_batch) {
  const auto power =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(rows, 1))));
  return std::min(power, std::max(rows, max_batch));
}

Nanoseconds ExpectedTime(const ArrivalFacts& arrival, const BatchLimits& limits,
                         const QueueMeasurements& measured) {
  constexpr double kMost = 1e17;  // three years: sums with a time do not overflow
  const int64_t most = limits.max_batch;
  const bool own = arrival.own_time > Nanoseconds::zero();
  const Nanoseconds service = own || measured.service > Nanoseconds::zero()
                                  ? measured.service
                                  : measured.curve.TimeOf(BucketFor(most, most)) / most;
  const double wait =
      static_cast<double>(arrival.rows_ahead) * static_cast<double>(service.count());
  return Nanoseconds(static_cast<int64_t>(std::min(wait, kMost))) +
         (own ? arrival.own_time
              : measured.curve.TimeOf(BucketFor(arrival.rows, limits.max_batch)));
}

Nanoseconds LeastTime(const ArrivalFacts& arrival, const BatchLimits& limits,
                      const QueueMeasurements& measured) {
  const bool own = arrival.own_time > Nanoseconds::zero();
  return own ? arrival.own_time : ExpectedTime(arrival, limits, measured);
}

std::optional<Refusal> DecideAdmission(const ArrivalFacts& arrival, const BatchLimits& limits,
                                       const QueueMeasurements& measured, TimePoint now) {
  const bool own = arrival.own_time > Nanoseconds::zero();
  if (!measured.curve.known() && !own) return std::nullopt;
  const Nanoseconds least = LeastTime(arrival, limits, measured);
  if ((measured.curve.fresh || own) && arrival.deadline - now < least) return Refusal::kDeadline;
  const bool has_target = limits.p99_target > Nanoseconds::zero();
  const bool others = has_target && arrival.rows_ahead > 0;
  if (others && ExpectedTime(arrival, limits, measured) > AimOf(limits)) return Refusal::kTarget;
  return std::nullopt;
}

BatchDecision DecideBatch(std::span<const QueuedFacts> queue, const BatchLimits& limits,
                          const QueueMeasurements& measured, TimePoint now, bool flush) {
  BatchDecision decision;
  int64_t rows = 0;
  for (size_t i = 0; i < queue.size() && rows < limits.max_batch; ++i) {
    const QueuedFacts& facts = queue[i];
    if (facts.is_cancelled()) {
      decision.cancelled.push_back(i);
    } else if (facts.deadline <= now) {
      decision.expired.push_back(i);
    } else if (IsHopeless(facts, limits.max_batch, measured.curve, now)) {
      decision.hopeless.push_back(i);
    } else if (decision.take.empty() || (facts.shape_class == queue[decision.take[0]].shape_class &&
                                         rows + facts.rows <= limits.max_batch)) {
      decision.take.push_back(i);
      rows += facts.rows;
    }
  }
  if (decision.take.empty()) return decision;
  const bool has_target = limits.p99_target > Nanoseconds::zero();
  if (rows < limits.max_batch && !flush && (has_target || limits.max_delay > Nanoseconds::zero())) {
    const TimePoint start = has_target ? StartForTarget(queue, decision.take, limits, measured)
                                       : StartTime(queue, decision.take, limits, measured.curve);
    if (now < start) {
      decision.wait_until = start;
      decision.take.clear();
      return decision;
    }
  }
  std::span<const size_t> take = decision.take;
  const BatchCurve& curve = measured.curve;
  if (curve.fresh) take = take.first(PrefixInTime(queue, take, limits.max_batch, curve, now));
  decision.take.resize(curve.known() ? FastestPrefix(queue, take, limits, measured, now)
                                     : FullestPrefix(queue, take, limits.max_batch));
  return decision;
}

}  // namespace octet
