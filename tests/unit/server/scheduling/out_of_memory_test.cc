// What becomes of a request when an allocation fails while it is queued.
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <memory>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "server/scheduling/dispatcher.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_request.h"

namespace {

/// The allocation of this thread that fails, counted from 0; none when negative.
thread_local int failing_allocation = -1;

}  // namespace

// Of the whole test program: as the library's but for that.
void* operator new(std::size_t size) {
  if (failing_allocation >= 0) {
    --failing_allocation;
    if (failing_allocation < 0) throw std::bad_alloc();
  }
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t size, const std::nothrow_t& /*unused*/) noexcept {
  return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace octet {
namespace out_of_memory_test {

class OutOfMemoryTest : public ::testing::Test {
 protected:
  static constexpr size_t kMost = 40;

  TestCall& Call() { return calls_.emplace_back(std::vector<float>(4, 1), Shape{4}); }

  /// Submits the request with its `nth` allocation failing. False when there are not so many.
  static bool SubmitFailing(int nth, Dispatcher& dispatcher, std::shared_ptr<VariantQueue> queue,
                            std::unique_ptr<InferenceRequest> request) {
    failing_allocation = nth;
    dispatcher.Submit(std::move(queue), std::move(request));
    const bool failed = failing_allocation < 0;
    failing_allocation = -1;
    return failed;
  }

  FakeClock clock_;
  std::shared_ptr<CountingObserver> observer_ = std::make_shared<CountingObserver>();
  std::shared_ptr<VariantQueue> queue_ =
      MakeQueue(std::make_shared<FakeModel>(), {.max_batch = 64}, observer_, kMost);
  std::deque<TestCall> calls_;
};

TEST_F(OutOfMemoryTest, ARequestThatCannotBeQueuedIsToldAndTheQueueStaysWhole) {
  Dispatcher dispatcher(clock_);
  int refused = 0;
  // Far enough for the queue to grow several times.
  for (size_t waiting = 0; waiting < kMost; ++waiting) {
    for (int nth = 0;; ++nth) {
      TestCall& call = Call();
      if (!SubmitFailing(nth, dispatcher, queue_, call.Request(clock_.Now()))) break;
      ++refused;
      ASSERT_EQ(call.calls, 1);
      EXPECT_EQ(call.status->code(), absl::StatusCode::kResourceExhausted) << *call.status;
      EXPECT_EQ(dispatcher.queued(), waiting);
    }
    EXPECT_EQ(dispatcher.queued(), waiting + 1);
  }
  EXPECT_GE(refused, 4) << "the list of queues once, the queue more often";
  size_t taken = 0;
  while (std::optional<Batch> batch = dispatcher.TryTake()) {
    taken += batch->requests.size();
    for (auto& request : batch->requests) {
      FinishRequest(*batch->queue, std::move(request), absl::OkStatus(), {}, clock_.Now());
    }
  }
  EXPECT_EQ(taken, kMost);
  EXPECT_EQ(observer_->waiting_bytes, 0);
  for (const TestCall& call : calls_) EXPECT_EQ(call.calls, 1);
}

TEST_F(OutOfMemoryTest, TheDeadThatMakeRoomAreNotLost) {
  bool failed = true;
  for (int nth = 0; failed; ++nth) {
    calls_.clear();
    Dispatcher dispatcher(clock_);
    for (size_t i = 0; i < kMost; ++i) {
      TestCall& call = Call();
      dispatcher.Submit(queue_, call.Request(clock_.Now()));
      call.cancelled = true;
    }
    clock_.Advance(std::chrono::seconds(1));  // it may be searched again
    TestCall& last = Call();
    failed = SubmitFailing(nth, dispatcher, queue_, last.Request(clock_.Now()));
    EXPECT_EQ(last.calls, failed ? 1 : 0) << nth;
    dispatcher.Abandon();
    for (const TestCall& call : calls_) EXPECT_EQ(call.calls, 1) << nth;
  }
}

}  // namespace out_of_memory_test
}  // namespace octet
