#include "server/repository/served_ramp.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/repository/model_version.h"
#include "tests/support/fake_clock.h"

namespace octet {
namespace served_ramp_test {

using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr int64_t kBegan = 1'700'000'000'000;

/// A precision whose guard judges windows of ten seconds by its errors.
class ServedRampTest : public ::testing::Test {
 protected:
  ServedRampTest() {
    rules_.precision = Precision::kInt8;
    rules_.hold_seconds = 60;
    ModelConfig::Routing::Guard guard;
    guard.error_percent = 1;
    guard.window_seconds = 10;
    guard.min_samples = 1;
    variant_.precision = Precision::kInt8;
    variant_.metrics = std::make_shared<VariantMetrics>();
    variant_.guard =
        std::make_shared<VariantGuard>("net/1/int8", guard, variant_.metrics,
                                       std::vector<std::shared_ptr<ShadowMetrics>>(), events_);
    variant_.guard->Look(clock_.Now());
    std::filesystem::remove(file_);
  }
  ~ServedRampTest() override { std::filesystem::remove(file_); }

  ServedRamp Ramp(std::string identity = "int8") {
    return {"net", rules_, std::move(identity), file_, events_, now_ms_};
  }
  /// A window in which a request was answered, well or not.
  void Window(bool well) {
    variant_.metrics->request_duration.Observe(0.001);
    variant_.metrics->requests.Add(
        static_cast<size_t>(well ? absl::StatusCode::kOk : absl::StatusCode::kInternal));
    clock_.Advance(seconds(10));
    variant_.guard->Look(clock_.Now());
  }
  void Look(ServedRamp& ramp, int64_t later_s) {
    const ServedVariant* ramped = &variant_;
    now_ms_ += 1000 * later_s;
    ramp.Look({&ramped, 1}, now_ms_);
  }

  FakeClock clock_;
  int64_t now_ms_ = kBegan;
  ModelConfig::Routing::Ramp rules_;
  std::shared_ptr<TrafficEvents> events_ = std::make_shared<TrafficEvents>();
  ServedVariant variant_;
  const std::string file_ = ::testing::TempDir() + "served_ramp_test.ramp";
};

TEST_F(ServedRampTest, StepsForwardWhenHeldAndKept) {
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0.01);
  Look(ramp, 600);
  EXPECT_EQ(ramp.share(), 0.01) << "no window has been kept";
  Window(true);
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0.05);
  EXPECT_EQ(variant_.metrics->ramp_share.value(), 0.05);
  Look(ramp, 60);
  EXPECT_EQ(ramp.share(), 0.05) << "the window was the step's before";
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
  Look(ramp, 0);
  EXPECT_EQ(ramp.share(), 0);
  EXPECT_TRUE(ramp.state().stopped);
  EXPECT_EQ(variant_.metrics->ramp_actions.value(static_cast<size_t>(RampAction::kBack)), 1U);
  const TrafficEvent event = events_->Read().back();
  EXPECT_EQ(event.who, "net: int8");
  EXPECT_EQ(event.action, "ramp back");
  EXPECT_THAT(event.reason, HasSubstr("no traffic: errors 100.00 % > 1 %"));
}

TEST_F(ServedRampTest, ARestartGoesOnWithTheStepAndAsksTheGuardAnew) {
  {
    ServedRamp ramp = Ramp();
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
  EXPECT_EQ(Ramp("another").state(), (RampState{.began_ms = now_ms_}));
}

TEST_F(ServedRampTest, AGuardThatBeginsAnewSaysNothingOfBefore) {
  ServedRamp ramp = Ramp();
  Look(ramp, 0);
  Window(true);
  Look(ramp, 60);
  variant_.guard = nullptr;
  Look(ramp, 600);
  EXPECT_EQ(ramp.share(), 0.05) << "not ready: nobody consents";
}

}  // namespace served_ramp_test
}  // namespace octet
