#include "server/scheduling/batch_times.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace octet {
namespace {

int64_t SmoothedCount(int64_t before, int64_t measured) {
  if (before == 0) return std::max<int64_t>(measured, 1);
  const int64_t believed = std::min(measured, 4 * before);
  const int64_t way = believed - before;
  return std::max<int64_t>(before + (way + (way > 0 ? 7 : -7)) / 8, 1);
}

}  // namespace

Nanoseconds Smoothed(Nanoseconds before, Nanoseconds measured) {
  return Nanoseconds(SmoothedCount(before.count(), measured.count()));
}

size_t BatchSizeIndex(int64_t plan_rows) {
  const auto index = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(plan_rows - 1)));
  return std::min(index, kBatchSizes - 1);
}

BatchCurve DrawCurve(std::span<const BatchTime, kBatchSizes> sizes, TimePoint now,
                     int64_t max_batch) {
  BatchCurve curve;
  for (size_t i = 0; i < kBatchSizes; ++i) {
    const auto [own, measured] = sizes[i];
    const bool known = own > Nanoseconds::zero();
    curve.fresh |= known && now - measured <= kFresh;
    curve.times[i] = own;
    if (i == 0 || curve.times[i - 1] == Nanoseconds::zero()) continue;
    const Nanoseconds half = curve.times[i - 1];
    // Of a size of 2^i rows: half + half / 2.
    const int64_t half_rows = int64_t{1} << (i - 1);
    const int64_t added_rows = std::min(max_batch - half_rows, half_rows);
    const bool recent = known && now - measured <= kForgotten;
    const Nanoseconds most =
        recent || added_rows <= 0 ? 2 * half : half + half * added_rows / (2 * half_rows);
    curve.times[i] = known ? std::min(own, most) : most;
  }
  for (size_t i = kBatchSizes - 1; i-- > 0;) {
    curve.times[i] = curve.times[i] == Nanoseconds::zero()
                         ? (curve.times[i + 1] + Nanoseconds(1)) / 2
                         : std::min(curve.times[i], curve.times[i + 1]);
  }
  return curve;
}

Nanoseconds BatchTimes::Observe(int64_t plan_rows, Nanoseconds time, TimePoint now) {
  const size_t index = BatchSizeIndex(plan_rows);
  const int64_t before = cells_[index].nanoseconds.load(std::memory_order_relaxed);
  int64_t told = time.count();
  if (before == 0 && index > 0) {
    const int64_t half = cells_[index - 1].nanoseconds.load(std::memory_order_relaxed);
    if (half > 0) told = std::min(told, 2 * half);
  }
  const int64_t next = SmoothedCount(before, told);
  Store(index, next, now);
  return Nanoseconds(next);
}

void BatchTimes::Store(size_t index, int64_t nanoseconds, TimePoint now) {
  cells_[index].nanoseconds.store(nanoseconds, std::memory_order_relaxed);
  cells_[index].measured.store(now.time_since_epoch().count(), std::memory_order_relaxed);
}

BatchCurve BatchTimes::Curve(TimePoint now, int64_t max_batch) const {
  std::array<BatchTime, kBatchSizes> sizes;
  for (size_t i = 0; i < kBatchSizes; ++i) {
    sizes[i].smoothed = Nanoseconds(cells_[i].nanoseconds.load(std::memory_order_relaxed));
    sizes[i].measured =
        TimePoint(TimePoint::duration(cells_[i].measured.load(std::memory_order_relaxed)));
  }
  return DrawCurve(sizes, now, max_batch);
}

void RowTime::Add(TimePoint now, int64_t rows, Nanoseconds time) {
  if (time > kSpan) return;
  if (now - begin_ >= kSpan) {
    const bool next = now - begin_ < 2 * kSpan;
    before_ = next ? current_ : Sum();
    current_ = Sum();
    begin_ = next ? begin_ + kSpan : now;
  }
  current_.time += time;
  current_.rows += rows;
  ++current_.samples;
}

Nanoseconds RowTime::PerRow(TimePoint now) const {
  Sum sum;
  for (const auto& [part, age] : {std::pair(current_, 2 * kSpan), std::pair(before_, kSpan)}) {
    if (now - begin_ >= age) continue;
    sum.time += part.time;
    sum.rows += part.rows;
    sum.samples += part.samples;
  }
  if (sum.samples < kLeastSamples) return Nanoseconds::zero();
  return std::max(sum.time / std::max<int64_t>(sum.rows, 1), Nanoseconds(1));
}

void QueuePace::OnArrival(TimePoint now, int64_t rows) {
  if (last_arrival_ != TimePoint::min()) {
    arrival_.Add(now, rows, std::max(now - last_arrival_, Nanoseconds::zero()));
  }
  last_arrival_ = std::max(last_arrival_, now);
}

void QueuePace::OnTake(TimePoint now, int64_t rows, bool others_wait) {
  if (backlogged_) service_.Add(now, last_rows_, now - last_take_);
  backlogged_ = others_wait;
  last_take_ = now;
  last_rows_ = rows;
}

}  // namespace octet
