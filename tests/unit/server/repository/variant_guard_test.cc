#include "server/repository/variant_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/repository/model_version.h"
#include "server/scheduling/batch_policy.h"
#include "tests/support/fake_clock.h"

namespace octet {
namespace variant_guard_test {

using std::chrono::seconds;
using Rules = ModelConfig::Routing::Guard;

class VariantGuardTest : public ::testing::Test {
 protected:
  void Guard(Rules rules) {
    rules.window_seconds = 10;
    rules.min_samples = 10;
    rules.recover_windows = 2;
    limit_ = std::make_shared<LatencyLimit>(rules.p99_us.value_or(1));
    guard_ = std::make_unique<VariantGuard>("net/1/int8", rules, metrics_, std::vector{pair_},
                                            limit_, events_);
    guard_->Look(clock_.Now());
  }
  static Rules Agreement(Rules::Action action = Rules::Action::kFallBack) {
    Rules rules;
    rules.agreement_percent = 95;
    rules.action = action;
    return rules;
  }
  void Rows(uint64_t agreed, uint64_t all) {
    pair_->top1_agreed.Add(agreed);
    pair_->class_rows.Add(all);
  }
  /// Clients' requests that took so long.
  void Answer(int count, double took) {
    for (int i = 0; i < count; ++i) {
      metrics_->request_duration.Observe(took);
      limit_->Observe(std::chrono::duration_cast<Nanoseconds>(std::chrono::duration<double>(took)));
    }
  }
  /// The window is over.
  void End() {
    clock_.Advance(seconds(10));
    guard_->Look(clock_.Now());
  }
  uint64_t Actions(GuardAction action) const {
    return metrics_->guard_actions.value(static_cast<size_t>(action));
  }

  FakeClock clock_;
  std::shared_ptr<VariantMetrics> metrics_ = std::make_shared<VariantMetrics>();
  std::shared_ptr<ShadowMetrics> pair_ = std::make_shared<ShadowMetrics>();
  std::shared_ptr<TrafficEvents> events_ = std::make_shared<TrafficEvents>();
  std::shared_ptr<LatencyLimit> limit_;
  std::unique_ptr<VariantGuard> guard_;
};

TEST_F(VariantGuardTest, FallsBackAndRecoversByWhatEachWindowSaw) {
  Rows(0, 1000);  // before it began
  Guard(Agreement());
  Rows(90, 100);
  clock_.Advance(seconds(9));
  guard_->Look(clock_.Now());
  EXPECT_FALSE(guard_->fallen_back()) << "the window is not over";
  clock_.Advance(seconds(1));
  guard_->Look(clock_.Now());
  EXPECT_TRUE(guard_->fallen_back());
  EXPECT_EQ(metrics_->guard_tripped.value(), 1);
  EXPECT_EQ(Actions(GuardAction::kFallBack), 1U);
  End();
  EXPECT_TRUE(guard_->fallen_back()) << "nothing was seen";
  Rows(100, 100);
  End();
  EXPECT_TRUE(guard_->fallen_back()) << "one good window is not enough";
  Rows(100, 100);
  End();
  EXPECT_FALSE(guard_->fallen_back());
  EXPECT_EQ(metrics_->guard_tripped.value(), 0);
  EXPECT_EQ(Actions(GuardAction::kRecover), 1U);
  EXPECT_EQ(Actions(GuardAction::kFallBack), 1U);
  const std::vector<TrafficEvent> events = events_->Read();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].who, "net/1/int8");
  EXPECT_EQ(events[0].action, "guard fall_back");
  EXPECT_EQ(events[0].reason, "agreement 90.00 % < 95 %");
  EXPECT_EQ(events[1].action, "guard recover");
}

TEST_F(VariantGuardTest, WhatAGuardSaidThatALoadTookAwayIsNotShownForEver) {
  Guard(Agreement());
  Rows(0, 100);
  End();
  auto version = std::make_shared<ModelVersion>();
  version->variants.emplace_back().metrics = metrics_;
  ASSERT_EQ(metrics_->guard_tripped.value(), 1) << "said behind the load that left it out";
  LookAtGuards(std::vector<std::shared_ptr<const ModelVersion>>{version}, clock_.Now());
  EXPECT_EQ(metrics_->guard_tripped.value(), 0);
}

TEST_F(VariantGuardTest, EachGuardOfAVersionIsLookedAt) {
  Guard(Agreement());
  auto version = std::make_shared<ModelVersion>();
  ServedVariant& variant = version->variants.emplace_back();
  variant.metrics = metrics_;
  variant.guard = std::move(guard_);
  Rows(0, 100);
  clock_.Advance(seconds(10));
  LookAtGuards(std::vector<std::shared_ptr<const ModelVersion>>{version}, clock_.Now());
  EXPECT_TRUE(variant.guard->fallen_back());
  EXPECT_EQ(metrics_->guard_tripped.value(), 1);
}

TEST_F(VariantGuardTest, AShiftHalvesTheShareWithEachBrokenWindow) {
  Guard(Agreement(Rules::Action::kShift));
  for (const double share : {0.5, 0.25, 0.125}) {
    Rows(0, 100);
    End();
    EXPECT_EQ(guard_->share(), share);
  }
  EXPECT_FALSE(guard_->fallen_back());
  EXPECT_EQ(metrics_->guard_tripped.value(), 1);
  EXPECT_EQ(Actions(GuardAction::kShift), 3U);
  for (int window = 0; window < 2; ++window) {
    EXPECT_EQ(guard_->share(), 0.125);
    Rows(100, 100);
    End();
  }
  EXPECT_EQ(guard_->share(), 1);
  EXPECT_EQ(Actions(GuardAction::kRecover), 1U);
  const std::vector<TrafficEvent> events = events_->Read();
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(events[2].action, "guard shift");
  EXPECT_EQ(events[3].action, "guard recover");
}

TEST_F(VariantGuardTest, RecoversWithoutRequestsOfItsOwn) {
  Rules rules = Agreement();
  rules.error_percent = 1;
  rules.p99_us = 10'000;
  Guard(rules);
  Answer(100, 0.1);
  Rows(100, 100);
  End();
  EXPECT_TRUE(guard_->fallen_back()) << "its 99th percentile";
  // Others answer from here on; shadow copies alone say how it does.
  for (int window = 0; window < 2; ++window) {
    Rows(100, 100);
    End();
  }
  EXPECT_FALSE(guard_->fallen_back());
}

TEST_F(VariantGuardTest, StaysAwayWhileNoRuleSpeaks) {
  Rules rules;
  rules.p99_us = 10'000;
  rules.action = Rules::Action::kFallBack;
  Guard(rules);
  Answer(100, 0.1);
  for (int window = 0; window < 5; ++window) End();
  EXPECT_TRUE(guard_->fallen_back());
}

TEST_F(VariantGuardTest, ShowsWhatItIsEachTime) {
  Guard(Agreement());
  metrics_->guard_tripped.Set(1);  // A guard that it replaced, which was looked at once more.
  guard_->Look(clock_.Now());
  EXPECT_EQ(metrics_->guard_tripped.value(), 0);
}

TEST_F(VariantGuardTest, AnAlertLeavesItInTheSplit) {
  Guard(Agreement(Rules::Action::kAlert));
  Rows(0, 100);
  testing::internal::CaptureStderr();
  End();
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::HasSubstr("level=warn event=guard_action variant=net/1/int8 action=alert "
                                 "share=1 reason=\"agreement 0.00 % < 95 %\""));
  ASSERT_EQ(events_->Read().size(), 1U);
  EXPECT_EQ(events_->Read()[0].action, "guard alert");
  EXPECT_FALSE(guard_->fallen_back());
  EXPECT_EQ(metrics_->guard_tripped.value(), 1);
  EXPECT_EQ(Actions(GuardAction::kAlert), 1U);
}

TEST(TrafficEventsTest, TheLastAreKept) {
  TrafficEvents events;
  for (size_t i = 0; i < TrafficEvents::kMost + 3; ++i) events.Add(std::to_string(i), "a", "b");
  ASSERT_EQ(events.Read().size(), TrafficEvents::kMost);
  EXPECT_EQ(events.Read().front().who, "3");
}

TEST_F(VariantGuardTest, ErrorsAreThoseOfOurFaultAmongAllRequests) {
  Rules rules;
  rules.error_percent = 10;
  Guard(rules);
  const auto finish = [&](absl::StatusCode code, int times) {
    for (int i = 0; i < times; ++i) {
      metrics_->requests.Add(static_cast<size_t>(code));
      metrics_->request_duration.Observe(0.001);
    }
  };
  finish(absl::StatusCode::kOk, 20);
  finish(absl::StatusCode::kInvalidArgument, 50);
  finish(absl::StatusCode::kInternal, 7);
  End();
  EXPECT_EQ(metrics_->guard_tripped.value(), 0);
  finish(absl::StatusCode::kOk, 70);
  finish(absl::StatusCode::kUnknown, 10);
  End();
  EXPECT_EQ(metrics_->guard_tripped.value(), 1);
}

TEST_F(VariantGuardTest, RefusalsAreThoseOfTheWindowAndForWantOfRoomOrTime) {
  Rules rules;
  rules.p99_us = 10'000;
  metrics_->refused.Add(static_cast<size_t>(Refusal::kTarget));  // before it began
  Guard(rules);
  const auto window = [&](Refusal reason) {
    Answer(20, 0.001);
    metrics_->refused.Add(static_cast<size_t>(reason));
    End();
  };
  window(Refusal::kExpired);
  EXPECT_EQ(guard_->report().kept_windows, 1U);
  for (const Refusal reason : {Refusal::kQueueFull, Refusal::kDeadline, Refusal::kTarget}) {
    window(reason);
  }
  EXPECT_EQ(guard_->report().refusing_windows, 3U);
  EXPECT_EQ(guard_->report().windows(), 4U);
}

TEST_F(VariantGuardTest, ThePercentileIsTheWindowsOwn) {
  Rules rules;
  rules.p99_us = 10'000;
  Guard(rules);
  Answer(1000, 0.001);
  End();
  EXPECT_EQ(metrics_->guard_tripped.value(), 0);
  Answer(20, 0.1);
  End();
  EXPECT_EQ(metrics_->guard_tripped.value(), 1) << "2% of all, and all of the window";
}

TEST_F(VariantGuardTest, ThePercentileIsCountedAndNotInterpolated) {
  Rules rules;
  rules.p99_us = 50'000;
  Guard(rules);
  Answer(100, 0.040);
  End();
  EXPECT_EQ(guard_->report().kept_windows, 1U) << "50 ms lie in the same bucket";
  Answer(99, 0.030);
  Answer(1, 0.060);
  End();
  EXPECT_EQ(guard_->report().kept_windows, 2U) << "99 of 100 keep to it";
  Answer(98, 0.030);
  Answer(2, 0.0501);
  End();
  EXPECT_EQ(guard_->report().broken_windows, 1U);
  EXPECT_EQ(guard_->report().last_broken, "slower than 50000 us 2.00 % > 1 %");
}

TEST_F(VariantGuardTest, TheRatioIsTheMeanOfTheWindow) {
  Rules rules;
  rules.sqnr_db = 20;
  Guard(rules);
  for (int i = 0; i < 10; ++i) pair_->sqnr.Observe(i % 2 == 0 ? 10 : 32);
  End();
  EXPECT_EQ(metrics_->guard_tripped.value(), 0);
  for (int i = 0; i < 10; ++i) pair_->sqnr.Observe(i % 2 == 0 ? 10 : 28);
  End();
  EXPECT_EQ(metrics_->guard_tripped.value(), 1);
}

}  // namespace variant_guard_test
}  // namespace octet
