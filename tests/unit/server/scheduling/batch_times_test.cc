#include "server/scheduling/batch_times.h"

#include <gtest/gtest.h>

namespace octet {
namespace batch_times_test {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

const TimePoint kNow = TimePoint{} + seconds(1000);

TEST(BatchTimesTest, EveryCompiledSizeHasAPlace) {
  EXPECT_EQ(BatchSizeIndex(1), 0U);
  EXPECT_EQ(BatchSizeIndex(2), 1U);
  EXPECT_EQ(BatchSizeIndex(6), 3U) << "the largest size of max_batch 6, behind 4";
  EXPECT_EQ(BatchSizeIndex(8), 3U);
  EXPECT_EQ(BatchSizeIndex(65536), kBatchSizes - 1);
  EXPECT_EQ(BatchSizeIndex(1 << 20), kBatchSizes - 1);
}

TEST(BatchTimesTest, NothingIsKnownAtFirst) {
  const BatchCurve curve = BatchTimes().Curve(kNow);
  EXPECT_FALSE(curve.known());
  EXPECT_FALSE(curve.fresh);
}

TEST(BatchTimesTest, TimesAreSmoothedAndOutliersAreHardlyBelieved) {
  BatchTimes times;
  EXPECT_EQ(times.Observe(4, milliseconds(8), kNow), milliseconds(8));
  EXPECT_EQ(times.Observe(4, milliseconds(16), kNow), milliseconds(9));
  EXPECT_EQ(times.Observe(4, seconds(100), kNow), microseconds(9000 + 27000 / 8));
  for (int i = 0; i < 100; ++i) times.Observe(4, seconds(1), kNow);
  EXPECT_GT(times.Curve(kNow).TimeOf(4), milliseconds(990)) << "what lasts is believed";
}

TEST(BatchTimesTest, TheFirstTimeOfASizeIsAtMostTwiceThatOfItsHalf) {
  BatchTimes times;
  times.Observe(4, milliseconds(8), kNow);
  EXPECT_EQ(times.Observe(8, milliseconds(100), kNow), milliseconds(16));
  EXPECT_EQ(times.Observe(8, milliseconds(8), kNow), milliseconds(15));
  EXPECT_EQ(times.Observe(32, milliseconds(100), kNow), milliseconds(100))
      << "16 were never measured";
}

TEST(BatchTimesTest, ALargestSizeThatIsNoPowerOfTwoTakesLessInProportion) {
  BatchTimes times;
  times.Observe(4, milliseconds(8), kNow);
  EXPECT_EQ(times.Curve(kNow, 8).TimeOf(8), milliseconds(12));
  EXPECT_EQ(times.Curve(kNow, 6).TimeOf(6), milliseconds(10));
  EXPECT_EQ(times.Curve(kNow, 5).TimeOf(5), milliseconds(9));
}

TEST(BatchTimesTest, SizesThatWereNotMeasuredFollowFromTheirNeighbours) {
  BatchTimes times;
  times.Observe(4, milliseconds(8), kNow);
  const BatchCurve curve = times.Curve(kNow);
  EXPECT_EQ(curve.TimeOf(1), milliseconds(2));
  EXPECT_EQ(curve.TimeOf(2), milliseconds(4));
  EXPECT_EQ(curve.TimeOf(8), milliseconds(12));
  EXPECT_EQ(curve.TimeOf(16), milliseconds(18));
}

TEST(BatchTimesTest, ASizeCostsAtMostTwiceItsHalfAndIsTriedAgainWhenItWasLeftAlone) {
  BatchTimes times;
  times.Observe(4, milliseconds(8), kNow);
  times.Observe(8, milliseconds(100), kNow);
  EXPECT_EQ(times.Curve(kNow).TimeOf(8), milliseconds(16));
  const TimePoint later = kNow + kForgotten + seconds(1);
  times.Observe(4, milliseconds(8), later);
  EXPECT_EQ(times.Curve(later).TimeOf(8), milliseconds(12));
}

TEST(BatchTimesTest, OnlyWhatWasMeasuredLatelyIsFresh) {
  BatchTimes times;
  times.Seed(milliseconds(3));
  EXPECT_TRUE(times.Curve(kNow).known());
  EXPECT_FALSE(times.Curve(kNow).fresh) << "measured by a load";
  times.Observe(2, milliseconds(4), kNow);
  EXPECT_TRUE(times.Curve(kNow + kFresh).fresh);
  EXPECT_FALSE(times.Curve(kNow + kFresh + Nanoseconds(1)).fresh);
}

TEST(BatchTimesTest, ASizeCostsNoMoreThanALargerOne) {
  BatchTimes times;
  times.Seed(milliseconds(100));  // a load on a busy machine
  times.Observe(8, milliseconds(20), kNow);
  for (const int size : {1, 2, 4, 8}) {
    EXPECT_EQ(times.Curve(kNow).TimeOf(size), milliseconds(20)) << size;
  }
}

TEST(BatchTimesTest, TheSmallestTimesMoveToo) {
  BatchTimes times;
  times.Observe(1, Nanoseconds(1), kNow);
  for (int i = 0; i < 200; ++i) times.Observe(1, milliseconds(1), kNow);
  EXPECT_EQ(times.Curve(kNow).TimeOf(1), milliseconds(1));
  for (int i = 0; i < 200; ++i) times.Observe(1, Nanoseconds(1), kNow);
  EXPECT_EQ(times.Curve(kNow).TimeOf(1), Nanoseconds(1));
}

TEST(RowTimeTest, IsTheMeanOfItsSamplesByRow) {
  RowTime time;
  for (int i = 1; i < RowTime::kLeastSamples; ++i) time.Add(kNow, 4, milliseconds(8));
  EXPECT_EQ(time.PerRow(kNow), Nanoseconds(0)) << "too few";
  time.Add(kNow, 4, milliseconds(72));
  EXPECT_EQ(time.PerRow(kNow), milliseconds(4)) << "128 ms of 32 rows";
  time.Add(kNow, 1, RowTime::kSpan + Nanoseconds(1));
  EXPECT_EQ(time.PerRow(kNow), milliseconds(4)) << "a pause is no sample";
}

TEST(RowTimeTest, WhatIsOldIsForgotten) {
  RowTime time;
  const auto add = [&time](TimePoint now, Nanoseconds each) {
    for (int i = 0; i < RowTime::kLeastSamples; ++i) time.Add(now, 1, each);
  };
  add(kNow, milliseconds(100));
  const TimePoint next = kNow + RowTime::kSpan;
  add(next, milliseconds(10));
  EXPECT_EQ(time.PerRow(next), milliseconds(55));
  EXPECT_EQ(time.PerRow(next + RowTime::kSpan), milliseconds(10)) << "the newer ones alone";
  EXPECT_EQ(time.PerRow(next + 2 * RowTime::kSpan), Nanoseconds(0));
  add(next + RowTime::kSpan + milliseconds(900), milliseconds(30));
  EXPECT_EQ(time.PerRow(next + 2 * RowTime::kSpan), milliseconds(30))
      << "a sample that comes late in its span does not keep the older ones";
  add(next + seconds(60), milliseconds(7));
  EXPECT_EQ(time.PerRow(next + seconds(60)), milliseconds(7));
}

TEST(QueuePaceTest, ArrivalsAreCountedByRowAndMayComeOutOfOrder) {
  QueuePace pace;
  pace.OnArrival(kNow, 1);
  EXPECT_EQ(pace.arrival(kNow), Nanoseconds(0)) << "one says nothing";
  for (int i = 1; i <= 8; ++i) pace.OnArrival(kNow + i * milliseconds(8), 4);
  const TimePoint last = kNow + milliseconds(64);
  EXPECT_EQ(pace.arrival(last), milliseconds(2));
  pace.OnArrival(last - milliseconds(1), 4);
  EXPECT_EQ(pace.arrival(last), Nanoseconds(milliseconds(64)) / 36)
      << "at once behind the one before";
  pace.OnArrival(last + milliseconds(4), 1);
  EXPECT_EQ(pace.arrival(last), Nanoseconds(milliseconds(68)) / 37);
}

TEST(QueuePaceTest, ServiceIsTheTimeBetweenBatchesWhileOthersWait) {
  QueuePace pace;
  TimePoint now = kNow;
  for (int i = 0; i <= 8; ++i) pace.OnTake(now += milliseconds(8), 4, i < 8);
  EXPECT_EQ(pace.service(now), milliseconds(2));
  pace.OnTake(now += milliseconds(500), 2, true);
  EXPECT_EQ(pace.service(now), milliseconds(2)) << "the queue was empty in between";
  pace.OnPause();
  pace.OnTake(now += milliseconds(100), 2, true);
  EXPECT_EQ(pace.service(now), milliseconds(2)) << "it waited to become fuller";
}

}  // namespace batch_times_test
}  // namespace octet
