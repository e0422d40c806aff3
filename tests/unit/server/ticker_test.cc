#include "server/ticker.h"

#include <atomic>
#include <new>
#include <optional>
#include <thread>

#include "absl/synchronization/notification.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_clock.h"

namespace octet {
namespace ticker_test {

class TickerTest : public ::testing::Test {
 protected:
  Ticker::Task Count() {
    return [this](const std::stop_token&) { ++ticks_; };
  }

  FakeClock clock_;
  std::atomic<int> ticks_{0};
};

TEST_F(TickerTest, TicksAtEveryIntervalAndNotBefore) {
  Ticker ticker("ticker", std::chrono::seconds(5), clock_, Count());
  clock_.AwaitWaiters(1);
  clock_.Advance(std::chrono::milliseconds(4999));
  clock_.AwaitWaiters(1);
  EXPECT_EQ(ticks_, 0);
  for (int i = 1; i <= 3; ++i) {
    clock_.Advance(std::chrono::seconds(5));
    while (ticks_ < i) std::this_thread::yield();
    clock_.AwaitWaiters(1);
  }
  EXPECT_EQ(ticks_, 3);
}

TEST_F(TickerTest, ATaskThatThrowsIsDoneAgain) {
  ::testing::internal::CaptureStderr();
  {
    Ticker ticker("ticker", std::chrono::seconds(5), clock_, [this](const std::stop_token&) {
      if (++ticks_ == 1) throw std::bad_alloc();
    });
    for (int i = 1; i <= 2; ++i) {
      clock_.AwaitWaiters(1);
      clock_.Advance(std::chrono::seconds(5));
      while (ticks_ < i) std::this_thread::yield();
    }
  }
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::HasSubstr("level=error event=task_failed thread=ticker error="));
}

TEST_F(TickerTest, ATaskThatThrowsIsDoneAgainSoonHoweverLongTheInterval) {
  Ticker ticker("ticker", std::chrono::hours(1), clock_, [this](const std::stop_token&) {
    if (++ticks_ == 1) throw std::bad_alloc();
  });
  clock_.AwaitWaiters(1);
  clock_.Advance(std::chrono::hours(1));
  while (ticks_ < 1) std::this_thread::yield();
  clock_.AwaitWaiters(1);
  clock_.Advance(Ticker::kAgain);
  while (ticks_ < 2) std::this_thread::yield();
  clock_.AwaitWaiters(1);
  clock_.Advance(Ticker::kAgain);
  clock_.AwaitWaiters(1);
  EXPECT_EQ(ticks_, 2) << "what did not throw is done after an interval";
}

TEST_F(TickerTest, HurriedItTicksAtOnceAndThenAnIntervalLater) {
  Ticker ticker("ticker", std::chrono::seconds(5), clock_, Count());
  for (int i = 1; i <= 2; ++i) {
    clock_.AwaitWaiters(1);
    clock_.Advance(std::chrono::seconds(4));
    clock_.AwaitWaiters(1);
    ticker.Hurry();
    while (ticks_ < i) std::this_thread::yield();
  }
  clock_.AwaitWaiters(1);
  EXPECT_EQ(ticks_, 2);
  clock_.Advance(std::chrono::seconds(5));
  while (ticks_ < 3) std::this_thread::yield();
}

TEST_F(TickerTest, HurriedDuringATaskItTicksOnceMore) {
  absl::Notification first;
  Ticker ticker("ticker", std::chrono::seconds(5), clock_, [&](const std::stop_token&) {
    if (++ticks_ == 1) first.WaitForNotification();
  });
  ticker.Hurry();
  while (ticks_ < 1) std::this_thread::yield();
  ticker.Hurry();
  ticker.Hurry();
  first.Notify();
  while (ticks_ < 2) std::this_thread::yield();
  clock_.AwaitWaiters(1);
  EXPECT_EQ(ticks_, 2);
}

TEST_F(TickerTest, EndsWhileItWaits) {
  std::optional<Ticker> ticker(std::in_place, "ticker", std::chrono::hours(1), clock_, Count());
  clock_.AwaitWaiters(1);
  ticker.reset();
  EXPECT_EQ(ticks_, 0);
}

}  // namespace ticker_test
}  // namespace octet
