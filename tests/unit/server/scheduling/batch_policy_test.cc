#include "server/scheduling/batch_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octet {
namespace batch_policy_test {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const TimePoint kNow = TimePoint{} + seconds(1000);

/// A queue under construction: requests in the order of their arrival, one microsecond apart.
class Queue {
 public:
  Queue& Add(int64_t rows = 1, TimePoint deadline = kNever, uint32_t shape_class = 0,
             const std::atomic<bool>* cancelled = nullptr) {
    const uint64_t sequence = facts_.size();
    facts_.push_back({.sequence = sequence,
                      .queued = kNow - milliseconds(1) + microseconds(sequence),
                      .deadline = deadline,
                      .rows = rows,
                      .shape_class = shape_class,
                      .cancelled = cancelled});
    return *this;
  }
  /// A request of one row and this level of priority.
  Queue& AddOf(int level, TimePoint deadline = kNever, Nanoseconds waited = milliseconds(1)) {
    Add(1, deadline);
    facts_.back().level = level;
    facts_.back().queued += milliseconds(1) - waited;
    return *this;
  }
  /// `count` requests of one row.
  Queue& AddMany(int count) {
    for (int i = 0; i < count; ++i) Add();
    return *this;
  }
  BatchDecision Decide(BatchLimits limits, TimePoint now = kNow, bool flush = false) {
    std::ranges::sort(facts_, RunsBefore);
    return DecideBatch(facts_, limits, measured_, now, flush);
  }
  /// By what was measured.
  Queue& Measured(QueueMeasurements measured) {
    measured_ = measured;
    return *this;
  }
  /// The sequence numbers of what a decision takes.
  std::vector<uint64_t> Taken(BatchLimits limits, TimePoint now = kNow) {
    std::vector<uint64_t> taken;
    for (const size_t i : Decide(limits, now).take) taken.push_back(facts_[i].sequence);
    return taken;
  }

 private:
  std::vector<QueuedFacts> facts_;
  QueueMeasurements measured_;
};

/// A curve of 1, 2, 4 and 8 rows, in milliseconds, measured a moment ago.
BatchCurve Curve(std::array<int, 4> ms) {
  BatchTimes times;
  for (size_t i = 0; i < ms.size(); ++i) times.Observe(int64_t{1} << i, milliseconds(ms[i]), kNow);
  return times.Curve(kNow);
}

TEST(BatchPolicyTest, AnEmptyQueueGivesNothingToDo) {
  const BatchDecision decision = Queue().Decide({.max_batch = 8});
  EXPECT_THAT(decision.take, IsEmpty());
  EXPECT_FALSE(decision.wait_until.has_value());
}

TEST(BatchPolicyTest, WithoutADelayOneRequestRunsAtOnce) {
  EXPECT_THAT(Queue().Add().Taken({.max_batch = 8}), ElementsAre(0));
}

TEST(BatchPolicyTest, ABatchTakesWhatFitsInOrderOfArrival) {
  EXPECT_THAT(Queue().AddMany(6).Taken({.max_batch = 4}), ElementsAre(0, 1, 2, 3));
}

TEST(BatchPolicyTest, AModelThatDoesNotBatchRunsOneRequestAtATime) {
  EXPECT_THAT(Queue().AddMany(3).Taken({.max_batch = 1}), ElementsAre(0));
}

TEST(BatchPolicyTest, TheEarliestDeadlineGoesFirst) {
  Queue queue;
  queue.Add().Add(1, kNow + milliseconds(50)).Add(1, kNow + milliseconds(10));
  EXPECT_THAT(queue.Taken({.max_batch = 2}), ElementsAre(2, 1));
}

TEST(BatchPolicyTest, ARequestWithoutDeadlineIsNotStarved) {
  // It waits for kPatience: from then on it goes before later deadlines.
  Queue queue;
  queue.Add().Add(1, kNow + seconds(5));
  EXPECT_THAT(queue.Taken({.max_batch = 1}), ElementsAre(0));
}

TEST(PriorityTest, ALaterRequestOfTheFirstLevelLeads) {
  Queue queue;
  queue.AddOf(2).AddOf(3).AddOf(2).AddOf(1).AddOf(1);
  EXPECT_THAT(queue.Decide({.max_batch = 1}).take, ElementsAre(0));
  EXPECT_THAT(queue.Taken({.max_batch = 4}), ElementsAre(3, 4, 0, 2)) << "in order within a level";
}

TEST(PriorityTest, ALevelGoesBeforeADeadline) {
  Queue queue;
  queue.AddOf(2, kNow + microseconds(1)).AddOf(1).AddOf(1, kNow + seconds(5));
  queue.AddOf(2).AddOf(1, kNow + milliseconds(5));
  EXPECT_THAT(queue.Taken({.max_batch = 5}), ElementsAre(4, 1, 2, 0, 3));
}

TEST(PriorityTest, NobodyIsOvertakenByWhoComesAfterItsPatience) {
  // Of each level: kPatience for every level between.
  for (int level = 2; level <= 5; ++level) {
    const QueuedFacts waits = {.sequence = 0, .queued = kNow, .level = level};
    const TimePoint end = kNow + (level - 1) * kPatience;
    const QueuedFacts in_time = {.sequence = 1, .queued = end - microseconds(1), .level = 1};
    EXPECT_TRUE(RunsBefore(in_time, waits)) << level;
    const QueuedFacts too_late = {
        .sequence = 2, .queued = end, .deadline = end + kPatience, .level = 1};
    EXPECT_TRUE(RunsBefore(waits, too_late)) << level;
  }
}

TEST(BatchPolicyTest, ExpiredRequestsAreDroppedBeforeCompute) {
  Queue queue;
  queue.Add(1, kNow - microseconds(1)).Add(1, kNow).Add(1, kNow + milliseconds(1));
  const BatchDecision decision = queue.Decide({.max_batch = 8});
  EXPECT_THAT(decision.expired, ElementsAre(0, 1)) << "a deadline that is now has passed";
  EXPECT_THAT(decision.take, ElementsAre(2));
}

TEST(BatchPolicyTest, CancelledRequestsAreDroppedBeforeCompute) {
  const std::atomic<bool> gone = true;
  Queue queue;
  queue.Add().Add(1, kNever, 0, &gone).Add();
  const BatchDecision decision = queue.Decide({.max_batch = 8});
  EXPECT_THAT(decision.cancelled, ElementsAre(1));
  EXPECT_THAT(decision.take, ElementsAre(0, 2));
}

TEST(BatchPolicyTest, OnlyEqualShapesShareABatch) {
  Queue queue;
  queue.Add(1, kNever, 7).Add(1, kNever, 8).Add(1, kNever, 7);
  EXPECT_THAT(queue.Taken({.max_batch = 8}), ElementsAre(0, 2));
}

TEST(BatchPolicyTest, ARequestThatDoesNotFitIsPassedOverButNotForgotten) {
  Queue queue;
  queue.Add(3).Add(2).Add(1);
  EXPECT_THAT(queue.Taken({.max_batch = 4}), ElementsAre(0, 2));
}

TEST(BatchPolicyTest, ABatchDoesNotPayForMoreThanAQuarterOfPadding) {
  // Compiled sizes are 1, 2, 4, 8: five rows would compute eight.
  EXPECT_EQ(Queue().AddMany(3).Taken({.max_batch = 8}).size(), 3U);
  EXPECT_EQ(Queue().AddMany(5).Taken({.max_batch = 8}).size(), 4U);
  EXPECT_EQ(Queue().AddMany(6).Taken({.max_batch = 8}).size(), 6U);
  EXPECT_EQ(Queue().AddMany(7).Taken({.max_batch = 8}).size(), 7U);
  EXPECT_EQ(Queue().AddMany(5).Taken({.max_batch = 5}).size(), 5U)
      << "the largest size is compiled";
}

TEST(BatchPolicyTest, WhereLargerBatchesGainNothingTheSmallestRuns) {
  Queue queue;
  queue.AddMany(8);
  constexpr BatchLimits kLimits = {.max_batch = 8};
  EXPECT_EQ(queue.Measured({Curve({10, 20, 40, 80})}).Taken(kLimits).size(), 1U);
  EXPECT_EQ(queue.Measured({Curve({10, 14, 28, 56})}).Taken(kLimits).size(), 2U);
  EXPECT_EQ(queue.Measured({Curve({10, 14, 28, 53})}).Taken(kLimits).size(), 8U) << "a gain of 5 %";
  EXPECT_EQ(queue.Measured({Curve({10, 14, 28, 55})}).Taken(kLimits).size(), 2U) << "a gain of 2 %";
  EXPECT_EQ(Queue().AddMany(7).Measured({Curve({10, 14, 28, 53})}).Taken(kLimits).size(), 2U)
      << "a gain of 5 % that padding takes";
}

TEST(BatchPolicyTest, AWorkerLeavesTheOthersTheirShare) {
  const auto taken = [](int waiting, int64_t workers, std::array<int, 4> ms) {
    QueueMeasurements measured = {Curve(ms)};
    measured.workers = workers;
    return Queue().AddMany(waiting).Measured(measured).Taken({.max_batch = 8}).size();
  };
  constexpr std::array<int, 4> kSome = {100, 180, 330, 610};
  EXPECT_EQ(taken(2, 1, kSome), 2U);
  EXPECT_EQ(taken(2, 2, kSome), 1U);
  EXPECT_EQ(taken(3, 2, kSome), 2U) << "rounded up";
  EXPECT_EQ(taken(4, 2, kSome), 2U);
  EXPECT_EQ(taken(8, 2, kSome), 4U);
  EXPECT_EQ(taken(8, 4, kSome), 2U);
  EXPECT_EQ(taken(32, 4, kSome), 8U);
  EXPECT_EQ(taken(5, 2, kSome), 4U) << "three are padded to four: the fourth costs nothing";
  constexpr std::array<int, 4> kHalf = {100, 130, 180, 260};
  EXPECT_EQ(taken(2, 2, kHalf), 2U) << "worth more than the other worker's help";
  EXPECT_EQ(taken(8, 4, kHalf), 8U);
}

TEST(BatchPolicyTest, WhoFitsIntoTheSameSizeComesAlong) {
  BatchTimes times;
  for (int64_t rows = 1; rows <= 64; rows *= 2) times.Observe(rows, milliseconds(10), kNow);
  Queue queue;
  queue.AddMany(64).Measured({times.Curve(kNow)});
  EXPECT_EQ(queue.Taken({.max_batch = 64}).size(), 64U);
}

TEST(BatchPolicyTest, ALargestSizeThatIsNoPowerOfTwoIsTried) {
  for (const int64_t most : {5, 6, 7}) {
    BatchTimes times;
    for (int64_t rows = 1; rows <= 4; rows *= 2) times.Observe(rows, rows * milliseconds(10), kNow);
    Queue queue;
    queue.AddMany(8).Measured({times.Curve(kNow, most)});
    EXPECT_EQ(queue.Taken({.max_batch = most}).size(), static_cast<size_t>(most));
  }
}

TEST(BatchPolicyTest, TheWayToAWorkerCountsAsTimeOfABatch) {
  BatchTimes times;
  for (int64_t rows = 1; rows <= 8; rows *= 2) times.Observe(rows, rows * microseconds(100), kNow);
  Queue queue;
  queue.AddMany(8).Measured({times.Curve(kNow)});
  EXPECT_EQ(queue.Taken({.max_batch = 8}).size(), 8U);
}

TEST(BatchPolicyTest, ARequestThatPadsByItselfRunsAllTheSame) {
  EXPECT_THAT(Queue().Add(5).Taken({.max_batch = 8}), ElementsAre(0));
}

TEST(BatchPolicyTest, BucketsArePowersOfTwoUpToTheLargestBatch) {
  EXPECT_EQ(BucketFor(1, 6), 1);
  EXPECT_EQ(BucketFor(3, 6), 4);
  EXPECT_EQ(BucketFor(5, 6), 6);
  EXPECT_EQ(BucketFor(8, 8), 8);
}

TEST(BatchDelayTest, ABatchWaitsForTheDelayAfterItsOldestRequestToTheNanosecond) {
  Queue queue;
  queue.AddMany(2);
  const BatchLimits limits = {.max_batch = 8, .max_delay = milliseconds(3)};
  const TimePoint start = kNow - milliseconds(1) + milliseconds(3);
  const BatchDecision waiting = queue.Decide(limits, start - Nanoseconds(1));
  EXPECT_THAT(waiting.take, IsEmpty());
  EXPECT_EQ(waiting.wait_until, start);
  EXPECT_THAT(queue.Decide(limits, start).take, ElementsAre(0, 1));
}

TEST(BatchDelayTest, AFullBatchDoesNotWait) {
  EXPECT_EQ(Queue().AddMany(9).Taken({.max_batch = 8, .max_delay = seconds(1)}).size(), 8U);
}

TEST(BatchDelayTest, NobodyWaitsBehindAFullBatchThatWorkersCouldShare) {
  QueueMeasurements measured = {Curve({100, 180, 330, 610})};
  measured.workers = 2;
  Queue queue;
  queue.AddMany(8).Measured(measured);
  EXPECT_EQ(queue.Taken({.max_batch = 8}).size(), 4U);
  EXPECT_EQ(queue.Taken({.max_batch = 8, .max_delay = seconds(1)}).size(), 8U)
      << "the other four would wait for a second";
  EXPECT_EQ(queue.Taken({.max_batch = 8, .p99_target = seconds(10)}).size(), 8U);
}

TEST(BatchDelayTest, ADeadlineBeforeTheDelayStartsTheBatch) {
  Queue queue;
  queue.Add(1, kNow + milliseconds(5));
  EXPECT_THAT(queue.Decide({.max_batch = 8, .max_delay = milliseconds(100)}).take, ElementsAre(0));
}

TEST(BatchDelayTest, ADeadlineThatTheDelayWouldCostStartsTheBatch) {
  const BatchLimits limits = {.max_batch = 8, .max_delay = milliseconds(6)};  // 5 of which are left
  const auto decide = [&](int deadline_ms) {
    Queue queue;
    queue.Add(1, kNow + milliseconds(deadline_ms)).Measured({Curve({10, 10, 20, 40})});
    return queue.Decide(limits);
  };
  EXPECT_THAT(decide(12).take, ElementsAre(0)) << "5 + 10 ms are more than 12";
  EXPECT_THAT(decide(15).take, ElementsAre(0));
  EXPECT_THAT(decide(16).take, IsEmpty());
  EXPECT_EQ(decide(16).wait_until, kNow + milliseconds(5));
}

TEST(BatchDelayTest, FlushingDoesNotWait) {
  EXPECT_THAT(Queue().Add().Decide({.max_batch = 8, .max_delay = seconds(1)}, kNow, true).take,
              ElementsAre(0));
}

TEST(BatchDelayTest, TheDeadAreDroppedWhileTheOthersWait) {
  Queue queue;
  queue.Add(1, kNow).Add();
  const BatchDecision decision = queue.Decide({.max_batch = 8, .max_delay = seconds(1)});
  EXPECT_THAT(decision.expired, ElementsAre(0));
  EXPECT_THAT(decision.take, IsEmpty());
  EXPECT_TRUE(decision.wait_until.has_value());
}

/// The requests of a Queue came a millisecond ago: a target of 40 ms is aimed at with 30, of which 29 are left.
constexpr BatchLimits kTarget = {.max_batch = 8, .p99_target = milliseconds(40)};

TEST(TargetTest, TheLargestSizeThatKeepsToTheTargetRuns) {
  EXPECT_EQ(Queue().AddMany(8).Measured({Curve({10, 14, 20, 29})}).Taken(kTarget).size(), 8U);
  EXPECT_EQ(Queue().AddMany(8).Measured({Curve({10, 14, 20, 30})}).Taken(kTarget).size(), 4U);
  EXPECT_EQ(Queue().AddMany(8).Measured({Curve({15, 29, 40, 60})}).Taken(kTarget).size(), 2U);
}

TEST(TargetTest, WaitingLeavesLessForTheBatch) {
  Queue queue;
  queue.AddMany(8).Measured({Curve({10, 14, 20, 29})});
  EXPECT_EQ(queue.Taken(kTarget, kNow + milliseconds(1)).size(), 4U);
  EXPECT_EQ(queue.Taken(kTarget, kNow + milliseconds(10)).size(), 2U);
}

TEST(TargetTest, WhenAllAreLateTheFastestSizeRuns) {
  Queue queue;
  queue.AddMany(8);
  EXPECT_EQ(queue.Measured({Curve({10, 14, 20, 29})}).Taken(kTarget, kNow + seconds(1)).size(), 8U);
  EXPECT_EQ(queue.Measured({Curve({10, 14, 20, 40})}).Taken(kTarget, kNow + seconds(1)).size(), 4U)
      << "two of four are as fast";
}

TEST(TargetTest, LateOnesOfALaterLevelDoNotCutTheBatchOfAFreshOne) {
  Queue queue;
  queue.AddOf(1);
  for (int i = 0; i < 7; ++i) queue.AddOf(3, kNever, milliseconds(100));
  queue.Measured({Curve({10, 10, 10, 10})});
  EXPECT_EQ(queue.Taken(kTarget).size(), 8U);
  queue.Measured({Curve({10, 14, 20, 30})});
  EXPECT_EQ(queue.Taken(kTarget).size(), 4U) << "the fresh one would be late among eight";
}

TEST(TargetTest, ALargerSizeThatGainsNothingIsNotPaddedFor) {
  // Five rows as eight: 5 / 29 a millisecond; four: 4 / 20.
  EXPECT_EQ(Queue().AddMany(5).Measured({Curve({10, 14, 20, 29})}).Taken(kTarget).size(), 4U);
  EXPECT_EQ(Queue().AddMany(5).Measured({Curve({10, 14, 20, 22})}).Taken(kTarget).size(), 5U);
}

TEST(TargetTest, NothingMeasuredIsAsWithoutATarget) {
  EXPECT_EQ(Queue().AddMany(8).Taken(kTarget).size(), 8U);
  EXPECT_EQ(Queue().AddMany(5).Taken(kTarget).size(), 4U);
}

TEST(TargetTest, ALoneRequestNeverWaits) {
  Queue queue;
  queue.Add().Measured({Curve({2, 2, 2, 2}), Nanoseconds(1)});
  EXPECT_THAT(queue.Taken(kTarget), ElementsAre(0));
  BatchLimits limits = kTarget;
  limits.max_delay = seconds(1);
  EXPECT_THAT(queue.Taken(limits), ElementsAre(0)) << "the target takes the delay's place";
}

TEST(TargetTest, TwoWaitForTheNextSizeWhereThereIsRoomAndItGains) {
  Queue queue;
  queue.AddMany(2).Measured({Curve({8, 8, 10, 12}), milliseconds(3)});
  const BatchDecision waiting = queue.Decide(kTarget);
  EXPECT_THAT(waiting.take, IsEmpty());
  // The second came 999 us ago; two more are missing.
  const TimePoint full = kNow - microseconds(999) + milliseconds(6);
  EXPECT_EQ(waiting.wait_until, full);
  EXPECT_THAT(queue.Taken(kTarget, full), ElementsAre(0, 1)) << "they did not come";
  EXPECT_THAT(queue.Decide(kTarget, kNow, true).take, ElementsAre(0, 1)) << "flushed";
}

TEST(TargetTest, NobodyWaitsWithoutRoomGainOrArrivals) {
  const auto taken = [](QueueMeasurements measured, TimePoint deadline = kNever) {
    Queue queue;
    queue.Add(1, deadline).Add().Measured(measured);
    return queue.Taken(kTarget).size();
  };
  EXPECT_EQ(taken({Curve({8, 8, 10, 12}), milliseconds(3)}), 0U);
  EXPECT_EQ(taken({Curve({8, 8, 10, 12}), milliseconds(11)}), 2U) << "four would be late";
  EXPECT_EQ(taken({Curve({8, 8, 16, 32}), milliseconds(3)}), 2U) << "four are no faster than two";
  EXPECT_EQ(taken({Curve({8, 8, 10, 12}), Nanoseconds(0)}), 2U) << "nothing is known of others";
  EXPECT_EQ(taken({Curve({8, 8, 10, 12}), milliseconds(3)}, kNow + milliseconds(14)), 2U)
      << "a deadline";
}

TEST(DeadlineTest, WhatABatchCannotAnswerInTimeIsNotRun) {
  Queue queue;
  queue.Add(1, kNow + milliseconds(9))
      .Add(1, kNow + milliseconds(10))
      .Measured({Curve({10, 10, 10, 10})});
  const BatchDecision decision = queue.Decide({.max_batch = 8});
  EXPECT_THAT(decision.hopeless, ElementsAre(0));
  EXPECT_THAT(decision.take, ElementsAre(1));
}

TEST(DeadlineTest, WhatWasMeasuredLongAgoRefusesNothing) {
  QueueMeasurements measured = {Curve({10, 10, 10, 10})};
  measured.curve.fresh = false;
  Queue queue;
  queue.Add(1, kNow + milliseconds(9)).Measured(measured);
  EXPECT_THAT(queue.Taken({.max_batch = 8}), ElementsAre(0));
  EXPECT_EQ(DecideAdmission({.deadline = kNow + milliseconds(9)}, {.max_batch = 8}, measured, kNow),
            std::nullopt);
}

TEST(DeadlineTest, ABatchIsNoLargerThanItsDeadlinesAllow) {
  Queue queue;
  queue.Add(1, kNow + milliseconds(15)).AddMany(7).Measured({Curve({10, 12, 20, 30})});
  EXPECT_THAT(queue.Taken({.max_batch = 8}), ElementsAre(0, 1));
}

TEST(AdmissionTest, ADeadlineThatTheQueueDoesNotAllowIsRefused) {
  const QueueMeasurements measured = {Curve({10, 14, 20, 29}), Nanoseconds(0), milliseconds(3)};
  const auto decide = [&](int64_t ahead, int ms) {
    return DecideAdmission({.rows_ahead = ahead, .deadline = kNow + milliseconds(ms)},
                           {.max_batch = 8}, measured, kNow);
  };
  EXPECT_EQ(decide(10, 40), std::nullopt);
  EXPECT_EQ(decide(10, 39), Refusal::kDeadline);
  EXPECT_EQ(decide(0, 9), Refusal::kDeadline) << "the batch alone takes longer";
  EXPECT_EQ(ExpectedTime({.rows = 3, .rows_ahead = 10}, {.max_batch = 8}, measured),
            milliseconds(50));
  EXPECT_EQ(decide(INT64_MAX, 1), Refusal::kDeadline);
}

TEST(AdmissionTest, WhatItsOwnShapesTakeIsHeldAgainstADeadline) {
  QueueMeasurements measured = {Curve({10, 10, 10, 10})};
  measured.curve.fresh = false;
  const auto decide = [&](int64_t ahead, int ms) {
    return DecideAdmission(
        {.rows_ahead = ahead, .deadline = kNow + milliseconds(ms), .own_time = milliseconds(50)},
        {.max_batch = 1}, measured, kNow);
  };
  EXPECT_EQ(decide(0, 50), std::nullopt);
  EXPECT_EQ(decide(0, 49), Refusal::kDeadline);
  EXPECT_EQ(decide(6, 50), std::nullopt) << "nobody knows how long the others take";
  measured.service = milliseconds(25);
  EXPECT_EQ(decide(20, 50), std::nullopt)
      << "a pace is a mean over all shapes: theirs may be short";
  EXPECT_EQ(decide(20, 49), Refusal::kDeadline);
  const ArrivalFacts among_short_ones = {
      .rows_ahead = 20, .deadline = kNow + milliseconds(100), .own_time = milliseconds(1)};
  EXPECT_EQ(DecideAdmission(among_short_ones, {.max_batch = 1}, measured, kNow), std::nullopt);
  EXPECT_EQ(LeastTime(among_short_ones, {.max_batch = 1}, measured), milliseconds(1));
  EXPECT_EQ(DecideAdmission(among_short_ones, {.max_batch = 1, .p99_target = milliseconds(100)},
                            measured, kNow),
            Refusal::kTarget)
      << "which reckons with means";
  measured.curve = {};
  EXPECT_EQ(decide(0, 49), Refusal::kDeadline) << "without a curve, too";
}

TEST(AdmissionTest, AQueueBeyondTheTargetRefusesAtOnceAndAnEmptyOneNever) {
  const QueueMeasurements measured = {Curve({10, 14, 20, 29}), Nanoseconds(0), milliseconds(4)};
  EXPECT_EQ(DecideAdmission({.rows_ahead = 5}, kTarget, measured, kNow), std::nullopt);
  EXPECT_EQ(DecideAdmission({.rows_ahead = 6}, kTarget, measured, kNow), Refusal::kTarget);
  EXPECT_EQ(DecideAdmission({.rows_ahead = 6}, {.max_batch = 8}, measured, kNow), std::nullopt);
  QueueMeasurements cold = {Curve({10, 14, 20, 24})};
  cold.curve.fresh = false;
  EXPECT_EQ(DecideAdmission({.rows_ahead = 6}, kTarget, cold, kNow), std::nullopt);
  EXPECT_EQ(DecideAdmission({.rows_ahead = 7}, kTarget, cold, kNow), Refusal::kTarget)
      << "a burst before the first batch: three milliseconds a row in batches of eight";
  const BatchLimits hard = {.max_batch = 8, .p99_target = milliseconds(1)};
  EXPECT_EQ(DecideAdmission({.rows_ahead = 0}, hard, measured, kNow), std::nullopt);
}

}  // namespace batch_policy_test
}  // namespace octet
