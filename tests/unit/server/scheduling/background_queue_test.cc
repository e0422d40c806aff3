// What a Dispatcher does with queues that nobody waits for.
#include <deque>
#include <thread>

#include <gtest/gtest.h>

#include "server/scheduling/dispatcher.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_request.h"

namespace octet {
namespace background_queue_test {

using std::chrono::milliseconds;
using std::chrono::seconds;

class BackgroundQueueTest : public ::testing::Test {
 protected:
  std::shared_ptr<VariantQueue> Queue(bool background, BatchLimits batch = {.max_batch = 8},
                                      size_t max_requests = 100, size_t max_bytes = 1 << 20) {
    ExecutionTarget target =
        MakeQueue(std::make_shared<FakeModel>(), batch, observer_, max_requests, max_bytes)
            ->target();
    target.background = background;
    return std::make_shared<VariantQueue>(std::move(target));
  }
  TestCall& Submit(const std::shared_ptr<VariantQueue>& queue, size_t held_bytes = 0) {
    TestCall& call = calls_.emplace_back(std::vector<float>(4, 1), Shape{4});
    auto request = call.Request(clock_.Now());
    request->held_bytes = held_bytes;
    dispatcher_.Submit(queue, std::move(request));
    return call;
  }
  void Finish(Batch batch) {
    for (auto& request : batch.requests) {
      FinishRequest(*batch.queue, std::move(request), absl::OkStatus(), {}, clock_.Now());
    }
  }

  FakeClock clock_;
  std::shared_ptr<CountingObserver> observer_ = std::make_shared<CountingObserver>();
  std::deque<TestCall> calls_;
  Dispatcher dispatcher_{clock_};
};

TEST_F(BackgroundQueueTest, RunsWhenNothingElseWaits) {
  const auto background = Queue(true);
  const auto first = Queue(false);
  const auto second = Queue(false);
  Submit(background);
  clock_.Advance(seconds(100));  // no patience makes it urgent
  Submit(first);
  Submit(second);
  std::optional<Batch> batch = dispatcher_.TryTake();
  EXPECT_EQ(batch->queue, first);
  Finish(*std::move(batch));
  batch = dispatcher_.TryTake();
  EXPECT_EQ(batch->queue, second);
  Finish(*std::move(batch));
  batch = dispatcher_.TryTake();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->queue, background);
  Finish(*std::move(batch));
}

TEST_F(BackgroundQueueTest, ItsOneWorkerTakesWhatForegroundWorkersShare) {
  Dispatcher two(clock_, 2);
  for (const bool background : {false, true}) {
    const auto queue = Queue(background);
    queue->times().Observe(1, milliseconds(10), clock_.Now());
    queue->times().Observe(2, milliseconds(18), clock_.Now());
    queue->times().Observe(4, milliseconds(33), clock_.Now());
    for (int i = 0; i < 4; ++i) {
      TestCall& call = calls_.emplace_back(std::vector<float>(4, 1), Shape{4});
      two.Submit(queue, call.Request(clock_.Now()));
    }
    std::optional<Batch> batch = two.TryTake();
    ASSERT_TRUE(batch.has_value());
    EXPECT_EQ(batch->requests.size(), background ? 4U : 2U);
    Finish(*std::move(batch));
    while ((batch = two.TryTake())) Finish(*std::move(batch));
  }
}

TEST_F(BackgroundQueueTest, StaysBehindWhatWaitsToBecomeFull) {
  const auto background = Queue(true);
  const auto filling = Queue(false, {.max_batch = 8, .max_delay = milliseconds(5)});
  Submit(filling);
  Submit(background);
  EXPECT_FALSE(dispatcher_.TryTake().has_value());
  clock_.Advance(milliseconds(5));
  EXPECT_EQ(dispatcher_.TryTake()->queue, filling);
  EXPECT_EQ(dispatcher_.TryTake()->queue, background);
}

TEST_F(BackgroundQueueTest, RunsOnOneWorkerAtATime) {
  const auto one = Queue(true);
  const auto other = Queue(true);
  const auto foreground = Queue(false);
  Submit(one);
  Submit(other);
  std::optional<Batch> running = dispatcher_.TryTake();
  ASSERT_TRUE(running.has_value());
  EXPECT_FALSE(dispatcher_.TryTake().has_value()) << "the other workers stay free";
  Submit(foreground);
  EXPECT_EQ(dispatcher_.TryTake()->queue, foreground);
  running.reset();
  EXPECT_EQ(dispatcher_.TryTake()->queue, other);
}

TEST_F(BackgroundQueueTest, AWaitingWorkerGoesOnWhenTheOneBeforeHasRun) {
  const auto queue = Queue(true, {.max_batch = 1});
  Submit(queue);
  Submit(queue);
  std::optional<Batch> running = dispatcher_.TryTake();
  std::optional<Batch> next;
  std::thread worker([&] { next = dispatcher_.Take(); });
  clock_.AwaitWaiters(1);
  running.reset();
  worker.join();
  EXPECT_TRUE(next.has_value());
}

TEST_F(BackgroundQueueTest, BatchesAsOthersDo) {
  const auto queue = Queue(true);
  for (int i = 0; i < 8; ++i) Submit(queue);
  EXPECT_EQ(dispatcher_.TryTake()->requests.size(), 8U);
}

TEST_F(BackgroundQueueTest, IsBoundedByItselfWithWhatItHolds) {
  const auto queue = Queue(true, {.max_batch = 8}, 100, 200);
  const auto foreground = Queue(false, {.max_batch = 8}, 1);
  Submit(queue, 100);  // and 16 bytes of input
  TestCall& refused = Submit(queue, 100);
  ASSERT_EQ(refused.calls, 1);
  EXPECT_EQ(refused.status->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(refused.timings.ran);
  EXPECT_EQ(Submit(foreground).calls, 0) << "another queue's room is its own";
  EXPECT_EQ(observer_->waiting_bytes, 116 + 16);
  const auto few = Queue(true, {.max_batch = 8}, 1);
  Submit(few);
  EXPECT_EQ(Submit(few).status->code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(BackgroundQueueTest, IsEmptiedFirstWhenTheServerDrains) {
  const auto queue = Queue(true);
  const auto foreground = Queue(false);
  TestCall& copy = Submit(queue);
  TestCall& accepted = Submit(foreground);
  dispatcher_.Close();
  ASSERT_EQ(copy.calls, 1) << "nobody runs copies to drain";
  EXPECT_EQ(copy.status->code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(copy.timings.ran);
  EXPECT_EQ(accepted.calls, 0);
  EXPECT_EQ(Submit(queue).status->code(), absl::StatusCode::kUnavailable);
  Finish(*dispatcher_.Take());
  EXPECT_TRUE(accepted.status->ok());
  EXPECT_FALSE(dispatcher_.Take().has_value());
  EXPECT_EQ(observer_->waiting_bytes, 0);
}

TEST_F(BackgroundQueueTest, AFlushEndsItAndTakesWhatOthersSend) {
  const auto queue = Queue(true);
  const auto foreground = Queue(false);
  TestCall& copy = Submit(queue);
  dispatcher_.Flush();
  EXPECT_EQ(copy.status->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Submit(queue).status->code(), absl::StatusCode::kUnavailable);
  TestCall& follows = Submit(foreground);
  EXPECT_EQ(follows.calls, 0);
  Finish(*dispatcher_.Take());
  EXPECT_TRUE(follows.status->ok());
  dispatcher_.Close();
  EXPECT_FALSE(dispatcher_.Take().has_value());
}

TEST_F(BackgroundQueueTest, LetsGoOfTheDeadAlsoWhileOthersKeepTheWorkersBusy) {
  auto queue = Queue(true);
  const auto foreground = Queue(false);
  const std::weak_ptr<VariantQueue> watch = queue;
  TestCall& dead = Submit(queue);
  queue.reset();
  dead.cancelled = true;
  Submit(foreground);
  Submit(foreground);
  clock_.Advance(milliseconds(1));
  Finish(*dispatcher_.TryTake());
  ASSERT_EQ(dead.calls, 1);
  EXPECT_EQ(dead.status->code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(watch.expired()) << "and with it of the model";
}

}  // namespace background_queue_test
}  // namespace octet
