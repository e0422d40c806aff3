#include "server/scheduling/caller_runners.h"

#include <atomic>
#include <deque>
#include <limits>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/scheduling/worker_pool.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_request.h"

namespace octet {
namespace caller_runners_test {

using std::chrono::microseconds;

class CallerRunnersTest : public ::testing::Test {
 protected:
  std::shared_ptr<VariantQueue> Queue(BatchLimits batch = {.max_batch = 8},
                                      Nanoseconds one_row = kHandOver) {
    auto queue = MakeQueue(model_, batch, observer_, 1000);
    queue->times().Seed(one_row);
    return queue;
  }
  TestCall& Call(int rows = 1) {
    return calls_.emplace_back(std::vector<float>(size_t{4} * rows, 1), Shape{4});
  }
  TestCall& Submit(const std::shared_ptr<VariantQueue>& queue, TestCall& call,
                   TimePoint deadline = kNever) {
    runners_.Submit(queue, call.Request(clock_.Now(), deadline));
    return call;
  }
  /// Whether a request of one row is answered before Submit returns.
  bool RunsAtOnce(const std::shared_ptr<VariantQueue>& queue) {
    return Submit(queue, Call()).calls == 1;
  }
  /// The same while other threads are inside that many runs.
  bool RunsAtOnceBeside(int others, const std::shared_ptr<VariantQueue>& queue) {
    absl::Notification go_on;
    absl::BlockingCounter inside(others);
    std::atomic<int> left = others;
    model_->before_run = [&] {
      if (left-- > 0) {
        inside.DecrementCount();
        go_on.WaitForNotification();
      }
      return absl::OkStatus();
    };
    std::deque<TestCall> theirs;
    std::vector<std::jthread> threads;
    for (int i = 0; i < others; ++i) {
      TestCall& call = theirs.emplace_back(std::vector<float>(4, 1), Shape{4});
      threads.emplace_back([&] { runners_.Submit(other_, call.Request(clock_.Now())); });
    }
    inside.Wait();
    const bool at_once = RunsAtOnce(queue);
    go_on.Notify();
    threads.clear();
    model_->before_run = nullptr;
    return at_once;
  }

  FakeClock clock_;
  std::shared_ptr<FakeModel> model_ = std::make_shared<FakeModel>();
  std::shared_ptr<CountingObserver> observer_ = std::make_shared<CountingObserver>();
  std::deque<TestCall> calls_;
  Dispatcher dispatcher_{clock_};
  CallerRunners runners_{dispatcher_, 2, clock_};
  const std::shared_ptr<VariantQueue> other_ = Queue();
};

TEST_F(CallerRunnersTest, DenormalsAreZeroInTheRunAlone) {
  const volatile float least = std::numeric_limits<float>::denorm_min();
  bool zero_in_the_run = false;
  model_->before_run = [&] {
    zero_in_the_run = least * 1.0F == 0;
    return absl::OkStatus();
  };
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(RunsAtOnce(Queue()));
    EXPECT_TRUE(zero_in_the_run);
    EXPECT_GT(least * 1.0F, 0) << "what this thread does then may need them";
  }
}

TEST_F(CallerRunnersTest, RunsWhatIsShorterThanTheWayToAWorker) {
  const auto queue = Queue();
  queue->times().Observe(2, microseconds(30), clock_.Now());
  TestCall& call = Submit(queue, Call(2));
  ASSERT_EQ(call.calls, 1);
  EXPECT_TRUE(call.status->ok()) << *call.status;
  EXPECT_THAT(call.answer, ::testing::Each(2.0F));
  EXPECT_TRUE(call.timings.ran);
  EXPECT_EQ(dispatcher_.queued(), 0U);
  EXPECT_EQ(observer_->queued, 1);
  EXPECT_EQ(observer_->dequeued, 1);
  EXPECT_EQ(observer_->waiting_bytes, 0);
  EXPECT_EQ(observer_->batches, 1);
  EXPECT_EQ(observer_->rows, 2);
  EXPECT_EQ(observer_->succeeded, 1);
}

TEST_F(CallerRunnersTest, WhatTakesLongerOrWasNeverMeasuredWaitsForAWorker) {
  EXPECT_TRUE(RunsAtOnce(Queue({.max_batch = 8}, kLoneHandOver)));
  EXPECT_FALSE(RunsAtOnce(Queue({.max_batch = 8}, kLoneHandOver + Nanoseconds(1))));
  EXPECT_FALSE(RunsAtOnce(Queue({.max_batch = 8}, Nanoseconds::zero())));
  EXPECT_EQ(Submit(Queue(), Call(3)).calls, 0) << "three rows were never measured";
  EXPECT_EQ(dispatcher_.queued(), 3U);
}

TEST_F(CallerRunnersTest, WhoIsNotAloneSharesABatchUnlessThatIsNotWorthTheWay) {
  EXPECT_TRUE(RunsAtOnceBeside(1, Queue({.max_batch = 8}, kHandOver)));
  EXPECT_FALSE(RunsAtOnceBeside(1, Queue({.max_batch = 8}, kHandOver + Nanoseconds(1))));
}

TEST_F(CallerRunnersTest, NoMoreThreadsRunThanItWasMadeFor) {
  EXPECT_FALSE(RunsAtOnceBeside(2, Queue()));
  EXPECT_EQ(dispatcher_.queued(), 1U);
  EXPECT_TRUE(RunsAtOnce(Queue())) << "they have left";
}

TEST_F(CallerRunnersTest, NobodyIsOvertaken) {
  const auto queue = Queue();
  dispatcher_.Submit(queue, Call().Request(clock_.Now()));
  EXPECT_FALSE(RunsAtOnce(queue));
  EXPECT_EQ(dispatcher_.queued(), 2U);
}

TEST_F(CallerRunnersTest, WhatIsToBeWaitedForOrMayTakeAnyTimeGoesToTheWorkers) {
  EXPECT_FALSE(RunsAtOnce(Queue({.max_batch = 8, .max_delay = microseconds(1)})));
  ExecutionTarget target = Queue()->target();
  target.steady = false;
  const auto looping = std::make_shared<VariantQueue>(target);
  looping->times().Seed(microseconds(1));
  EXPECT_FALSE(RunsAtOnce(looping));
  target.steady = true;
  target.background = true;
  const auto background = std::make_shared<VariantQueue>(target);
  background->times().Seed(microseconds(1));
  EXPECT_FALSE(RunsAtOnce(background));
}

TEST_F(CallerRunnersTest, WhatCannotRunIsRefusedAsEver) {
  TestCall& late = Submit(Queue(), Call(), clock_.Now());
  ASSERT_EQ(late.calls, 1);
  EXPECT_EQ(late.status->code(), absl::StatusCode::kDeadlineExceeded);
  dispatcher_.Close();
  TestCall& closed = Submit(Queue(), Call());
  ASSERT_EQ(closed.calls, 1);
  EXPECT_EQ(closed.status->code(), absl::StatusCode::kUnavailable);
}

TEST_F(CallerRunnersTest, WhatProvesSlowGoesToTheWorkersUntilItIsFastAgain) {
  const auto queue = Queue();
  for (int i = 0; i < 20; ++i) queue->times().Observe(1, microseconds(500), clock_.Now());
  EXPECT_FALSE(RunsAtOnce(queue));
  BatchRunner(clock_).Run(*dispatcher_.TryTake());
  for (int i = 0; i < 40; ++i) queue->times().Observe(1, microseconds(20), clock_.Now());
  EXPECT_TRUE(RunsAtOnce(queue));
}

TEST_F(CallerRunnersTest, EveryRequestOfManyThreadsIsAnsweredOnce) {
  constexpr int kThreads = 4;
  constexpr int kCalls = 50;
  std::vector<std::deque<TestCall>> calls(kThreads);
  {
    WorkerPool workers(dispatcher_, {1, 1}, Clock::Real());
    std::vector<std::jthread> threads;
    for (auto& mine : calls) {
      threads.emplace_back([&] {
        for (int i = 0; i < kCalls; ++i) {
          TestCall& call = mine.emplace_back(std::vector<float>(4, 3), Shape{4});
          runners_.Submit(other_, call.Request(clock_.Now()));
        }
      });
    }
  }
  for (const auto& mine : calls) {
    for (const TestCall& call : mine) {
      ASSERT_EQ(call.calls, 1);
      EXPECT_TRUE(call.status->ok()) << *call.status;
      EXPECT_THAT(call.answer, ::testing::ElementsAre(6, 6, 6, 6));
    }
  }
  EXPECT_EQ(observer_->succeeded, kThreads * kCalls);
}

}  // namespace caller_runners_test
}  // namespace octet
