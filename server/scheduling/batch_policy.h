// Which of the waiting requests run next, together: a pure function of the queue and the time.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "server/scheduling/batch_times.h"
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
      0;          ///< Only requests of one class can share a batch: equal extents but the first.
  int level = 1;  ///< Of priority; the first one goes first.
  /// What its run takes, where its shapes were measured by themselves; 0 = the curve says.
  Nanoseconds own_time{0};
  const std::atomic<bool>* cancelled = nullptr;

  /// When it should run at the latest: its deadline, or kPatience after its arrival if that is
  /// earlier, so that requests without a deadline are not starved by those that have one.
  TimePoint due() const;
  /// turn = due + (level - 1) * kPatience. Whoever waits has a due that is still to come, or has waited for kPatience, and
  /// whoever comes is due in kPatience at the latest. So a request goes before all of later levels but those that have waited
  /// for kPatience times the levels between them when it comes; and nobody is overtaken by one that comes later than that.
  TimePoint turn() const;
  bool is_cancelled() const {
    return cancelled != nullptr && cancelled->load(std::memory_order_relaxed);
  }
};

inline constexpr std::chrono::seconds kPatience{1};

/// By turn(), then by arrival. Queues are kept in this order.
bool RunsBefore(const QueuedFacts& a, const QueuedFacts& b);
/// By due(), then by arrival: between queues, as levels are for the requests of one queue alone.
bool IsDueBefore(const QueuedFacts& a, const QueuedFacts& b);

struct BatchLimits {
  int64_t max_batch = 1;     ///< Rows; 1 for a model that does not batch.
  Nanoseconds max_delay{0};  ///< How long a batch that is not full may wait for more.
  /// From arrival to answer, for 99 requests of 100; 0 = none. Takes the place of max_delay.
  Nanoseconds p99_target{0};
};

/// Sizes, waiting and admission aim at this share of the target: what they reckon with are means, and the rest is for
/// the tail.
inline constexpr double kAim = 0.75;

/// What the policy knows of the queue's past, and who serves it.
struct QueueMeasurements {
  BatchCurve curve;
  Nanoseconds arrival{0};  ///< As QueuePace::arrival.
  Nanoseconds service{0};  ///< As QueuePace::service.
  int64_t workers = 1;     ///< That take batches from it at once.
};

/// Why a request was refused without having run; also the label of the metric that counts it.
enum class Refusal : uint8_t {
  kQueueFull,  ///< RESOURCE_EXHAUSTED: too many wait, or too many bytes.
  kExpired,    ///< DEADLINE_EXCEEDED: its deadline has passed.
  kDeadline,   ///< DEADLINE_EXCEEDED: its deadline is sooner than its answer could be.
  kTarget,     ///< RESOURCE_EXHAUSTED: whoever waits ahead of it would make it miss the target.
};

/// What is known of a request that comes.
struct ArrivalFacts {
  int64_t rows = 1;
  int64_t rows_ahead = 0;  ///< That run before it.
  TimePoint deadline = kNever;
  Nanoseconds own_time{0};  ///< As QueuedFacts::own_time.
};

/// From now until its answer: what waits ahead at the pace of the queue, or, while that is not known, of full batches one
/// after the other; then a batch of its own size. Before one with an own_time that pace alone counts: who waits ahead may be of
/// other shapes.
Nanoseconds ExpectedTime(const ArrivalFacts& arrival, const BatchLimits& limits,
                         const QueueMeasurements& measured);

/// What a deadline is held against: ExpectedTime; its own_time alone where it has one, for the pace is a mean over all shapes,
/// and those that wait ahead may be short ones. Who has waited for too long then is hopeless in DecideBatch.
Nanoseconds LeastTime(const ArrivalFacts& arrival, const BatchLimits& limits,
                      const QueueMeasurements& measured);

/// Whether a request that comes now is refused at once, by what was measured; nullopt lets it in.
/// - kDeadline: by a fresh curve, or by its own_time, LeastTime ends behind its deadline. Its client gets the answer while
///   there is time to ask elsewhere, and nothing is computed that nobody waits for any more.
/// - kTarget: others wait, and ExpectedTime is more than kAim of the target. A target is a promise to those who are let
///   in: under a load that lasts a queue without this bound grows until everybody is late, where refusing the surplus
///   keeps the rest on time; the same code as for a full queue tells clients to back off or to try another server. Who
///   finds nobody waiting is let in whatever the target, so that one that the model cannot keep refuses nobody. Who is overtaken
///   by better levels of priority after that may be late.
std::optional<Refusal> DecideAdmission(const ArrivalFacts& arrival, const BatchLimits& limits,
                                       const QueueMeasurements& measured, TimePoint now);

/// Indices into the queue, ascending. When `take` is empty and `wait_until` is set, ask again then.
struct BatchDecision {
  std::vector<size_t> take;
  std::vector<size_t> expired;    ///< Their deadline has passed: DEADLINE_EXCEEDED.
  std::vector<size_t> cancelled;  ///< Nobody waits for them: CANCELLED.
  std::vector<size_t>
      hopeless;  ///< A batch takes longer than their deadline allows: DEADLINE_EXCEEDED.
  std::optional<TimePoint> wait_until;
};

/// Smallest compiled batch size that holds `rows`: 1, 2, 4, 8, ... or max_batch.
int64_t BucketFor(int64_t rows, int64_t max_batch);

/// What handing a request to a worker and its answer back costs the processors: a batch of its own that takes less is
/// better run by the thread that brings it, whatever a larger batch would save.
inline constexpr std::chrono::microseconds kHandOver{40};
/// What it costs one who is alone, in latency: nobody is there to share a batch with. Well below what a thread that also
/// reads from connections may be away for.
inline constexpr std::chrono::microseconds kLoneHandOver{100};

/// Decides on `queue`, which is ordered by RunsBefore.
/// - The most urgent live request leads; the others of its shape class follow in order as long as
///   they fit into max_batch. Expired, cancelled and hopeless ones met on the way are dropped.
/// - A batch that would take longer than a deadline in it allows gives up its least urgent requests.
/// - Of the sizes that are left the smallest runs which, by the measured curve, gets through nearly as many rows a second
///   as the fastest of them: where larger batches gain nothing, the other workers share what waits, and the first answers
///   do not wait for the last. Sizes beyond a worker's share, what waits divided by the workers, have to get through a fifth
///   more rows a second than those within it: a worker that takes all makes a short queue as late as a long one, while the
///   next that is free finds nothing to do. (Simulated, two workers that eight rows at once make a tenth faster, half of what
///   they can do asked by chance: the p99 is 3.8 times the time of one row, and 5.2 without this. At full load they get
///   through 1.5 per cent less.) Where batches wait, for a delay or a target, nobody shares. While nothing is measured, a batch that would pad its compiled size by more than a quarter
///   gives up its least urgent requests if that makes it fuller: 5 rows run as 4 now and 1 next, not as 8.
/// - A batch that is not full waits until max_delay after the arrival of its oldest request, unless one that begins then
///   with one request more would end behind a deadline in it, or `flush` is set.
///
/// With a p99 target:
/// - Only sizes with which the oldest request keeps to kAim of the target are looked at; of those behind the leading one, the
///   oldest that would keep to it alone. When the leading one would not, all sizes are: a small batch would not bring back
///   what is late already, and would make those behind it late as well.
/// - In the place of the delay, two or more requests wait for the next size when that gets through a tenth more rows a
///   second, rows come fast enough to fill it in time for the oldest to keep to kAim of the target, and the last one came
///   no longer ago than the missing ones take to come. A lone request never waits.
BatchDecision DecideBatch(std::span<const QueuedFacts> queue, const BatchLimits& limits,
                          const QueueMeasurements& measured, TimePoint now, bool flush);

}  // namespace octet
