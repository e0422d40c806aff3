#include "server/rpc/load_thread.h"

#include <new>
#include <optional>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octet {
namespace load_thread_test {

TEST(LoadThreadTest, RunsInOrderAndFinishesWhatItTook) {
  std::vector<int> order;
  {
    LoadThread thread;
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(thread.Post([&order, i] { order.push_back(i); }));
  }
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(LoadThreadTest, GoesOnBehindATaskThatThrows) {
  ::testing::internal::CaptureStderr();
  bool ran = false;
  {
    LoadThread thread;
    EXPECT_TRUE(thread.Post([] { throw std::bad_alloc(); }));
    EXPECT_TRUE(thread.Post([&] { ran = true; }));
  }
  EXPECT_TRUE(ran);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("level=error event=task_failed thread=loads error="));
}

TEST(LoadThreadTest, IsNotBusyBehindItsLastTask) {
  LoadThread thread;
  EXPECT_FALSE(thread.busy());
  EXPECT_TRUE(thread.Post([] {}));
  while (thread.busy()) absl::SleepFor(absl::Milliseconds(1));
}

TEST(LoadThreadTest, RefusesWhenTooManyWait) {
  absl::Notification entered;
  absl::Notification go_on;
  size_t ran = 0;
  std::optional<LoadThread> thread(std::in_place);
  EXPECT_TRUE(thread->Post([&] {
    entered.Notify();
    go_on.WaitForNotification();
  }));
  entered.WaitForNotification();
  EXPECT_TRUE(thread->busy());
  for (size_t i = 0; i < LoadThread::kMaxWaiting; ++i) EXPECT_TRUE(thread->Post([&] { ++ran; }));
  EXPECT_FALSE(thread->Post([&] { ++ran; }));
  go_on.Notify();
  thread.reset();
  EXPECT_EQ(ran, LoadThread::kMaxWaiting);
}

}  // namespace load_thread_test
}  // namespace octet
