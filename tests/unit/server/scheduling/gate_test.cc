#include "server/scheduling/gate.h"

#include <thread>

#include <gtest/gtest.h>

#include "tests/support/fake_clock.h"

namespace octet {
namespace gate_test {

using std::chrono::seconds;

TEST(GateTest, LetsInUntilClosed) {
  FakeClock clock;
  Gate gate(clock);
  const auto pass = gate.TryEnter();
  EXPECT_TRUE(pass.has_value());
  gate.Close();
  EXPECT_FALSE(gate.TryEnter().has_value());
  EXPECT_EQ(gate.inside(), 1);
}

TEST(GateTest, WaitingEndsWhenTheLastOneLeaves) {
  FakeClock clock;
  Gate gate(clock);
  auto pass = gate.TryEnter();
  gate.Close();
  bool empty = false;
  std::thread waiter([&] { empty = gate.WaitUntilEmpty(clock.Now() + seconds(10)); });
  clock.AwaitWaiters(1);
  pass.reset();
  waiter.join();
  EXPECT_TRUE(empty);
}

TEST(GateTest, WaitingEndsAtTheDeadline) {
  FakeClock clock;
  Gate gate(clock);
  const auto pass = gate.TryEnter();
  bool empty = true;
  std::thread waiter([&] { empty = gate.WaitUntilEmpty(clock.Now() + seconds(10)); });
  clock.AwaitWaiters(1);
  clock.Advance(seconds(10));
  waiter.join();
  EXPECT_FALSE(empty);
}

TEST(GateTest, AbandoningClosesAndAsksThoseInsideToGiveUp) {
  Gate gate;
  const auto pass = gate.TryEnter();
  gate.Close();
  EXPECT_FALSE(gate.abandoned());
  gate.Abandon();
  EXPECT_TRUE(gate.abandoned());
  EXPECT_EQ(gate.inside(), 1);
}

TEST(GateTest, APassLeavesOnceHoweverOftenItIsMoved) {
  FakeClock clock;
  Gate gate(clock);
  {
    auto first = gate.TryEnter();
    const Gate::Pass second = *std::move(first);
    EXPECT_EQ(gate.inside(), 1);
  }
  EXPECT_EQ(gate.inside(), 0);
  EXPECT_TRUE(gate.WaitUntilEmpty(clock.Now()));
}

}  // namespace gate_test
}  // namespace octet
