// Steps by hand.
#include "engine/train/optimizer.h"

#include "gtest/gtest.h"

namespace octet {
namespace optimizer_test {

using train::Optimizer;
using train::Parameter;

Parameter Two() { return {"p", {1, 2}, {0.5F, -100}, {1, 0.5F}}; }

TEST(Optimizer, AdamMovesEveryValueByTheRate) {
  Parameter parameter = Two();
  Optimizer optimizer(TrainMethod::kAdam, 0.1, 10, {&parameter});
  optimizer.Step();
  EXPECT_NEAR(parameter.values[0], 0.9, 1e-6);
  EXPECT_NEAR(parameter.values[1], 2.1, 1e-6);
}

TEST(Optimizer, AdamLeavesWhatHasNoGradient) {
  Parameter parameter = Two();
  parameter.gradients = {0, 0};
  Optimizer optimizer(TrainMethod::kAdam, 0.1, 10, {&parameter});
  optimizer.Step();
  EXPECT_EQ(parameter.values, (std::vector<float>{1, 2}));
}

TEST(Optimizer, GradientDescentStepsInReals) {
  Parameter parameter = Two();
  Optimizer optimizer(TrainMethod::kSgd, 0.01, 1000000, {&parameter});
  optimizer.Step();
  EXPECT_NEAR(parameter.values[0], 1 - 0.01 * 0.5, 1e-6);
  EXPECT_NEAR(parameter.values[1], 2 + 0.01 * 100 / 0.25, 1e-4);
  optimizer.Step();  // With momentum.
  EXPECT_NEAR(parameter.values[0], 1 - 0.01 * 0.5 - 0.01 * 0.95, 1e-6);
}

TEST(Optimizer, TheRateFallsAlongHalfACosine) {
  Parameter parameter = Two();
  Optimizer optimizer(TrainMethod::kAdam, 0.1, 4, {&parameter});
  const double rates[] = {0.1, 0.0853553, 0.05, 0.0146447, 0};
  for (const double rate : rates) {
    EXPECT_NEAR(optimizer.rate(), rate, 1e-6);
    optimizer.Step();
  }
}

}  // namespace optimizer_test
}  // namespace octet
