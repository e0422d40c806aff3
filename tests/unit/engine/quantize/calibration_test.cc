// Histograms, the ranges taken from them, and the scales taken from ranges.
#include "engine/quantize/calibration.h"

#include <cmath>
#include <limits>
#include <random>

#include "gtest/gtest.h"

#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace calibration_test {

std::vector<float> Normal(size_t count, float sigma) {
  std::mt19937 random(TestSeed());
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> values(count);
  for (float& x : values) x = normal(random);
  return values;
}

Histogram Of(const std::vector<float>& values) {
  Histogram histogram;
  EXPECT_TRUE(histogram.Add(values).ok());
  return histogram;
}

uint64_t Total(const Histogram& histogram) {
  uint64_t total = 0;
  for (const uint64_t count : histogram.bins()) total += count;
  return total;
}

QuantizeRecipe With(RangeMethod method, DType activation = DType::kU8) {
  return {.activation = activation, .method = method};
}

TEST(Histogram, KeepsCountsAndExtremesWhileItsRangeGrows) {
  Histogram histogram = Of({0, 0, 0});
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
    Histogram histogram = Of({x, 127.99F});
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
  const std::vector<float> small = Normal(1000, 0.01F);
  const std::vector<float> large = Normal(1000, 10);
  Histogram all = Of(small);
  ASSERT_TRUE(all.Add(large).ok());
  for (const bool small_first : {true, false}) {
    Histogram merged = Of(small_first ? small : large);
    merged.Merge(Of(small_first ? large : small));
    EXPECT_EQ(merged.count(), all.count());
    EXPECT_EQ(merged.extremes(), all.extremes());
    EXPECT_EQ(merged.limit(), all.limit());
    EXPECT_EQ(Total(merged), all.count());
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

TEST(ChooseRange, AlwaysContainsZero) {
  for (const RangeMethod method : {RangeMethod::kMinMax, RangeMethod::kPercentile}) {
    for (const auto& values : {std::vector<float>{2, 3, 4}, std::vector<float>{-4, -3, -2},
                               std::vector<float>{0, 0}, std::vector<float>{7}}) {
      const Range range = ChooseRange(Of(values), With(method));
      EXPECT_LE(range.min, 0) << RangeMethodName(method);
      EXPECT_GE(range.max, 0) << RangeMethodName(method);
    }
  }
}

TEST(ChooseRange, MinMaxTakesTheExtremes) {
  EXPECT_EQ(ChooseRange(Of({-3, 0.5F, 5}), With(RangeMethod::kMinMax)), (Range{-3, 5}));
}

TEST(ChooseRange, PercentileCutsTheFarTailAlone) {
  std::vector<float> values = Normal(100000, 1);
  values.push_back(1000);
  QuantizeRecipe recipe = With(RangeMethod::kPercentile);
  recipe.percentile = 99.99;  // ten elements may go
  const Range range = ChooseRange(Of(values), recipe);
  EXPECT_LT(range.max, 6);
  EXPECT_GT(range.max, 3);
  EXPECT_LT(range.min, -3);
  recipe.percentile = 100;
  EXPECT_EQ(ChooseRange(Of(values), recipe).max, 1000);
}

// The mean squared error of what a range's grid does to the values.
double Error(const std::vector<float>& values, Range range) {
  const QuantParams params = ParamsFor(range, DType::kU8);
  double error = 0;
  for (const float x : values) {
    const int32_t q = QuantizeOne(x, params.scales[0], params.zero_points[0], RangeOf(DType::kU8));
    const double back = params.scales[0] * static_cast<double>(q - params.zero_points[0]);
    error += (back - x) * (back - x);
  }
  return error / static_cast<double>(values.size());
}

TEST(FitGrid, FindsTheIntegersOfASensor) {
  std::vector<float> values;
  for (int q = -120; q <= 40; ++q) values.push_back(0.5847F * static_cast<float>(q));
  const Histogram histogram = Of(values);
  const Range narrow = histogram.extremes();
  const Range fitted = FitGrid(histogram, narrow, DType::kU8);
  EXPECT_NEAR(ParamsFor(fitted, DType::kU8).scales[0], 0.5847F, 0.5847F * 2e-3F);
  EXPECT_LT(Error(values, fitted), Error(values, narrow) / 20);
}

TEST(FitGrid, DoesNotLieHalfAStepBesideEveryInteger) {
  std::vector<float> values;  // the bytes 0 to 255 as reals from -1 to 1: none of them is 0
  for (int q = 0; q < 256; ++q) values.push_back(static_cast<float>(q) / 127.5F - 1);
  const Range fitted = FitGrid(Of(values), {-1, 1}, DType::kU8);
  EXPECT_LT(Error(values, fitted), 0.5 * Error(values, {-1, 1}));
  EXPECT_LT(fitted.max, 1.1F);
}

TEST(FitGrid, LeavesADenseDistributionAlmostAlone) {
  const std::vector<float> values = Normal(100000, 1);
  const Histogram histogram = Of(values);
  const Range fitted = FitGrid(histogram, histogram.extremes(), DType::kU8);
  EXPECT_LT(fitted.max, 1.03F * histogram.extremes().max);
}

TEST(ParamsFor, FollowsTheFormulaAndRepresentsZeroExactly) {
  EXPECT_EQ(ParamsFor({0, 255}, DType::kU8), QuantParams::PerTensor(1, 0));
  EXPECT_EQ(ParamsFor({-128, 127}, DType::kU8), QuantParams::PerTensor(1, 128));
  EXPECT_EQ(ParamsFor({-255, 0}, DType::kU8), QuantParams::PerTensor(1, 255));
  EXPECT_EQ(ParamsFor({-254, 127}, DType::kI8), QuantParams::PerTensor(2, 0));
  EXPECT_EQ(ParamsFor({0, 0}, DType::kU8), QuantParams::PerTensor(1, 0));
  EXPECT_EQ(ParamsFor({0, 0}, DType::kI8), QuantParams::PerTensor(1, 0));
  const QuantParams tiny = ParamsFor({0, 1e-44F}, DType::kU8);
  EXPECT_GE(tiny.scales[0], std::numeric_limits<float>::min());
}

TEST(RangeMethods, HaveNamesThatParse) {
  for (const RangeMethod method : {RangeMethod::kMinMax, RangeMethod::kPercentile}) {
    EXPECT_EQ(ParseRangeMethod(RangeMethodName(method)), method);
  }
  EXPECT_EQ(ParseRangeMethod("maximum"), std::nullopt);
}

}  // namespace calibration_test
}  // namespace octet
