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

TEST(QueuePaceTest, ArrivalsAreCountedByRow) {
  QueuePace pace;
  pace.OnArrival(kNow, 1);
  EXPECT_EQ(pace.arrival(), Nanoseconds(0)) << "one says nothing";
  pace.OnArrival(kNow + milliseconds(8), 4);
  EXPECT_EQ(pace.arrival(), milliseconds(2));
  pace.OnArrival(kNow + milliseconds(18), 1);
  EXPECT_EQ(pace.arrival(), microseconds(2000 + 6000 / 8)) << "four times as much is believed";
}

TEST(QueuePaceTest, ServiceIsTheTimeBetweenBatchesWhileOthersWait) {
  QueuePace pace;
  pace.OnTake(kNow, 4, true);
  pace.OnTake(kNow + milliseconds(8), 2, false);
  EXPECT_EQ(pace.service(), milliseconds(2));
  pace.OnTake(kNow + seconds(8), 2, true);
  EXPECT_EQ(pace.service(), milliseconds(2)) << "the queue was empty in between";
  pace.OnWait();
  pace.OnTake(kNow + seconds(9), 2, true);
  EXPECT_EQ(pace.service(), milliseconds(2)) << "it waited to become fuller";
}

}  // namespace batch_times_test
}  // namespace octet
