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
  /// `count` requests of one row.
  Queue& AddMany(int count) {
    for (int i = 0; i < count; ++i) Add();
    return *this;
  }
  BatchDecision Decide(BatchLimits limits, TimePoint now = kNow, bool flush = false) {
    std::ranges::sort(facts_, RunsBefore);
    return DecideBatch(facts_, limits, now, flush);
  }
  /// The sequence numbers of what a decision takes.
  std::vector<uint64_t> Taken(BatchLimits limits, TimePoint now = kNow) {
    std::vector<uint64_t> taken;
    for (const size_t i : Decide(limits, now).take) taken.push_back(facts_[i].sequence);
    return taken;
  }

 private:
  std::vector<QueuedFacts> facts_;
};

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

TEST(BatchDelayTest, ADeadlineBeforeTheDelayStartsTheBatch) {
  Queue queue;
  queue.Add(1, kNow + milliseconds(5));
  EXPECT_THAT(queue.Decide({.max_batch = 8, .max_delay = milliseconds(100)}).take, ElementsAre(0));
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

}  // namespace batch_policy_test
}  // namespace octet
