#include "server/repository/served_ramp.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/repository/model_version.h"
#include "tests/support/fake_clock.h"
#include "tests/support/model_folder.h"

namespace octet {
namespace served_ramp_test {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr int64_t kBegan = 1'700'000'000'000;

/// A precision whose guard judges windows of ten seconds by its errors.
class ServedRampTest : public ::testing::Test {
 protected:
  ServedRampTest() {
    rules_.precision = Precision::kInt8;
    rules_.hold_seconds = 60;
    variant_.precision = Precision::kInt8;
    variant_.metrics = std::make_shared<VariantMetrics>();
    BeginGuard();
    rest_.precision = Precision::kFp32;
    rest_.metrics = std::make_shared<VariantMetrics>();
  }

  /// Gives the precision a guard that has seen nothing; agreement_percent: of copies, when it has that rule, too.
  void BeginGuard(std::optional<double> agreement_percent = std::nullopt) {
    ModelConfig::Routing::Guard guard;
    guard.agreement_percent = agreement_percent;
    guard.error_percent = 1;
    guard.window_seconds = 10;
    guard.min_samples = 1;
    variant_.guard = std::make_shared<VariantGuard>("net/1/int8", guard, variant_.metrics,
                                                    std::vector<std::shared_ptr<ShadowMetrics>>(),
                                                    nullptr, events_);
    variant_.guard->Look(clock_.Now());
  }

  /// A window in which each was asked once, and refused or answered.
  void RefusalWindow(bool ramped_refuses, bool rest_refuses) {
    for (const auto& [variant, refuses] :
         {std::pair(&variant_, ramped_refuses), std::pair(&rest_, rest_refuses)}) {
      if (refuses) {
        variant->metrics->refused.Add(static_cast<size_t>(Refusal::kQueueFull));
      } else {
        variant->metrics->request_duration.Observe(0.001);
      }
    }
    clock_.Advance(seconds(10));
    variant_.guard->Look(clock_.Now());
  }

  ServedRamp Ramp(std::string identity = "int8") {
    return {"net", rules_, std::move(identity), file_, events_, SteadyEpoch(now_, NowMs()), now_};
  }
  /// A window in which a request of each was answered, well or not.
  void Window(bool well, const std::vector<const ServedVariant*>& ramped) {
    for (const ServedVariant* variant : ramped) {
      variant->metrics->request_duration.Observe(0.001);
      if (variant->latency_limit != nullptr) variant->latency_limit->Observe(milliseconds(1));
      variant->metrics->requests.Add(
          static_cast<size_t>(well ? absl::StatusCode::kOk : absl::StatusCode::kInternal));
    }
    clock_.Advance(seconds(10));
    for (const ServedVariant* variant : ramped) variant->guard->Look(clock_.Now());
  }
  void Window(bool well) { Window(well, {&variant_}); }
  void Look(ServedRamp& ramp, int64_t later_s) {
    const ServedVariant* ramped = &variant_;
    const ServedVariant* rest = &rest_;
    now_ += seconds(later_s);
    ramp.Look({&ramped, 1}, {&rest, 1}, now_);
  }
  int64_t NowMs() const { return epoch_.MsAt(now_); }

  FakeClock clock_;
  TimePoint now_ = clock_.Now();
  const SteadyEpoch epoch_{now_, kBegan};
  ModelConfig::Routing::Ramp rules_;
  std::shared_ptr<TrafficEvents> events_ = std::make_shared<TrafficEvents>();
  ServedVariant variant_;
  ServedVariant rest_;
  ModelFolder folder_;
  const std::string file_ = folder_.path(".ramp");
};

TEST_F(ServedRampTest, WhatARampSaidThatALoadTookAwayIsNotShownForEver) {
  ServedRamp before = Ramp();
  Look(before, 0);
  auto version = std::make_shared<ModelVersion>();
  version->variants = {rest_, variant_};
  ASSERT_EQ(variant_.metrics->ramp_share.value(), 0.01) << "said behind the load that left it out";
  LookAtRamps(std::vector<std::shared_ptr<const ModelVersion>>{version}, now_);
  EXPECT_EQ(variant_.metrics->ramp_share.value(), 0);
  version->ramp = std::make_shared<ServedRamp>("net", rules_, "int8", file_, events_, epoch_, now_);
  rest_.metrics->ramp_share.Set(0.01);
  LookAtRamps(std::vector<std::shared_ptr<const ModelVersion>>{version}, now_);
  EXPECT_EQ(variant_.metrics->ramp_share.value(), 0.01);
  EXPECT_EQ(rest_.metrics->ramp_share.value(), 0);
}

TEST_F(ServedRampTest, StepsForwardWhenHeldAndKept) {
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0.01);
  Look(ramp, 600);
  EXPECT_EQ(ramp.share(), 0.01) << "no window has been kept";
  Window(true);
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0.01) << "the window began before the step";
  Window(true);
  testing::internal::CaptureStderr();
  Look(ramp, 0);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("level=info event=ramp_action model=net ramped=int8 action=forward"));
  EXPECT_EQ(events_->Read().back().action, "ramp forward");
  EXPECT_EQ(ramp.share(), 0.05);
  EXPECT_EQ(variant_.metrics->ramp_share.value(), 0.05);
  Look(ramp, 60);
  EXPECT_EQ(ramp.share(), 0.05) << "the windows were the step's before";
  Window(true);
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0.05) << "and so was the beginning of this one";
  Window(true);
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0.25);
  EXPECT_EQ(variant_.metrics->ramp_actions.value(static_cast<size_t>(RampAction::kForward)), 2U);
}

TEST_F(ServedRampTest, ABrokenWindowTakesTheShareBackAndIsAnEvent) {
  Window(false);  // before it began
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0.01);
  Window(false);
  testing::internal::CaptureStderr();
  Look(ramp, 0);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("level=warn event=ramp_action model=net ramped=int8 action=back reason="));
  EXPECT_EQ(ramp.share(), 0);
  EXPECT_TRUE(ramp.state().stopped);
  EXPECT_EQ(variant_.metrics->ramp_actions.value(static_cast<size_t>(RampAction::kBack)), 1U);
  const TrafficEvent event = events_->Read().back();
  EXPECT_EQ(event.who, "net: int8");
  EXPECT_EQ(event.action, "ramp back");
  EXPECT_THAT(event.reason, HasSubstr("no traffic: errors 100.00 % > 1 %"));
}

TEST_F(ServedRampTest, WhatItRefusesAloneTakesTheShareBack) {
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  const auto window = [&](bool ramped_refuses, bool rest_refuses) {
    RefusalWindow(ramped_refuses, rest_refuses);
    Look(ramp, 0);
  };
  window(true, false);  // began before the step
  for (int i = 0; i < 5; ++i) window(true, true);
  window(true, false);
  window(false, false);
  window(true, false);
  EXPECT_EQ(ramp.share(), 0.01) << "an overload of all, and two windows of its own";
  window(true, false);
  EXPECT_EQ(ramp.share(), 0);
  EXPECT_THAT(
      events_->Read().back().reason,
      HasSubstr("no traffic: 3 windows in which more than 1 % of its requests were refused"));
}

TEST_F(ServedRampTest, ALastStepThatWasKeptToStaysSoForNewGuardsAndAfterARestart) {
  rules_.steps = {50};
  const auto refuse = [this](ServedRamp& ramp) {
    for (int i = 0; i < 6; ++i) {
      RefusalWindow(true, false);
      Look(ramp, 0);
    }
  };
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  Window(true);  // began before the step
  Look(ramp, 0);
  EXPECT_FALSE(ramp.state().passed);
  Window(true);
  Look(ramp, 60);
  EXPECT_TRUE(ramp.state().passed);
  BeginGuard();
  refuse(ramp);
  EXPECT_EQ(ramp.share(), 0.5) << "a reload";
  ServedRamp again = Ramp();
  BeginGuard();
  refuse(again);
  EXPECT_EQ(again.share(), 0.5) << "a restart";
  ServedRamp other = Ramp("another");
  BeginGuard();
  refuse(other);
  EXPECT_EQ(other.share(), 0) << "which has not been kept to";
}

TEST_F(ServedRampTest, WithoutAnybodyToCopyALastStepIsKeptToByRefusingNobody) {
  rules_.steps = {100};
  BeginGuard(95);
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  for (int i = 0; i < 6; ++i) {  // the first one began before the step
    clock_.Advance(seconds(10));
    variant_.guard->Look(clock_.Now());
    Look(ramp, 20);
  }
  EXPECT_FALSE(ramp.state().passed) << "nobody asked, so nobody could be refused";
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(ramp.state().passed) << i;
    Window(true);
    Look(ramp, 20);
  }
  EXPECT_TRUE(ramp.state().passed);
  for (int i = 0; i < 6; ++i) {
    RefusalWindow(true, false);
    Look(ramp, 10);
  }
  EXPECT_EQ(ramp.share(), 1) << "more traffic than there was, and the others are slower still";
  Window(false);
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0) << "a rule is broken all the same";
}

TEST_F(ServedRampTest, OnceRetiredItLeavesTheFileAlone) {
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  ramp.Retire();
  folder_.Remove(".ramp");
  Window(false);
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0);
  EXPECT_FALSE(std::ifstream(file_).is_open());
}

TEST_F(ServedRampTest, ARestartGoesOnWithTheStepAndAsksTheGuardAnew) {
  {
    ServedRamp ramp = Ramp();
    Look(ramp, 0);
    Window(true);
    Look(ramp, 0);
    Window(true);
    Look(ramp, 60);
    EXPECT_EQ(ramp.share(), 0.05);
  }
  ServedRamp again = Ramp();
  EXPECT_EQ(again.state(), (RampState{.step = 1, .began_ms = kBegan + 60'000}));
  Look(again, 600);
  EXPECT_EQ(again.share(), 0.05);
  Window(false);
  Look(again, 0);
  EXPECT_TRUE(Ramp().state().stopped) << "what was stopped stays so";
  EXPECT_EQ(Ramp("another").state(), (RampState{.began_ms = NowMs()}));
}

TEST_F(ServedRampTest, AClockThatWasSetMeanwhileCountsForARestartAlone) {
  {
    ServedRamp ramp = Ramp();
    Look(ramp, 0);
    EXPECT_EQ(ramp.state().began_ms, kBegan);
  }
  // An hour ahead at once, and the first window since.
  ServedRamp again = {"net", rules_, "int8", file_, events_, SteadyEpoch(now_, kBegan + 3'600'000),
                      now_};
  Look(again, 0);
  Window(true);
  Look(again, 0);
  Window(true);
  Look(again, 0);
  EXPECT_EQ(again.share(), 0.05);
  // And two back.
  ServedRamp last = {"net", rules_, "int8", file_, events_, SteadyEpoch(now_, kBegan - 3'600'000),
                     now_};
  EXPECT_EQ(last.state(), (RampState{.step = 1, .began_ms = kBegan - 3'600'000}));
}

TEST_F(ServedRampTest, AGuardThatBeginsAnewSaysNothingOfBefore) {
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  Window(true);
  Look(ramp, 0);
  Window(true);
  Look(ramp, 60);
  EXPECT_EQ(ramp.share(), 0.05);
  variant_.guard = nullptr;
  Look(ramp, 600);
  EXPECT_EQ(ramp.share(), 0.05) << "not ready: nobody consents";
}

TEST_F(ServedRampTest, EveryGuardOfAVersionHasToConsent) {
  rules_.precision.reset();
  rules_.version = 1;
  ServedVariant other = variant_;
  other.metrics = std::make_shared<VariantMetrics>();
  ModelConfig::Routing::Guard guard;
  guard.p99_us = 10'000;
  guard.window_seconds = 10;
  guard.min_samples = 1;
  other.latency_limit = std::make_shared<LatencyLimit>(*guard.p99_us);
  other.guard = std::make_shared<VariantGuard>("net/1/fp32", guard, other.metrics,
                                               std::vector<std::shared_ptr<ShadowMetrics>>(),
                                               other.latency_limit, events_);
  other.guard->Look(clock_.Now());
  ServedRamp ramp = Ramp("version 1");
  const std::vector<const ServedVariant*> both = {&variant_, &other};
  const auto look = [&](int64_t later_s) { ramp.Look(both, {}, now_ += seconds(later_s)); };
  look(0);
  for (int i = 0; i < 5; ++i) {
    Window(true);
    other.guard->Look(clock_.Now());
    look(60);
  }
  EXPECT_EQ(ramp.share(), 0.01) << "nobody was answered by the other one";
  Window(true, both);
  look(0);
  EXPECT_EQ(ramp.share(), 0.05);
  Window(false);
  look(0);
  EXPECT_EQ(ramp.share(), 0) << "one is enough to take it back";
}

TEST_F(ServedRampTest, ATimeInTheFileThatCannotBeHoldsNoStep) {
  for (const char* began : {"9000000000000000000", "-9000000000000000000"}) {
    std::ofstream(file_) << "int8\n1 " << began << " 0\n";
    ServedRamp ramp = Ramp();
    EXPECT_EQ(ramp.share(), 0.05) << began;
    Look(ramp, 0);
    Window(true);
    Look(ramp, 60);
    Window(true);
    Look(ramp, 0);
    EXPECT_EQ(ramp.share(), 0.25) << began;
  }
}

}  // namespace served_ramp_test
}  // namespace octet
