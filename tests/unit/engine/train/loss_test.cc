// Losses by hand, and their gradients against differences.
#include "engine/train/loss.h"

#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace loss_test {

using train::LossOf;
using train::Targets;

const std::vector<float> kOwn = {0.5F, -1, 2, 0, 1, -0.3F};
const std::vector<float> kTeacher = {1, -2, 1.5F, 0.25F, 0.5F, 0};
const std::vector<int64_t> kLabels = {2, 0};

TEST(Loss, IsWhatItsDefinitionSays) {
  const Targets targets{kTeacher, kLabels};
  const double sum = std::exp(0.5) + std::exp(-1) + std::exp(2);
  const double sum2 = 1 + std::exp(1) + std::exp(-0.3);
  EXPECT_NEAR(LossOf(TrainLoss::kLabels, 2, kOwn, targets),
              (std::log(sum) - 2 + std::log(sum2)) / 2, 1e-6);
  EXPECT_NEAR(LossOf(TrainLoss::kNoise, 2, kOwn, targets),
              (0.25 + 1 + 0.25 + 0.0625 + 0.25 + 0.09) / (1 + 4 + 2.25 + 0.0625 + 0.25), 1e-6);
  EXPECT_NEAR(LossOf(TrainLoss::kDivergence, 2, kTeacher, targets), 0, 1e-7);
  EXPECT_GT(LossOf(TrainLoss::kDivergence, 2, kOwn, targets), 0.01);
}

TEST(Loss, WhatASoftmaxTakesOutIsNoNoise) {
  std::vector<float> shifted = kTeacher;
  for (size_t i = 0; i < 3; ++i) shifted[i] += 5;
  EXPECT_GT(LossOf(TrainLoss::kNoise, 2, shifted, {kTeacher, {}, false}), 1);
  EXPECT_NEAR(LossOf(TrainLoss::kNoise, 2, shifted, {kTeacher, {}, true}), 0, 1e-9);
}

TEST(Loss, IsTheMeanOfItsSamples) {
  for (const TrainLoss loss : {TrainLoss::kDivergence, TrainLoss::kNoise, TrainLoss::kLabels}) {
    const Targets targets{kTeacher, kLabels, true};
    const std::vector<double> losses = train::LossesOf(loss, 2, kOwn, targets);
    ASSERT_EQ(losses.size(), 2U);
    EXPECT_NEAR((losses[0] + losses[1]) / 2, LossOf(loss, 2, kOwn, targets), 1e-9);
    EXPECT_NE(losses[0], losses[1]);
  }
}

TEST(Loss, GradientsAreThoseOfDifferences) {
  struct Case {
    TrainLoss loss;
    bool shares;
  };
  for (const auto [loss, shares] :
       {Case{TrainLoss::kDivergence, true}, Case{TrainLoss::kNoise, false},
        Case{TrainLoss::kNoise, true}, Case{TrainLoss::kLabels, true}}) {
    const Targets targets{kTeacher, kLabels, shares};
    std::vector<float> z = kOwn;
    std::vector<float> gradient(z.size());
    LossOf(loss, 2, z, targets, gradient);
    for (size_t i = 0; i < z.size(); ++i) {
      z[i] = kOwn[i] + 0.01F;
      const double above = LossOf(loss, 2, z, targets);
      z[i] = kOwn[i] - 0.01F;
      const double below = LossOf(loss, 2, z, targets);
      z[i] = kOwn[i];
      EXPECT_NEAR(gradient[i], (above - below) / 0.02, 1e-4) << TrainLossName(loss) << " " << i;
    }
  }
}

TEST(Loss, HasARowForEachStepOfASequence) {
  EXPECT_EQ(train::RowsOf(Shape{1, 2, 2}), 2);
  EXPECT_EQ(train::RowsOf(Shape{4, 3}), 4);
  EXPECT_EQ(train::RowsOf(Shape{4, 3, 1}), 4) << "classes of a pooled convolution";
  const std::vector<float> own = {1, 0, 6, 8};
  const std::vector<float> teacher = {1, 0, 9, 7};
  const Targets targets{teacher, {}, true};
  const int64_t rows = train::RowsOf(Shape{1, 2, 2});
  const double p = 1 / (1 + std::exp(-2.0));  // of the teacher's last step; the own one's is 1 - p
  EXPECT_NEAR(LossOf(TrainLoss::kDivergence, rows, own, targets),
              (2 * p - 1) * std::log(p / (1 - p)) / 2, 1e-6);
  EXPECT_NEAR(LossOf(TrainLoss::kNoise, rows, own, targets), (4.0 + 4.0) / (0.5 + 2.0), 1e-6);
  EXPECT_EQ(train::Agreements(TrainLoss::kDivergence, rows, own, targets), 1);
}

TEST(Loss, CountsAgreements) {
  const Targets targets{kTeacher, kLabels};  // The teacher's largest: 2 and 1; the own: 2 and 1.
  EXPECT_EQ(train::Agreements(TrainLoss::kNoise, 2, kOwn, targets), 2);
  EXPECT_EQ(train::Agreements(TrainLoss::kLabels, 2, kOwn, targets), 1);
}

}  // namespace loss_test
}  // namespace octet
