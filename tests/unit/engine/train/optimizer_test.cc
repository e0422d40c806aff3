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

TEST(Optimizer, AveragesAreThereForTheAsking) {
  Parameter parameter = Two();
  parameter.gradients = {1, 0};
  Optimizer optimizer(TrainMethod::kAdam, 0.1, 1000000, {&parameter});
  optimizer.Step();
  const float stepped = parameter.values[0];
  optimizer.SwapAverages();
  EXPECT_NEAR(parameter.values[0], 1 + 10.0 / 11 * (stepped - 1), 1e-6);  // d = 1 / 11.
  EXPECT_EQ(parameter.values[1], 2);
  optimizer.SwapAverages();
  EXPECT_EQ(parameter.values[0], stepped);
  // What goes back and forth stands still in the mean.
  for (int i = 0; i < 2000; ++i) {
    parameter.values = {i % 2 == 0 ? 5.0F : 3.0F, 2};
    parameter.gradients = {0, 0};
    optimizer.state().first[0] = {0, 0};
    optimizer.Step();
  }
  optimizer.SwapAverages();
  EXPECT_NEAR(parameter.values[0], 4, 0.02);
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
