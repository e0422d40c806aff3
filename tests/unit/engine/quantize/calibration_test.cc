// Histograms that re-bin as they grow, merge, scale and come back.
#include "engine/quantize/calibration.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gtest/gtest.h"

#include "engine/tensor/status.h"
#include "tests/support/random_histogram.h"

namespace octet {
namespace calibration_test {

uint64_t Total(const Histogram& histogram) {
  uint64_t total = 0;
  for (const uint64_t count : histogram.bins()) total += count;
  return total;
}

TEST(Histogram, KeepsCountsAndExtremesWhileItsRangeGrows) {
  Histogram histogram = HistogramOf({0, 0, 0});
  EXPECT_EQ(histogram.limit(), 0);
  ASSERT_TRUE(histogram.Add(std::vector<float>{0.25F, -0.125F}).ok());
  EXPECT_EQ(histogram.limit(), 0.5);
  ASSERT_TRUE(histogram.Add(std::vector<float>{100.0F}).ok());
  EXPECT_EQ(histogram.limit(), 128);
  EXPECT_EQ(histogram.count(), 6U);
  EXPECT_EQ(Total(histogram), 6U);
  EXPECT_EQ(histogram.extremes(), (Range{-0.125F, 100.0F}));
}

TEST(Histogram, PutsEveryElementIntoTheBinAroundIt) {
  for (const float x : {-127.9F, -1.0F, -0.01F, 0.0F, 0.01F, 1.0F, 63.99F, 127.9F}) {
    Histogram histogram = HistogramOf({x, 127.99F});
    const auto bins = histogram.bins();
    double nearest = std::numeric_limits<double>::infinity();
    for (int i = 0; i < Histogram::kBins; ++i) {
      if (bins[static_cast<size_t>(i)] > 0)
        nearest = std::min(nearest, std::abs(histogram.bin_center(i) - x));
    }
    EXPECT_LE(nearest, histogram.bin_width() / 2 * 1.001) << x;
  }
}

TEST(Histogram, MergesIntoTheSameAsAddingEverything) {
  const std::vector<float> small = NormalValues(1000, 0.01F);
  const std::vector<float> large = NormalValues(1000, 10);
  Histogram all = HistogramOf(small);
  ASSERT_TRUE(all.Add(large).ok());
  for (const bool small_first : {true, false}) {
    Histogram merged = HistogramOf(small_first ? small : large);
    merged.Merge(HistogramOf(small_first ? large : small));
    EXPECT_EQ(merged.count(), all.count());
    EXPECT_EQ(merged.extremes(), all.extremes());
    EXPECT_EQ(merged.limit(), all.limit());
    EXPECT_EQ(Total(merged), all.count());
    EXPECT_TRUE(std::ranges::equal(merged.bins(), all.bins()));
  }
  Histogram untouched = all;
  untouched.Merge(Histogram());
  EXPECT_EQ(untouched.count(), all.count());
}

TEST(Histogram, RefusesWhatIsNotFinite) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Histogram histogram;
    EXPECT_EQ(histogram.Add(std::vector<float>{1, bad}).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(histogram.count(), 0U);
  }
}

TEST(Histogram, TakesTheSmallestFloats) {
  for (const float tiny : {1e-37F, std::numeric_limits<float>::denorm_min()}) {
    for (const int bins : {ChannelHistograms::kBins, Histogram::kBins}) {
      for (const auto& values : {std::vector<float>{tiny}, std::vector<float>{0, tiny},
                                 std::vector<float>{-tiny, tiny}}) {
        Histogram histogram(bins);
        ASSERT_TRUE(histogram.Add(values).ok());
        EXPECT_EQ(Total(histogram), values.size());
        EXPECT_EQ(histogram.extremes().max, tiny);
        const auto middle = histogram.bins().subspan(static_cast<size_t>(bins) / 2 - 1, 2);
        EXPECT_EQ(middle[0] + middle[1], values.size());
        EXPECT_TRUE(
            Histogram::Restored(histogram.limit(), histogram.extremes(), histogram.bins()).ok());
      }
    }
  }
}

TEST(Histogram, AddsScaledChannelsLikeScaledElements) {
  std::vector<float> small = NormalValues(20000, 0.01F);
  const std::vector<float> large = NormalValues(20000, 10);
  for (size_t i = 0; i < small.size(); i += 2) small[i] = 0;  // ReLU's zeros
  std::vector<float> scaled = small;
  for (float& x : scaled) x *= 700;
  Histogram expected = HistogramOf(large);
  ASSERT_TRUE(expected.Add(scaled).ok());
  Histogram got;
  for (const auto& [values, factor] : {std::pair{small, 700.0}, std::pair{large, 1.0}}) {
    Histogram coarse(ChannelHistograms::kBins);
    ASSERT_TRUE(coarse.Add(values).ok());
    got.AddScaled(coarse, factor);
  }
  EXPECT_EQ(got.count(), expected.count());
  EXPECT_EQ(Total(got), expected.count());
  EXPECT_FLOAT_EQ(got.extremes().min, expected.extremes().min);
  EXPECT_FLOAT_EQ(got.extremes().max, expected.extremes().max);
  EXPECT_EQ(got.limit(), expected.limit());
  // With what else lies in the coarse bins that begin at zero.
  EXPECT_GE(got.bins()[Histogram::kBins / 2], 10000U);
  EXPECT_LE(got.bins()[Histogram::kBins / 2], 10600U);
  double apart = 0;  // of the distribution functions
  double difference = 0;
  for (size_t i = 0; i < Histogram::kBins; ++i) {
    difference += static_cast<double>(got.bins()[i]) - static_cast<double>(expected.bins()[i]);
    apart = std::max(apart, std::abs(difference));
  }
  EXPECT_LT(apart, 0.02 * static_cast<double>(got.count()));
}

TEST(Histogram, IsRestoredAsItWasOrNotAtAll) {
  const Histogram histogram = HistogramOf({-3, 0.5F, 5});
  const auto restored =
      Histogram::Restored(histogram.limit(), histogram.extremes(), histogram.bins());
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->count(), 3U);
  EXPECT_TRUE(std::ranges::equal(restored->bins(), histogram.bins()));
  const float nan = std::nanf("");
  for (const auto& [limit, extremes] :
       {std::pair{6.0, Range{-3, 5}}, std::pair{4.0, Range{-3, 5}}, std::pair{8.0, Range{5, -3}},
        std::pair{8.0, Range{nan, 5}}, std::pair{-8.0, Range{-3, 5}}, std::pair{0.0, Range{-3, 5}}})
    EXPECT_FALSE(Histogram::Restored(limit, extremes, histogram.bins()).ok()) << limit;
}

MovingExtremes MovingOf(std::span<const float> peaks) {
  MovingExtremes moving;
  for (const float peak : peaks) moving.Add({-peak / 2, peak});
  return moving;
}

TEST(MovingExtremes, OfEqualSamplesAreTheirs) {
  EXPECT_EQ(MovingExtremes().average(), Range{});
  const Range average = MovingOf(std::vector<float>(500, 8)).average();
  EXPECT_FLOAT_EQ(average.min, -4);
  EXPECT_FLOAT_EQ(average.max, 8);
}

TEST(MovingExtremes, ForgetWhatIsLongAgo) {
  std::vector<float> peaks(100, 1);
  peaks.resize(200, 2);
  // 0.99^100 of the older ones' weight is left.
  const double old = std::pow(0.99, 100);
  EXPECT_NEAR(MovingOf(peaks).average().max, (old + 2) / (1 + old), 1e-6);
}

TEST(MovingExtremes, MergeAsIfTheSamplesFollowed) {
  const std::vector<float> peaks = {1, 5, 2, 7, 3, 4, 9};
  for (size_t cut = 0; cut <= peaks.size(); ++cut) {
    MovingExtremes merged = MovingOf(std::span(peaks).first(cut));
    merged.Merge(MovingOf(std::span(peaks).subspan(cut)));
    EXPECT_EQ(merged.samples(), 7);
    EXPECT_FLOAT_EQ(merged.average().max, MovingOf(peaks).average().max) << cut;
    EXPECT_FLOAT_EQ(merged.average().min, MovingOf(peaks).average().min) << cut;
  }
}

TEST(Histogram, ObservesTheSameHoweverManySamplesAtOnce) {
  const std::vector<float> values = NormalValues(24, 1);
  Histogram once;
  ASSERT_TRUE(once.Observe(Tensor::From<float>(Shape{8, 3}, values).view()).ok());
  Histogram twice;
  const std::span<const float> all = values;
  ASSERT_TRUE(twice.Observe(Tensor::From<float>(Shape{6, 3}, all.first(18)).view()).ok());
  ASSERT_TRUE(twice.Observe(Tensor::From<float>(Shape{2, 3}, all.last(6)).view()).ok());
  EXPECT_EQ(once.moving().samples(), 8);
  EXPECT_EQ(once.moving().average(), twice.moving().average());
  EXPECT_EQ(once.extremes(), twice.extremes());
  EXPECT_TRUE(std::ranges::equal(once.bins(), twice.bins()));
  const Tensor bad = Tensor::From<float>(Shape{2, 1}, {1, std::nanf("")});
  EXPECT_FALSE(once.Observe(bad.view()).ok());
  EXPECT_EQ(once.moving().samples(), 8);
}

TEST(ChannelHistograms, KeepTheAverageInsideTheExtremesAsItWas) {
  const Tensor samples = Tensor::From<float>(Shape{2, 2}, {-1, 4, -3, 8});
  Histogram whole;
  ChannelHistograms channels(1);
  ASSERT_TRUE(whole.Observe(samples.view()).ok() && channels.Observe(samples.view()).ok());
  const double factors[] = {2, 0.5};
  const Histogram scaled = channels.Scaled(factors, whole);
  EXPECT_EQ(scaled.extremes(), (Range{-6, 4}));
  EXPECT_FLOAT_EQ(scaled.moving().average().min, 2 * whole.moving().average().min);
  EXPECT_FLOAT_EQ(scaled.moving().average().max, whole.moving().average().max / 2);
}

}  // namespace calibration_test
}  // namespace octet
