#include "server/routing/ramp.h"

#include <gtest/gtest.h>

namespace octet {
namespace ramp_test {

using Rules = ModelConfig::Routing::Ramp;

Rules Steps() {
  Rules rules;
  rules.precision = Precision::kInt8;
  rules.steps = {1, 5, 25, 100};
  rules.hold_seconds = 60;
  return rules;
}

constexpr int64_t kBegan = 1'700'000'000'000;
constexpr RampFacts kNothing;

TEST(RampTest, AStepIsHeldForItsTimeAndUntilTheGuardConsents) {
  const RampState first = {.began_ms = kBegan};
  const RampFacts kept = {.kept_windows = 1};
  EXPECT_EQ(AdvanceRamp(Steps(), first, kept, kBegan + 59'999).state, first);
  EXPECT_EQ(AdvanceRamp(Steps(), first, kNothing, kBegan + 3'600'000).state, first)
      << "without a window that was kept nothing is known";
  const RampStep step = AdvanceRamp(Steps(), first, kept, kBegan + 60'000);
  EXPECT_EQ(step.action, RampAction::kForward);
  EXPECT_EQ(step.state, (RampState{.step = 1, .began_ms = kBegan + 60'000}));
}

TEST(RampTest, AClockThatWasSetBackHoldsTheStepForItsTimeOnceMore) {
  constexpr int64_t kYearBefore = kBegan - int64_t{365} * 86'400'000;
  const RampFacts kept = {.kept_windows = 1};
  const RampStep step = AdvanceRamp(Steps(), {.step = 1, .began_ms = kBegan}, kept, kYearBefore);
  EXPECT_EQ(step.action, std::nullopt);
  EXPECT_EQ(step.state, (RampState{.step = 1, .began_ms = kYearBefore}));
  EXPECT_EQ(AdvanceRamp(Steps(), step.state, kept, kYearBefore + 59'999).action, std::nullopt);
  EXPECT_EQ(AdvanceRamp(Steps(), step.state, kept, kYearBefore + 60'000).action,
            RampAction::kForward);
}

TEST(RampTest, ABrokenWindowTakesTheShareBackForGood) {
  const RampState third = {.step = 2, .began_ms = kBegan};
  EXPECT_EQ(RampShare(Steps(), third), 0.25);
  const RampStep step =
      AdvanceRamp(Steps(), third, {.kept_windows = 9, .broken_windows = 1}, kBegan);
  EXPECT_EQ(step.action, RampAction::kBack);
  EXPECT_EQ(RampShare(Steps(), step.state), 0);
  EXPECT_EQ(AdvanceRamp(Steps(), step.state, {.kept_windows = 9}, kBegan + 600'000).action,
            std::nullopt);
}

TEST(RampTest, TheLastStepStaysAndIsStillWatched) {
  const RampState last = {.step = 3, .began_ms = kBegan};
  EXPECT_EQ(RampShare(Steps(), last), 1);
  const RampStep step = AdvanceRamp(Steps(), last, {.kept_windows = 9}, kBegan + 600'000);
  EXPECT_EQ(step.action, std::nullopt);
  EXPECT_EQ(step.state, (RampState{.step = 3, .began_ms = kBegan, .passed = true}));
  EXPECT_EQ(AdvanceRamp(Steps(), last, {.broken_windows = 1}, kBegan).action, RampAction::kBack);
}

TEST(RampTest, RefusalsThatTheRestDoesNotHaveTakeTheShareBack) {
  const RampState third = {.step = 2, .began_ms = kBegan};
  EXPECT_EQ(AdvanceRamp(Steps(), third, {.refusing_windows = 2}, kBegan).state, third);
  const RampStep step = AdvanceRamp(Steps(), third, {.refusing_windows = 3}, kBegan);
  EXPECT_EQ(step.action, RampAction::kBack);
  EXPECT_TRUE(step.state.stopped);
}

TEST(RampTest, TheLastStepGoesBackForRefusalsUntilItHasBeenKeptToOnce) {
  const RampState last = {.step = 3, .began_ms = kBegan};
  const RampFacts refusing = {.refusing_windows = 3};
  EXPECT_EQ(AdvanceRamp(Steps(), last, refusing, kBegan + 600'000).action, RampAction::kBack);
  const RampFacts kept = {.kept_windows = 1, .refusing_windows = 3};
  EXPECT_EQ(AdvanceRamp(Steps(), last, kept, kBegan).action, RampAction::kBack) << "not yet held";
  const RampState passed = AdvanceRamp(Steps(), last, kept, kBegan + 60'000).state;
  EXPECT_EQ(passed, (RampState{.step = 3, .began_ms = kBegan, .passed = true}))
      << "more traffic than there was";
  EXPECT_EQ(AdvanceRamp(Steps(), passed, refusing, kBegan + 60'000).state, passed)
      << "by guards that have seen nothing of it";
  EXPECT_EQ(AdvanceRamp(Steps(), passed, {.broken_windows = 1}, kBegan).action, RampAction::kBack);
}

TEST(RampTest, QuietWindowsWithTheWholeTrafficAreAsGoodAsAKeptOne) {
  // A rule of copies leaves every window undecided: nobody answers whom a copy could be made of.
  const RampFacts quiet = {.quiet_windows = 3};
  const auto passed = [](const RampState& state, const RampFacts& facts, int64_t later_ms) {
    return AdvanceRamp(Steps(), state, facts, kBegan + later_ms).state.passed;
  };
  const RampState last = {.step = 3, .began_ms = kBegan};
  EXPECT_TRUE(passed(last, quiet, 60'000));
  EXPECT_FALSE(passed(last, quiet, 59'999)) << "not yet held";
  EXPECT_FALSE(passed(last, {.quiet_windows = 2}, 60'000));
  EXPECT_EQ(AdvanceRamp(Steps(), {.step = 2, .began_ms = kBegan}, quiet, kBegan + 60'000).action,
            std::nullopt)
      << "is no consent to the next step";
  Rules half = Steps();
  half.steps = {50};
  EXPECT_FALSE(AdvanceRamp(half, {.began_ms = kBegan}, quiet, kBegan + 60'000).state.passed)
      << "the others answer, and are copied";
}

TEST(RampTest, AStateCanBeWrittenAndReadAgain) {
  const RampState state = {.step = 2, .began_ms = kBegan, .stopped = true};
  EXPECT_EQ(ParseRampState(RampStateText(state), Steps()), state);
  const RampState passed = {.step = 3, .began_ms = kBegan, .passed = true};
  EXPECT_EQ(ParseRampState(RampStateText(passed), Steps()), passed);
  EXPECT_EQ(ParseRampState("3 5 0", Steps()), (RampState{.step = 3, .began_ms = 5}));
  for (const char* text : {"", "2", "2 x 0", "4 5 0", "-1 5 0", "2 5 7", "3 5 0 7", "3 5 0 x"}) {
    EXPECT_EQ(ParseRampState(text, Steps()), std::nullopt) << text;
  }
}

}  // namespace ramp_test
}  // namespace octet
