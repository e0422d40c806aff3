// How long batches take and how fast a queue moves, as measured: what the batch policy reckons with.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "server/scheduling/clock.h"

namespace octet {

/// Compiled sizes: 1, 2, 4, ... 65536 rows; a largest size that is no power of two has the place of the next one.
inline constexpr size_t kBatchSizes = 17;
inline constexpr int64_t kMostRows = int64_t{1} << (kBatchSizes - 1);
/// The place of a compiled size. Requires: plan_rows >= 1.
size_t BatchSizeIndex(int64_t plan_rows);

/// What is expected of a batch of each compiled size.
struct BatchCurve {
  std::array<Nanoseconds, kBatchSizes> times{};  ///< All 0 while nothing is known, else none is.
  /// A batch was measured within kFresh: good enough to refuse a request by. Whoever refuses everything
  /// measures nothing more, and finds out this way when the machine is itself again.
  bool fresh = false;

  bool known() const { return times[0] > Nanoseconds::zero(); }
  Nanoseconds TimeOf(int64_t plan_rows) const { return times[BatchSizeIndex(plan_rows)]; }
};
inline constexpr std::chrono::seconds kFresh{2};

/// An eighth of the way from what was expected towards what was measured, rounded towards it so that the smallest times move,
/// too; of more than four times the former no more is believed. Of the first one (`before` = 0) all of it.
Nanoseconds Smoothed(Nanoseconds before, Nanoseconds measured);

/// What was measured of one size; 0 = nothing.
struct BatchTime {
  Nanoseconds smoothed{0};
  TimePoint measured;
};

/// The curve through what was measured. A size takes at most twice what half of it takes, since it could run as two of
/// these; one that was not measured for kForgotten, or never, at most one and a half times that: sizes that the policy
/// left alone are tried again, and the headroom of the target holds what they may take more. A size takes at most what
/// the next one does, and half of it when no smaller one was measured. `max_batch`: the largest size; where it is no power of
/// two, what it takes beyond its half is less in proportion.
BatchCurve DrawCurve(std::span<const BatchTime, kBatchSizes> sizes, TimePoint now,
                     int64_t max_batch = kMostRows);
inline constexpr std::chrono::seconds kForgotten{10};

/// The measured times of one variant. Thread-safety: safe, without locks; of two observations at once one may be lost.
class BatchTimes {
 public:
  /// Begins with what one row took when the variant was loaded.
  void Seed(Nanoseconds one_row) { Store(0, one_row.count(), TimePoint()); }
  /// A batch of this size has run. Moves the smoothed time by an eighth of the difference, of which more than three
  /// times the smoothed one is not believed: one batch that was stopped on its way says nothing of the next. Of a size's
  /// first time no more is believed than twice that of its half: it is also that of memory which is new.
  /// Returns the smoothed time.
  Nanoseconds Observe(int64_t plan_rows, Nanoseconds time, TimePoint now);
  BatchCurve Curve(TimePoint now, int64_t max_batch = kMostRows) const;
  /// What a batch of this size took, smoothed; 0 = never measured.
  Nanoseconds Measured(int64_t plan_rows) const {
    return Nanoseconds(
        cells_[BatchSizeIndex(plan_rows)].nanoseconds.load(std::memory_order_relaxed));
  }

 private:
  struct Cell {
    std::atomic<int64_t> nanoseconds{0};
    std::atomic<TimePoint::rep> measured{0};
  };
  void Store(size_t index, int64_t nanoseconds, TimePoint now);

  std::array<Cell, kBatchSizes> cells_;
};

/// Time per row over the last one to two kSpan: a mean, which neither a burst nor a pause bends as it does one gap. What
/// is older says nothing, so that no measurement can stay for want of a newer one.
class RowTime {
 public:
  static constexpr std::chrono::seconds kSpan{1};
  static constexpr int64_t kLeastSamples = 8;

  /// `rows` took `time`, until now. More than kSpan is no sample: something else happened in it.
  void Add(TimePoint now, int64_t rows, Nanoseconds time);
  /// 0 = not known: fewer than kLeastSamples.
  Nanoseconds PerRow(TimePoint now) const;

 private:
  struct Sum {
    Nanoseconds time{0};
    int64_t rows = 0;
    int64_t samples = 0;
  };
  Sum before_;  ///< Of the span before the one that begins at begin_.
  Sum current_;
  TimePoint begin_;
};

/// How fast rows come into a queue and are taken out of it. Belongs to the queue's lock.
class QueuePace {
 public:
  /// `now` may lie a little before that of an earlier call: it is read without the lock.
  void OnArrival(TimePoint now, int64_t rows);
  /// `others_wait`: the queue is not empty behind the batch; the time to the next batch is then what the rows of this
  /// one took, however many workers there are and whatever else they do.
  void OnTake(TimePoint now, int64_t rows, bool others_wait);
  /// The queue is empty, or lets a worker go in order to become fuller: the time to the next batch says nothing.
  void OnPause() { backlogged_ = false; }

  /// Between two rows that come; 0 = not known.
  Nanoseconds arrival(TimePoint now) const { return arrival_.PerRow(now); }
  /// Of each row that waits, until it is taken; 0 = not known.
  Nanoseconds service(TimePoint now) const { return service_.PerRow(now); }

 private:
  RowTime arrival_;
  RowTime service_;
  TimePoint last_arrival_ = TimePoint::min();
  TimePoint last_take_;
  int64_t last_rows_ = 0;
  bool backlogged_ = false;
};

}  // namespace octet
