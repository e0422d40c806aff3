#include "server/scheduling/worker_pool.h"

#include <deque>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_model.h"
#include "tests/support/test_request.h"

namespace octet {
namespace worker_pool_test {

TEST(PlanWorkersTest, NeverPlansMoreThreadsThanCoresByItself) {
  for (int cores = 1; cores <= 128; ++cores) {
    const WorkerPlan plan = PlanWorkers({}, cores);
    EXPECT_GE(plan.workers, 1);
    EXPECT_LE(plan.workers * plan.threads, cores);
  }
  EXPECT_EQ(PlanWorkers({}, 2), (WorkerPlan{2, 1}));
  EXPECT_EQ(PlanWorkers({}, 16), (WorkerPlan{8, 2}));
}

TEST(PlanWorkersTest, KeepsWhatTheConfigurationSays) {
  EXPECT_EQ(PlanWorkers({.count = 1, .threads = 2}, 2), (WorkerPlan{1, 2}));
  EXPECT_EQ(PlanWorkers({.count = 8, .threads = 0}, 4), (WorkerPlan{8, 1}));
  EXPECT_EQ(PlanWorkers({.count = 0, .threads = 2}, 4), (WorkerPlan{2, 2}));
  EXPECT_EQ(PlanWorkers({.count = 0, .threads = 8}, 4), (WorkerPlan{1, 8}));
}

TEST(WorkerPoolTest, StoppingAnswersEverythingThatWasAccepted) {
  const auto observer = std::make_shared<CountingObserver>();
  const auto queue = MakeQueue(std::make_shared<FakeModel>(), {.max_batch = 4}, observer);
  std::deque<TestCall> calls;
  {
    Dispatcher dispatcher(Clock::Real());
    WorkerPool pool(dispatcher, {2, 1}, Clock::Real());
    for (int i = 0; i < 50; ++i) {
      TestCall& call = calls.emplace_back(std::vector<float>(4, static_cast<float>(i)), Shape{4});
      dispatcher.Submit(queue, call.Request(Clock::Real().Now()));
    }
  }
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(calls[i].calls, 1);
    EXPECT_TRUE(calls[i].status->ok()) << *calls[i].status;
    EXPECT_THAT(calls[i].answer, ::testing::Each(2.0F * static_cast<float>(i)));
  }
}

TEST(WorkerPoolTest, RequestsThatComeWhileTheWorkersAreBusyShareABatch) {
  const auto observer = std::make_shared<CountingObserver>();
  const auto model = std::make_shared<FakeModel>();
  absl::Notification started;
  absl::Notification go_on;
  std::atomic<int> runs = 0;
  model->before_run = [&] {
    if (runs++ == 0) {
      started.Notify();
      go_on.WaitForNotification();
    }
    return absl::OkStatus();
  };
  const auto queue = MakeQueue(model, {.max_batch = 8}, observer);
  Dispatcher dispatcher(Clock::Real());
  WorkerPool pool(dispatcher, {1, 1}, Clock::Real());
  std::deque<TestCall> calls;
  const auto submit = [&] {
    TestCall& call = calls.emplace_back(std::vector<float>(4, 1), Shape{4});
    dispatcher.Submit(queue, call.Request(Clock::Real().Now()));
  };
  submit();
  started.WaitForNotification();
  for (int i = 0; i < 8; ++i) submit();
  go_on.Notify();
  for (TestCall& call : calls) call.finished.WaitForNotification();
  EXPECT_EQ(observer->batches, 2);
  EXPECT_EQ(observer->rows, 9);
}

// Several threads submit to several queues, some requests are cancelled or late, and the queues
// overflow: each request ends exactly once, and every count adds up.
TEST(WorkerPoolTest, EveryRequestEndsExactlyOnceUnderLoad) {
  constexpr int kThreads = 4;
  constexpr int kPerThread = 500;
  constexpr unsigned kSeed = 20240607;
  SCOPED_TRACE(kSeed);
  const auto observer = std::make_shared<CountingObserver>();
  std::vector<std::shared_ptr<VariantQueue>> queues;
  for (int i = 0; i < 3; ++i) {
    const BatchLimits limits = {.max_batch = 4, .max_delay = std::chrono::microseconds(100 * i)};
    queues.push_back(MakeQueue(std::make_shared<FakeModel>(), limits, observer, 16));
  }
  std::vector<std::deque<TestCall>> calls(kThreads);
  {
    Dispatcher dispatcher(Clock::Real());
    WorkerPool pool(dispatcher, {2, 1}, Clock::Real());
    std::vector<std::jthread> clients;
    for (int t = 0; t < kThreads; ++t) {
      clients.emplace_back([&, t] {
        std::mt19937 random(kSeed + t);
        for (int i = 0; i < kPerThread; ++i) {
          const TimePoint now = Clock::Real().Now();
          TestCall& call =
              calls[t].emplace_back(std::vector<float>(4 * (1 + random() % 3), 1), Shape{4});
          const bool hurried = random() % 4 == 0;
          const TimePoint deadline =
              hurried ? now + std::chrono::microseconds(random() % 200) : kNever;
          dispatcher.Submit(queues[random() % 3], call.Request(now, deadline));
          call.cancelled = random() % 8 == 0;
        }
      });
    }
    clients.clear();
  }
  int64_t succeeded = 0;
  for (auto& of_thread : calls) {
    for (TestCall& call : of_thread) {
      ASSERT_EQ(call.calls, 1);
      if (!call.status->ok()) continue;
      ++succeeded;
      EXPECT_THAT(call.answer, ::testing::Each(2.0F));
    }
  }
  EXPECT_GT(succeeded, 0);
  EXPECT_EQ(observer->finished, kThreads * kPerThread);
  EXPECT_EQ(observer->queued, observer->dequeued);
  EXPECT_EQ(observer->waiting_bytes, 0);
  EXPECT_EQ(observer->succeeded, succeeded);
  EXPECT_EQ(observer->batched_requests, succeeded);
}

}  // namespace worker_pool_test
}  // namespace octet
