#include "server/routing/experiment_statistics.h"

#include <array>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace experiment_statistics_test {

Moments Of(std::span<const double> values) {
  Moments moments;
  for (const double value : values) {
    ++moments.count;
    moments.sum += value;
    moments.sum_of_squares += value * value;
  }
  return moments;
}

TEST(MomentsTest, HasTheUnbiasedVariance) {
  const Moments moments = Of(std::array{2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0});
  EXPECT_DOUBLE_EQ(moments.mean(), 5);
  EXPECT_DOUBLE_EQ(moments.variance(), 32.0 / 7);
  EXPECT_EQ(Of(std::array{3.0}).variance(), 0);
  EXPECT_EQ(Moments().mean(), 0);
}

TEST(MeanDifferenceTest, CoversTheTrueDifferenceNineteenTimesInTwenty) {
  std::mt19937 random(20);  // the seed
  std::exponential_distribution<double> latency(1);
  constexpr int kRounds = 2000;
  int covered = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<double> a(400);
    std::vector<double> b(100);
    for (double& x : a) x = latency(random) + 0.5;
    for (double& x : b) x = latency(random);
    const auto difference = MeanDifference(Of(a), Of(b));
    ASSERT_TRUE(difference);
    covered += difference->low <= 0.5 && 0.5 <= difference->high ? 1 : 0;
  }
  EXPECT_NEAR(covered / static_cast<double>(kRounds), 0.95, 0.015);
}

TEST(MeanDifferenceTest, SaysNothingOfFew) {
  const std::vector<double> few(kLeastObservations - 1, 1.0);
  const std::vector<double> enough(kLeastObservations, 1.0);
  EXPECT_FALSE(MeanDifference(Of(few), Of(enough)));
  EXPECT_FALSE(MeanDifference(Of(enough), Of(few)));
  const auto same = MeanDifference(Of(enough), Of(enough));
  ASSERT_TRUE(same);
  EXPECT_EQ(same->low, 0);
  EXPECT_EQ(same->high, 0);
}

TEST(SampleRatioTest, HasTheTabulatedTails) {
  // The upper 5 % points of chi-square with 1 to 4 degrees of freedom are 3.841, 5.991, 7.815, 9.488.
  // Counts of 10000 (1 + d, 1 - d, 1, ...) give 20000 d^2.
  constexpr std::array kPoints = {3.841, 5.991, 7.815, 9.488};
  for (size_t degrees = 1; degrees <= kPoints.size(); ++degrees) {
    const double d = std::sqrt(kPoints[degrees - 1] / 2e8);
    std::vector<uint64_t> counts(degrees + 1, 100'000'000);
    const auto shift = static_cast<uint64_t>(1e8 * d);
    counts[0] += shift;
    counts[1] -= shift;
    const auto ratio = TestSampleRatio(counts, std::vector<double>(degrees + 1, 1.0));
    ASSERT_TRUE(ratio);
    EXPECT_NEAR(ratio->p_value, 0.05, 0.001) << degrees;
    EXPECT_FALSE(ratio->alarm);
  }
}

TEST(SampleRatioTest, AlarmsWhenTheSplitDidNotDecide) {
  const std::array<double, 3> weights = {90, 10, 0};
  EXPECT_FALSE(TestSampleRatio(std::array<uint64_t, 3>{9010, 990, 0}, weights)->alarm);
  EXPECT_TRUE(TestSampleRatio(std::array<uint64_t, 3>{9300, 700, 0}, weights)->alarm);
  EXPECT_TRUE(TestSampleRatio(std::array<uint64_t, 3>{10'000, 0, 0}, weights)->alarm);
}

TEST(SampleRatioTest, SaysNothingOfFewOrOfOne) {
  const std::array<double, 2> weights = {99, 1};
  EXPECT_FALSE(TestSampleRatio(std::array<uint64_t, 2>{400, 0}, weights));
  EXPECT_FALSE(TestSampleRatio(std::array<uint64_t, 2>{400, 400}, std::array<double, 2>{1, 0}));
  EXPECT_FALSE(TestSampleRatio({}, {}));
}

}  // namespace experiment_statistics_test
}  // namespace octet
