#include "server/scheduling/dispatcher.h"

#include <array>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/scheduling/retry_after.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_request.h"

namespace octet {
namespace dispatcher_test {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DispatcherTest : public ::testing::Test {
 protected:
  std::shared_ptr<VariantQueue> Queue(BatchLimits batch = {.max_batch = 8},
                                      size_t max_requests = 100, size_t max_bytes = 1 << 20) {
    return MakeQueue(std::make_shared<FakeModel>(), batch, observer_, max_requests, max_bytes);
  }

  /// A queue of a model that does not batch, with three levels of priority, the second one for those that ask for none.
  std::shared_ptr<VariantQueue> LevelledQueue() {
    ExecutionTarget target = Queue({.max_batch = 1})->target();
    target.levels = {.count = 3, .default_level = 2};
    return std::make_shared<VariantQueue>(std::move(target));
  }

  /// Submits a request of `rows` rows of four floats (16 bytes).
  TestCall& Submit(const std::shared_ptr<VariantQueue>& queue, int rows = 1,
                   TimePoint deadline = kNever, uint64_t priority = 0) {
    TestCall& call = calls_.emplace_back(std::vector<float>(size_t{4} * rows, 1), Shape{4});
    auto request = call.Request(clock_.Now(), deadline);
    request->priority = priority;
    dispatcher_.Submit(queue, std::move(request));
    return call;
  }

  /// Finishes a taken batch as a worker does.
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

TEST_F(DispatcherTest, HandsOutWhatWaitsAsOneBatch) {
  const auto queue = Queue();
  for (int i = 0; i < 3; ++i) Submit(queue);
  std::optional<Batch> batch = dispatcher_.TryTake();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->requests.size(), 3U);
  EXPECT_FALSE(dispatcher_.TryTake().has_value());
  Finish(*std::move(batch));
  EXPECT_EQ(observer_->queued, 3);
  EXPECT_EQ(observer_->dequeued, 3);
  EXPECT_EQ(observer_->waiting_bytes, 0);
}

TEST_F(DispatcherTest, AQueueIsBoundedByItsNumberOfRequests) {
  const auto queue = Queue({.max_batch = 8}, 2);
  Submit(queue);
  Submit(queue);
  TestCall& refused = Submit(queue);
  ASSERT_EQ(refused.calls, 1) << "refused at once";
  EXPECT_EQ(refused.status->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(Message(*refused.status)),
              HasSubstr("at most 2 requests wait: net/1/fp32"));
  Finish(*dispatcher_.TryTake());
  EXPECT_EQ(Submit(queue).calls, 0) << "there is room again";
}

TEST_F(DispatcherTest, AQueueIsBoundedByItsBytes) {
  const auto queue = Queue({.max_batch = 8}, 100, 40);
  Submit(queue, 2);
  EXPECT_EQ(Submit(queue, 1).status->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(dispatcher_.queued(), 1U);
}

/// Does something when it is told of a request that comes.
class HookedObserver final : public QueueObserver {
 public:
  void OnQueued(size_t bytes) override {
    waiting_bytes += static_cast<int64_t>(bytes);
    on_queued();
  }
  void OnDequeued(size_t bytes) override { waiting_bytes -= static_cast<int64_t>(bytes); }
  void OnRefused(Refusal) override { ++refused; }
  void OnBatch(const BatchRecord&) override {}
  void OnFinished(absl::StatusCode, int64_t, const RequestTimings&) override {}

  std::function<void()> on_queued = [] {};
  int64_t waiting_bytes = 0;
  int refused = 0;
};

/// Strings are walked once, and by nobody who holds the lock: a walk from then on would find other lengths.
TEST_F(DispatcherTest, TheBytesOfARequestAreCountedOnceBeforeItsTurn) {
  const auto observer = std::make_shared<HookedObserver>();
  const auto queue = MakeQueue(std::make_shared<FakeModel>(), {.max_batch = 8}, observer, 100, 500);
  const std::string text(1000, 'x');
  std::array<std::string_view, 4> words;
  observer->on_queued = [&] { words.fill(text); };
  for (int i = 0; i < 2; ++i) {
    words.fill({});
    TestCall& call = calls_.emplace_back(std::vector<float>(4, 1), Shape{4});
    auto request = call.Request(clock_.Now());
    request->inputs = {{words.data(), {DType::kString, {1, 4}}}};
    dispatcher_.Submit(queue, std::move(request));
  }
  EXPECT_EQ(observer->refused, 0);
  EXPECT_EQ(observer->waiting_bytes, 2 * static_cast<int64_t>(sizeof(words)));
  std::optional<Batch> batch = dispatcher_.TryTake();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(observer->waiting_bytes, 0);
  Finish(*std::move(batch));
}

TEST_F(DispatcherTest, AFullQueueMakesRoomByDroppingTheDead) {
  const auto queue = Queue({.max_batch = 8}, 2);
  TestCall& expired = Submit(queue, 1, clock_.Now() + milliseconds(5));
  TestCall& cancelled = Submit(queue);
  cancelled.cancelled = true;
  clock_.Advance(milliseconds(6));
  EXPECT_EQ(Submit(queue).calls, 0);
  EXPECT_EQ(expired.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(cancelled.status->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(dispatcher_.queued(), 1U);
}

TEST_F(DispatcherTest, ARequestThatIsLateOnArrivalIsNotQueued) {
  TestCall& call = Submit(Queue(), 1, clock_.Now());
  EXPECT_EQ(call.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(dispatcher_.queued(), 0U);
}

TEST_F(DispatcherTest, ADeadlineThatPassesInTheQueueIsToldWithItsWaitingTime) {
  const auto queue = Queue();
  TestCall& call = Submit(queue, 1, clock_.Now() + milliseconds(5));
  clock_.Advance(milliseconds(7));
  EXPECT_FALSE(dispatcher_.TryTake().has_value());
  ASSERT_EQ(call.calls, 1);
  EXPECT_EQ(call.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(call.timings.queue, milliseconds(7));
  EXPECT_EQ(call.timings.total, milliseconds(7));
  EXPECT_EQ(observer_->waiting_bytes, 0);
}

TEST_F(DispatcherTest, DeadOnesBetweenLiveOnesAreTakenOutAlone) {
  const auto queue = Queue();
  TestCall& first = Submit(queue);
  TestCall& gone = Submit(queue);
  TestCall& late = Submit(queue, 1, clock_.Now() + milliseconds(1));
  TestCall& last = Submit(queue);
  gone.cancelled = true;
  clock_.Advance(milliseconds(2));
  Finish(*dispatcher_.TryTake());
  EXPECT_TRUE(first.status->ok());
  EXPECT_EQ(gone.status->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(late.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(last.status->ok());
  for (const TestCall& call : calls_) EXPECT_EQ(call.calls, 1);
}

TEST_F(DispatcherTest, TheMostUrgentQueueIsServedFirst) {
  const auto calm = Queue();
  const auto urgent = Queue();
  Submit(calm);
  clock_.Advance(milliseconds(1));
  Submit(urgent, 1, clock_.Now() + milliseconds(100));
  EXPECT_EQ(dispatcher_.TryTake()->queue, urgent);
}

TEST_F(DispatcherTest, ABusyQueueWithDeadlinesDoesNotStarveAnother) {
  const auto busy = Queue({.max_batch = 1});
  const auto calm = Queue();
  TestCall& patient = Submit(calm);
  int taken_before = 0;
  for (; patient.calls == 0 && taken_before < 1000; ++taken_before) {
    Submit(busy, 1, clock_.Now() + milliseconds(10));
    clock_.Advance(milliseconds(2));
    Finish(*dispatcher_.TryTake());
  }
  EXPECT_LE(taken_before, 1 + kPatience / milliseconds(2))
      << "served once its patience has run out";
}

TEST_F(DispatcherTest, RequestsGoByTheirLevelAndUnknownOnesByTheDefault) {
  const auto queue = LevelledQueue();
  for (const uint64_t priority : {uint64_t{3}, uint64_t{0}, uint64_t{99999}, uint64_t{1}}) {
    Submit(queue, 1, kNever, priority);
  }
  Submit(queue, 1, kNever, 2);
  std::vector<uint64_t> order;
  while (auto batch = dispatcher_.TryTake()) {
    order.push_back(batch->requests[0]->priority);
    Finish(*std::move(batch));
  }
  EXPECT_THAT(order, ElementsAre(1, 0, 99999, 2, 3));
}

TEST_F(DispatcherTest, WithoutLevelsAPriorityMeansNothing) {
  const auto queue = Queue({.max_batch = 1});
  Submit(queue, 1, kNever, 2);
  Submit(queue, 1, kNever, 1);
  EXPECT_EQ(dispatcher_.TryTake()->requests[0]->priority, 2U);
}

TEST_F(DispatcherTest, ABusyFirstLevelDoesNotStarveALaterOne) {
  const auto queue = LevelledQueue();
  TestCall& patient = Submit(queue, 1, kNever, 3);
  int taken_before = 0;
  for (; patient.calls == 0 && taken_before < 10'000; ++taken_before) {
    Submit(queue, 1, kNever, 1);
    clock_.Advance(milliseconds(1));
    Finish(*dispatcher_.TryTake());
  }
  EXPECT_GE(taken_before, 2 * kPatience / milliseconds(1));
  EXPECT_LE(taken_before, 2 * kPatience / milliseconds(1) + 2) << "two levels, two patiences";
}

TEST_F(DispatcherTest, ABusyFirstLevelDoesNotKeepALaterOnesDeadlineFromPassing) {
  const auto queue = LevelledQueue();
  const TestCall& late = Submit(queue, 1, clock_.Now() + milliseconds(50), 3);
  int turns = 0;
  for (; late.calls == 0 && turns < 10'000; ++turns) {
    Submit(queue, 1, kNever, 1);
    clock_.Advance(milliseconds(1));
    Finish(*dispatcher_.TryTake());
  }
  ASSERT_EQ(late.calls, 1);
  EXPECT_EQ(late.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LE(turns, 62) << "a sweep every ten";
}

TEST_F(DispatcherTest, LevelsOrderTheRequestsOfOneModelAlone) {
  const auto levelled = LevelledQueue();
  const auto other = Queue();
  Submit(levelled, 1, kNever, 3);
  clock_.Advance(milliseconds(1));
  Submit(other);
  EXPECT_EQ(dispatcher_.TryTake()->queue, levelled);
}

TEST_F(DispatcherTest, WhoGoesFirstIsNotRefusedForThoseBehind) {
  const auto queue = LevelledQueue();
  queue->times().Observe(1, milliseconds(20), clock_.Now());
  for (int i = 0; i < 10; ++i) Submit(queue);
  const TimePoint deadline = clock_.Now() + milliseconds(50);
  EXPECT_EQ(Submit(queue, 1, deadline, 3).calls, 1) << "ten run before it";
  EXPECT_EQ(Submit(queue, 1, deadline, 1).calls, 0);
}

TEST_F(DispatcherTest, AQueueThatWaitsToBecomeFullDoesNotHoldUpAnother) {
  const auto waiting = Queue({.max_batch = 8, .max_delay = seconds(1)});
  const auto ready = Queue();
  Submit(waiting);
  Submit(ready);
  EXPECT_EQ(dispatcher_.TryTake()->queue, ready);
  EXPECT_FALSE(dispatcher_.TryTake().has_value());
  clock_.Advance(seconds(1));
  EXPECT_EQ(dispatcher_.TryTake()->queue, waiting);
}

TEST_F(DispatcherTest, RequestsOfDifferentShapesRunApart) {
  const auto queue = MakeQueue(std::make_shared<FakeModel>(Shape{kUnknownDim, kUnknownDim}),
                               {.max_batch = 8}, observer_);
  TestCall narrow(std::vector<float>(2, 1), {2});
  TestCall wide(std::vector<float>(3, 1), {3});
  TestCall narrow_again(std::vector<float>(4, 1), {2});
  for (TestCall* call : {&narrow, &wide, &narrow_again}) {
    dispatcher_.Submit(queue, call->Request(clock_.Now()));
  }
  std::optional<Batch> batch = dispatcher_.TryTake();
  EXPECT_EQ(batch->requests.size(), 2U);
  Finish(*std::move(batch));
  EXPECT_EQ(wide.calls, 0);
  Finish(*dispatcher_.TryTake());
  EXPECT_EQ(wide.calls, 1);
}

TEST_F(DispatcherTest, RequestsOfAScalarBesideOpenExtentsWaitTogether) {
  const auto model = std::make_shared<FakeModel>(Shape{1, kUnknownDim});
  model->mutable_signature().inputs.push_back({"rate", DType::kF32, Shape{}});
  const auto queue = MakeQueue(model, {.max_batch = 1}, observer_);
  const float rate = 16000;
  TestCall first(std::vector<float>(2, 1), {2});
  TestCall second(std::vector<float>(2, 1), {2});
  for (TestCall* call : {&first, &second}) {
    auto request = call->Request(clock_.Now());
    request->inputs.push_back({&rate, {DType::kF32, Shape{}}});
    dispatcher_.Submit(queue, std::move(request));
  }
  Finish(*dispatcher_.TryTake());
  EXPECT_EQ(second.calls, 0) << "the model does not batch";
  Finish(*dispatcher_.TryTake());
  EXPECT_EQ(second.calls, 1);
}

TEST_F(DispatcherTest, OnceClosedItRefusesAndHandsOutTheRestAtOnce) {
  const auto queue = Queue({.max_batch = 8, .max_delay = seconds(100)});
  TestCall& accepted = Submit(queue);
  dispatcher_.Close();
  EXPECT_EQ(Submit(queue).status->code(), absl::StatusCode::kUnavailable);
  Finish(*dispatcher_.Take());
  EXPECT_TRUE(accepted.status->ok());
  EXPECT_FALSE(dispatcher_.Take().has_value()) << "closed and empty";
}

TEST_F(DispatcherTest, AbandoningAnswersEverythingThatWaits) {
  const auto queue = Queue();
  TestCall& call = Submit(queue);
  dispatcher_.Abandon();
  EXPECT_EQ(call.status->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(observer_->waiting_bytes, 0);
}

TEST_F(DispatcherTest, AQueueIsLetGoWithItsLastRequest) {
  auto queue = Queue();
  const std::weak_ptr<VariantQueue> watch = queue;
  Submit(queue);
  queue.reset();
  EXPECT_FALSE(watch.expired()) << "held by the request that waits";
  Finish(*dispatcher_.TryTake());
  EXPECT_TRUE(watch.expired());
}

TEST_F(DispatcherTest, AWaitingTakeWakesWhenARequestComes) {
  std::optional<Batch> batch;
  std::thread worker([&] { batch = dispatcher_.Take(); });
  clock_.AwaitWaiters(1);
  Submit(Queue());
  worker.join();
  ASSERT_TRUE(batch.has_value());
  Finish(*std::move(batch));
}

TEST_F(DispatcherTest, AWaitingTakeWakesWhenTheDelayIsOver) {
  Submit(Queue({.max_batch = 8, .max_delay = milliseconds(5)}));
  std::optional<Batch> batch;
  std::thread worker([&] { batch = dispatcher_.Take(); });
  clock_.AwaitWaiters(1);
  clock_.Advance(milliseconds(5));
  worker.join();
  ASSERT_TRUE(batch.has_value());
  EXPECT_EQ(batch->taken, clock_.Now());
  Finish(*std::move(batch));
}

TEST_F(DispatcherTest, ADeadlineThatCannotBeMetIsRefusedBeforeItIsQueued) {
  const auto queue = Queue();
  queue->times().Observe(1, milliseconds(20), clock_.Now());
  TestCall& call = Submit(queue, 1, clock_.Now() + milliseconds(19));
  ASSERT_EQ(call.calls, 1);
  EXPECT_EQ(call.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Message(*call.status),
            "deadline cannot be met, expected 20.000 ms to the answer, 19.000 ms remain: "
            "net/1/fp32");
  EXPECT_EQ(observer_->refused[static_cast<size_t>(Refusal::kDeadline)], 1);
  EXPECT_EQ(Submit(queue, 1, clock_.Now() + milliseconds(20)).calls, 0);
}

TEST_F(DispatcherTest, ADeadlineThatBecameTooShortInTheQueueIsRefusedBeforeItRuns) {
  const auto queue = Queue();
  TestCall& call = Submit(queue, 1, clock_.Now() + milliseconds(30));
  TestCall& other = Submit(queue);
  clock_.Advance(milliseconds(15));
  queue->times().Observe(1, milliseconds(20), clock_.Now());
  Finish(*dispatcher_.TryTake());
  EXPECT_TRUE(other.status->ok());
  ASSERT_EQ(call.calls, 1);
  EXPECT_EQ(call.status->code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(Message(*call.status)), HasSubstr("expected 20.000 ms"));
  EXPECT_EQ(observer_->refused[static_cast<size_t>(Refusal::kDeadline)], 1);
}

TEST_F(DispatcherTest, SurplusIsRefusedAtOnceSoThatTheRestKeepsToTheTarget) {
  const auto queue = Queue({.max_batch = 1, .p99_target = milliseconds(40)});
  // One worker that takes 10 ms a row; two requests come in that time.
  int finished = 0;
  std::optional<Batch> running;
  for (int step = 0; step < 200; ++step) {
    Submit(queue);
    if (step % 2 == 0) {
      if (running) {
        queue->times().Observe(1, milliseconds(10), clock_.Now());
        Finish(*std::move(running));
        ++finished;
      }
      running = dispatcher_.TryTake();
    }
    clock_.Advance(milliseconds(5));
  }
  Finish(*std::move(running));
  int late = 0;
  int refused = 0;
  for (const TestCall& call : calls_) {
    if (call.calls == 0) continue;
    if (call.status->ok()) late += call.timings.total > milliseconds(40) ? 1 : 0;
    if (!call.status->ok()) ++refused;
  }
  EXPECT_EQ(finished, 99) << "the worker was never without work";
  EXPECT_EQ(late, 0);
  EXPECT_GT(refused, 80);
  EXPECT_EQ(observer_->refused[static_cast<size_t>(Refusal::kTarget)], refused);
  for (const TestCall& call : calls_) {
    if (call.calls == 0 || call.status->ok()) continue;
    EXPECT_EQ(call.status->code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(Message(*call.status)), HasSubstr("a p99 target of 40 ms"));
    EXPECT_TRUE(RetryAfterOf(*call.status).has_value());
  }
}

TEST_F(DispatcherTest, ABacklogThatIsDroppedIsNoServiceTime) {
  const auto queue = Queue({.max_batch = 1, .p99_target = milliseconds(40)});
  // Eight times a batch is taken, the one behind it is given up, and later others come.
  for (int round = 0; round < RowTime::kLeastSamples; ++round) {
    queue->times().Observe(1, milliseconds(1), clock_.Now());
    Submit(queue);
    TestCall& gone = Submit(queue);
    Finish(*dispatcher_.TryTake());
    gone.cancelled = true;
    EXPECT_FALSE(dispatcher_.TryTake().has_value());
    clock_.Advance(milliseconds(100));
    EXPECT_EQ(Submit(queue).calls, 0);
    EXPECT_EQ(Submit(queue).calls, 0) << "a row takes a millisecond, whatever was dropped";
    Finish(*dispatcher_.TryTake());
    Finish(*dispatcher_.TryTake());
  }
}

TEST_F(DispatcherTest, AServiceTimeThatWasTooLongIsForgotten) {
  const auto queue = Queue({.max_batch = 1, .p99_target = milliseconds(40)});
  queue->times().Observe(1, milliseconds(1), clock_.Now());
  for (int i = 0; i <= RowTime::kLeastSamples; ++i) Submit(queue);
  // Others have the workers.
  for (int i = 0; i <= RowTime::kLeastSamples; ++i) {
    clock_.Advance(milliseconds(100));
    Finish(*dispatcher_.TryTake());
  }
  EXPECT_EQ(Submit(queue).calls, 0);
  EXPECT_EQ(Submit(queue).calls, 1) << "100 ms for each that waits";
  Finish(*dispatcher_.TryTake());
  clock_.Advance(2 * RowTime::kSpan);
  EXPECT_EQ(Submit(queue).calls, 0);
  EXPECT_EQ(Submit(queue).calls, 0);
}

TEST_F(DispatcherTest, AModelOfManyShapesHoldsNoDeadlineAgainstTheTimeOfAnother) {
  const auto queue = MakeQueue(std::make_shared<FakeModel>(Shape{kUnknownDim, kUnknownDim}),
                               {.max_batch = 8}, observer_);
  queue->times().Observe(1, milliseconds(20), clock_.Now());
  EXPECT_EQ(Submit(queue, 1, clock_.Now() + milliseconds(19)).calls, 0);
  Finish(*dispatcher_.TryTake());
  EXPECT_TRUE(calls_.back().status->ok());
}

TEST_F(DispatcherTest, WhereTheDataDecideNoDeadlineIsHeldAgainstTheTimeOfOtherData) {
  const auto queue = MakeQueue(std::make_shared<FakeModel>(), {.max_batch = 8}, observer_, 100,
                               1 << 20, /*steady=*/false);
  queue->times().Observe(1, milliseconds(20), clock_.Now());
  EXPECT_EQ(Submit(queue, 1, clock_.Now() + milliseconds(19)).calls, 0);
  Finish(*dispatcher_.TryTake());
  EXPECT_TRUE(calls_.back().status->ok());
}

TEST_F(DispatcherTest, AnInputOfAnyRankHasManyShapes) {
  const auto model = std::make_shared<FakeModel>(Shape{});
  model->mutable_signature().inputs[0].rank_known = false;
  const auto queue = MakeQueue(model, {.max_batch = 1}, observer_);
  queue->times().Observe(1, milliseconds(20), clock_.Now());
  EXPECT_EQ(Submit(queue, 1, clock_.Now() + milliseconds(19)).calls, 0);
  Finish(*dispatcher_.TryTake());
}

TEST_F(DispatcherTest, WhoFindsAQueueFullHearsHowLongItIs) {
  const auto queue = Queue({.max_batch = 1}, 2);
  Submit(queue);
  Submit(queue);
  EXPECT_EQ(RetryAfterOf(*Submit(queue).status), kUnknownRetryAfter) << "nothing was measured";
  queue->times().Observe(1, milliseconds(30), clock_.Now());
  EXPECT_EQ(RetryAfterOf(*Submit(queue).status), milliseconds(90));
  const auto slow = Queue({.max_batch = 1}, 1);
  slow->times().Observe(1, seconds(30), clock_.Now());
  Submit(slow);
  EXPECT_EQ(RetryAfterOf(*Submit(slow).status), kMostRetryAfter);
}

TEST_F(DispatcherTest, RefusalsAreCountedByTheirReason) {
  const auto queue = Queue({.max_batch = 8}, 1);
  Submit(queue, 1, clock_.Now());
  Submit(queue);
  Submit(queue);
  EXPECT_EQ(observer_->refused[static_cast<size_t>(Refusal::kExpired)], 1);
  EXPECT_EQ(observer_->refused[static_cast<size_t>(Refusal::kQueueFull)], 1);
}

}  // namespace dispatcher_test
}  // namespace octet
