#include "cli/load/rate_plan.h"

#include <array>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace rate_plan_test {
namespace {

std::vector<double> TimesOf(const RatePlan& plan, ArrivalKind kind, uint64_t seed) {
  Arrivals arrivals(plan, kind, seed);
  std::vector<double> times;
  while (const auto time = arrivals.Next()) times.push_back(*time);
  return times;
}

TEST(RatePlanTest, ReadsItsThreeForms) {
  const auto constant = RatePlan::Parse("200.5", 5);
  ASSERT_TRUE(constant.ok());
  EXPECT_EQ(constant->from, 200.5);
  EXPECT_EQ(constant->to, 200.5);
  EXPECT_EQ(constant->seconds, 5);
  const auto ramp = RatePlan::Parse("100:2000", 5);
  ASSERT_TRUE(ramp.ok());
  EXPECT_EQ(ramp->from, 100);
  EXPECT_EQ(ramp->to, 2000);
  EXPECT_EQ(ramp->seconds, 5);
  for (const char* text : {"0:2000:30s", "0:2000:30"}) {
    const auto timed = RatePlan::Parse(text, 5);
    ASSERT_TRUE(timed.ok()) << text;
    EXPECT_EQ(timed->from, 0);
    EXPECT_EQ(timed->to, 2000);
    EXPECT_EQ(timed->seconds, 30);
  }
}

TEST(RatePlanTest, RefusesWhatIsNoRateAndNamesIt) {
  for (const char* text :
       {"",    "x",   "1x", ":", "1:",  ":1",  "1:2:",  "1:2:s",   "1:2:3:4", "1:2:3m",
        "inf", "nan", "-1", "0", "0:0", "1e7", "1:2:0", "1:2:1e9", "-1:5",    "1:-5"}) {
    const auto plan = RatePlan::Parse(text, 5);
    ASSERT_FALSE(plan.ok()) << text;
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(Message(plan.status()).find(Format("\"{}\"", text)), std::string_view::npos) << text;
  }
}

TEST(RatePlanTest, TimeOfInvertsTheIntegral) {
  for (const RatePlan& plan : {RatePlan{100, 100, 10}, RatePlan{0, 1000, 30}, RatePlan{1000, 0, 3},
                               RatePlan{5, 5.0001, 60}}) {
    EXPECT_EQ(plan.TimeOf(0), 0);
    EXPECT_NEAR(plan.TimeOf(plan.total()), plan.seconds, 1e-6);
    for (double t = 0; t < plan.seconds; t += plan.seconds / 16) {
      const double integral = plan.from * t + (plan.to - plan.from) / (2 * plan.seconds) * t * t;
      EXPECT_NEAR(plan.TimeOf(integral), t, 1e-6);
    }
  }
}

TEST(ArrivalsTest, ConstantOnesAreEquallyFarApart) {
  const std::vector<double> times = TimesOf({50, 50, 2}, ArrivalKind::kConstant, 1);
  ASSERT_EQ(times.size(), 100u);
  for (size_t i = 0; i < times.size(); ++i)
    EXPECT_NEAR(times[i], 0.02 * static_cast<double>(i), 1e-9);
}

TEST(ArrivalsTest, ARampHasAsManyRequestsAsItsMeanSaysAndMostAtItsEnd) {
  const std::vector<double> times = TimesOf({0, 1000, 10}, ArrivalKind::kConstant, 1);
  ASSERT_EQ(times.size(), 5000u);
  EXPECT_TRUE(std::ranges::is_sorted(times));
  const auto early = std::ranges::count_if(times, [](double t) { return t < 5; });
  EXPECT_NEAR(static_cast<double>(early), 1250, 1);
}

TEST(ArrivalsTest, PoissonCountsHaveMeanAndVarianceOfTheRate) {
  constexpr double kRate = 1000, kSeconds = 200;
  const std::vector<double> times = TimesOf({kRate, kRate, kSeconds}, ArrivalKind::kPoisson, 7);
  EXPECT_TRUE(std::ranges::is_sorted(times));
  std::vector<double> counts(static_cast<size_t>(kSeconds * 10));  // each of 100 ms: 100 expected
  for (const double t : times) counts[static_cast<size_t>(t * 10)] += 1;
  double mean = 0, variance = 0;
  for (const double count : counts) mean += count / static_cast<double>(counts.size());
  for (const double count : counts)
    variance += (count - mean) * (count - mean) / static_cast<double>(counts.size());
  EXPECT_NEAR(mean, 100, 1);
  EXPECT_NEAR(variance, 100, 15);
}

TEST(ArrivalsTest, WhoIsAskedHasNothingToDoWithWhen) {
  constexpr uint64_t kSeed = 1;
  const std::vector<double> times = TimesOf({1000, 1000, 100}, ArrivalKind::kPoisson, kSeed);
  std::mt19937_64 random(ChooserSeed(kSeed));
  std::discrete_distribution<size_t> choose{1, 1};
  std::array<double, 2> gaps{};
  std::array<double, 2> counts{};
  for (size_t i = 1; i < times.size(); ++i) {
    const size_t stream = choose(random);
    gaps[stream] += times[i] - times[i - 1];
    counts[stream] += 1;
  }
  for (const size_t stream : {0, 1}) EXPECT_NEAR(1000 * gaps[stream] / counts[stream], 1, 0.05);
}

TEST(ArrivalsTest, ASeedMeansTheSameTimes) {
  const RatePlan plan{100, 300, 3};
  EXPECT_EQ(TimesOf(plan, ArrivalKind::kPoisson, 5), TimesOf(plan, ArrivalKind::kPoisson, 5));
  EXPECT_NE(TimesOf(plan, ArrivalKind::kPoisson, 5), TimesOf(plan, ArrivalKind::kPoisson, 6));
}

}  // namespace
}  // namespace rate_plan_test
}  // namespace octet::cli
