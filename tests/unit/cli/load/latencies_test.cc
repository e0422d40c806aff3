#include "cli/latencies.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octet::cli {
namespace latencies_test {
namespace {

using std::chrono::nanoseconds;

/// Of sorted values; percentiles by fourths, which floating point holds exactly.
double Exact(const std::vector<int64_t>& values, int fourths) {
  const auto rank =
      static_cast<size_t>(std::ceil(fourths * static_cast<double>(values.size()) / 400));
  return static_cast<double>(values[std::max<size_t>(rank, 1) - 1]) / 1e3;
}

TEST(LatenciesTest, NothingIsZero) {
  const Latencies none;
  EXPECT_EQ(none.count(), 0);
  EXPECT_EQ(none.MicrosecondsAt(50), 0);
}

TEST(LatenciesTest, EveryPercentileIsWithinTheStatedError) {
  constexpr uint64_t kSeed = 1;
  std::mt19937_64 random(kSeed);
  std::lognormal_distribution<double> draw(13, 4);  // 442 us in the middle, from ns to days
  Latencies latencies;
  std::vector<int64_t> values;
  for (int i = 0; i < 20000; ++i) {
    values.push_back(static_cast<int64_t>(draw(random)));
    latencies.Add(nanoseconds(values.back()));
  }
  EXPECT_EQ(latencies.count(), 20000);
  std::ranges::sort(values);
  for (int fourths = 0; fourths <= 400; ++fourths) {
    const double percent = fourths / 4.0;
    const double exact = Exact(values, fourths);
    EXPECT_NEAR(latencies.MicrosecondsAt(percent), exact, exact * Latencies::kRelativeError * 1.001)
        << percent << ", seed " << kSeed;
  }
}

TEST(LatenciesTest, FewNanosecondsAndTheEndsAreExact) {
  Latencies latencies;
  for (const int64_t ns : {1, 700, 701, 702, 123456789}) latencies.Add(nanoseconds(ns));
  EXPECT_EQ(latencies.MicrosecondsAt(0), 0.001);
  EXPECT_EQ(latencies.MicrosecondsAt(50), 0.701);
  EXPECT_EQ(latencies.MicrosecondsAt(100), 123456.789);
}

TEST(LatenciesTest, ARankThatIsWholeIsNotRoundedUp) {
  Latencies latencies;
  for (int i = 1; i <= 1000; ++i) latencies.Add(nanoseconds(i));
  EXPECT_EQ(latencies.MicrosecondsAt(99.9), 0.999);
}

TEST(LatenciesTest, BucketsMeetWithoutGapOrOverlap) {
  // Values on both sides of each power of two keep their order.
  double before = -1;
  for (int power = 1; power < 62; ++power) {
    for (const int64_t step : {-1, 0, 1}) {
      Latencies latencies;
      const int64_t value = (int64_t{1} << power) + step;
      for (int i = 0; i < 3; ++i) latencies.Add(nanoseconds(value));
      // Two others, so that neither end stands for it.
      latencies.Add(nanoseconds(0));
      latencies.Add(nanoseconds::max());
      const double us = latencies.MicrosecondsAt(50);
      EXPECT_NEAR(us * 1e3, static_cast<double>(value),
                  static_cast<double>(value) * Latencies::kRelativeError * 1.001);
      EXPECT_GE(us, before);
      before = us;
    }
  }
}

TEST(LatenciesTest, ANegativeLatencyIsZero) {
  Latencies latencies;
  latencies.Add(nanoseconds(-5));
  EXPECT_EQ(latencies.MicrosecondsAt(100), 0);
}

TEST(LatenciesTest, MergedIsAsAddedToOne) {
  Latencies one, other, both;
  for (int64_t i = 1; i < 5000; ++i) {
    (i % 3 == 0 ? one : other).Add(nanoseconds(i * i));
    both.Add(nanoseconds(i * i));
  }
  Latencies merged;
  merged.Merge(one);
  merged.Merge(Latencies());
  merged.Merge(other);
  EXPECT_EQ(merged.count(), both.count());
  for (double percent = 0; percent <= 100; percent += 5)
    EXPECT_EQ(merged.MicrosecondsAt(percent), both.MicrosecondsAt(percent)) << percent;
}

}  // namespace
}  // namespace latencies_test
}  // namespace octet::cli
