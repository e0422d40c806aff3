// Ranges taken from histograms, and the scales taken from ranges.
#include "engine/quantize/ranges.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

#include "engine/tensor/quantize.h"
#include "tests/support/random_histogram.h"

namespace octet {
namespace ranges_test {

constexpr ActivationGrid kU8{DType::kU8, false};
constexpr ActivationGrid kS8{DType::kI8, true};

QuantizeRecipe With(RangeMethod method, const ActivationGrid& activation = kU8) {
  return {.activation = activation, .method = method};
}

// The mean squared error of what a range's grid does to the values.
double Error(const std::vector<float>& values, Range range) {
  const QuantParams params = ParamsFor(range, kU8);
  double error = 0;
  for (const float x : values) {
    const int32_t q = QuantizeOne(x, params.scales[0], params.zero_points[0], RangeOf(DType::kU8));
    const double back = params.scales[0] * static_cast<double>(q - params.zero_points[0]);
    error += (back - x) * (back - x);
  }
  return error / static_cast<double>(values.size());
}

TEST(ChooseRange, AlwaysContainsZero) {
  for (const RangeMethod method :
       {RangeMethod::kMinMax, RangeMethod::kPercentile, RangeMethod::kMse, RangeMethod::kEntropy}) {
    for (const auto& values : {std::vector<float>{2, 3, 4}, std::vector<float>{-4, -3, -2},
                               std::vector<float>{0, 0}, std::vector<float>{7}}) {
      const Range range = ChooseRange(HistogramOf(values), With(method));
      EXPECT_LE(range.min, 0) << RangeMethodName(method);
      EXPECT_GE(range.max, 0) << RangeMethodName(method);
    }
  }
}

TEST(ChooseRange, MinMaxTakesTheExtremes) {
  EXPECT_EQ(ChooseRange(HistogramOf({-3, 0.5F, 5}), With(RangeMethod::kMinMax)), (Range{-3, 5}));
}

TEST(ChooseRange, MovingAverageTakesTheSamplesExtremesInTurn) {
  Histogram histogram;
  const Tensor samples = Tensor::From<float>(Shape{3, 2}, {-1, 2, -4, 3, 1, 10});
  ASSERT_TRUE(histogram.Observe(samples.view()).ok());
  const double weights = 0.99 * 0.99 + 0.99 + 1;
  const Range range = ChooseRange(histogram, With(RangeMethod::kMovingAverage));
  EXPECT_FLOAT_EQ(range.min, static_cast<float>((-1 * 0.9801 - 4 * 0.99 + 1) / weights));
  EXPECT_FLOAT_EQ(range.max, static_cast<float>((2 * 0.9801 + 3 * 0.99 + 10) / weights));
}

TEST(ChooseRange, PercentileCutsTheFarTailAlone) {
  std::vector<float> values = NormalValues(100000, 1);
  values.push_back(1000);
  QuantizeRecipe recipe = With(RangeMethod::kPercentile);
  recipe.percentile = 99.99;  // ten elements may go
  const Range range = ChooseRange(HistogramOf(values), recipe);
  EXPECT_LT(range.max, 6);
  EXPECT_GT(range.max, 3);
  EXPECT_LT(range.min, -3);
  recipe.percentile = 100;
  EXPECT_EQ(ChooseRange(HistogramOf(values), recipe).max, 1000);
}

// Many small values and a few that reach eight times as far: to hold all of them costs the others more than clipping does.
std::vector<float> LongTailed(float sign) {
  std::vector<float> values = NormalValues(200000, 1);
  for (int i = 0; i < 20; i += 4) values.push_back(sign * static_cast<float>(20 + i));
  return values;
}

TEST(ChooseRange, MseTakesTheGridOfTheLeastError) {
  for (const float sign : {1.0F, -1.0F}) {
    const std::vector<float> values = LongTailed(sign);
    const Histogram histogram = HistogramOf(values);
    const Range range = ChooseRange(histogram, With(RangeMethod::kMse));
    const Range all = histogram.extremes();
    const double least = Error(values, range);
    EXPECT_LT(least, 0.9 * Error(values, all));
    for (const float factor : {0.2F, 0.4F, 0.6F, 0.8F, 1.0F})
      EXPECT_LE(least, 1.01 * Error(values, {all.min * factor, all.max * factor})) << factor;
  }
}

TEST(ChooseRange, MseAndEntropyLeaveAnEvenDistributionWhole) {
  std::vector<float> even;
  for (int i = 0; i < 200000; ++i) even.push_back(static_cast<float>(i) / 200000);
  const Histogram histogram = HistogramOf(even);
  EXPECT_NEAR(ChooseRange(histogram, With(RangeMethod::kMse)).max, 1, 0.01);
  EXPECT_NEAR(ChooseRange(histogram, With(RangeMethod::kEntropy)).max, 1, 0.01);
}

TEST(ChooseRange, EntropyCutsALongTailAndIsNotDrawnByZeros) {
  std::vector<float> values = LongTailed(1);
  for (float& x : values) x = std::max(x, 0.0F);
  for (const ActivationGrid& grid : {kU8, kS8}) {
    const Range range = ChooseRange(HistogramOf(values), With(RangeMethod::kEntropy, grid));
    EXPECT_LT(range.max, 20);
    EXPECT_GT(range.max, 2.5F);
    values.resize(values.size() + 100000);  // zeros
    EXPECT_EQ(ChooseRange(HistogramOf(values), With(RangeMethod::kEntropy, grid)), range);
  }
}

// What lies beyond a gap weighs as much as what lies beside it.
TEST(ChooseRange, EntropyCutsNoTenthOfTheElements) {
  for (const float sign : {1.0F, -1.0F}) {
    std::vector<float> values = NormalValues(90000, 1);
    for (float& x : values) x = sign * std::min(std::abs(x), 4.0F);
    values.insert(values.end(), 10000, sign * 20);
    for (const ActivationGrid& grid : {kU8, kS8}) {
      const Range range = ChooseRange(HistogramOf(values), With(RangeMethod::kEntropy, grid));
      EXPECT_GT(std::max(range.max, -range.min), 19) << sign;
    }
  }
}

TEST(FitGrid, FindsTheIntegersOfASensor) {
  std::vector<float> values;
  for (int q = -120; q <= 40; ++q) values.push_back(0.5847F * static_cast<float>(q));
  const Histogram histogram = HistogramOf(values);
  const Range narrow = histogram.extremes();
  const Range fitted = FitGrid(histogram, narrow, kU8);
  EXPECT_NEAR(ParamsFor(fitted, kU8).scales[0], 0.5847F, 0.5847F * 2e-3F);
  EXPECT_LT(Error(values, fitted), Error(values, narrow) / 20);
}

TEST(FitGrid, DoesNotLieHalfAStepBesideEveryInteger) {
  std::vector<float> values;  // the bytes 0 to 255 as reals from -1 to 1: none of them is 0
  for (int q = 0; q < 256; ++q) values.push_back(static_cast<float>(q) / 127.5F - 1);
  const Range fitted = FitGrid(HistogramOf(values), {-1, 1}, kU8);
  EXPECT_LT(Error(values, fitted), 0.5 * Error(values, {-1, 1}));
  EXPECT_LT(fitted.max, 1.1F);
}

TEST(FitGrid, LeavesADenseDistributionAlmostAlone) {
  const std::vector<float> values = NormalValues(100000, 1);
  const Histogram histogram = HistogramOf(values);
  const Range fitted = FitGrid(histogram, histogram.extremes(), kU8);
  EXPECT_LT(fitted.max, 1.03F * histogram.extremes().max);
}

TEST(ParamsFor, AreNumbersForEveryRangeOfFloats) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    for (const bool symmetric : {false, true}) {
      for (const Range range :
           {Range{-3e38F, 3e38F}, Range{-kLargest, kLargest}, Range{0, kLargest}}) {
        const ActivationGrid grid{dtype, symmetric};
        SCOPED_TRACE(ActivationGridName(grid));
        const QuantParams params = ParamsFor(range, grid);
        EXPECT_TRUE(std::isfinite(params.scales[0])) << range.max;
        const double above = RangeOf(dtype).max - params.zero_points[0];
        EXPECT_NEAR(params.scales[0] * above, range.max, 0.01 * range.max);
      }
    }
  }
}

TEST(ChooseRange, IsOfNumbersHoweverLargeTheValues) {
  for (const RangeMethod method : {RangeMethod::kMse, RangeMethod::kEntropy}) {
    const Range range = ChooseRange(HistogramOf({-3e38F, 1e38F, 3e38F}), With(method));
    EXPECT_GT(range.max, 1e37F) << RangeMethodName(method);
    EXPECT_LT(range.min, -1e37F) << RangeMethodName(method);
  }
}

TEST(ParamsFor, FollowsTheFormulaAndRepresentsZeroExactly) {
  EXPECT_EQ(ParamsFor({0, 255}, kU8), QuantParams::PerTensor(1, 0));
  EXPECT_EQ(ParamsFor({-128, 127}, kU8), QuantParams::PerTensor(1, 128));
  EXPECT_EQ(ParamsFor({-255, 0}, kU8), QuantParams::PerTensor(1, 255));
  EXPECT_EQ(ParamsFor({-254, 127}, kS8), QuantParams::PerTensor(2, 0));
  EXPECT_EQ(ParamsFor({0, 0}, kU8), QuantParams::PerTensor(1, 0));
  EXPECT_EQ(ParamsFor({0, 0}, kS8), QuantParams::PerTensor(1, 0));
  const ActivationGrid u8_symmetric{DType::kU8, true};
  const ActivationGrid s8_asymmetric{DType::kI8, false};
  EXPECT_EQ(ParamsFor({-254, 127}, u8_symmetric), QuantParams::PerTensor(2, 128));
  EXPECT_EQ(ParamsFor({0, 254}, u8_symmetric), QuantParams::PerTensor(2, 128));
  EXPECT_EQ(ParamsFor({0, 0}, u8_symmetric), QuantParams::PerTensor(1, 128));
  EXPECT_EQ(ParamsFor({0, 255}, s8_asymmetric), QuantParams::PerTensor(1, -128));
  EXPECT_EQ(ParamsFor({-155, 100}, s8_asymmetric), QuantParams::PerTensor(1, 27));
  EXPECT_EQ(ParamsFor({0, 0}, s8_asymmetric), QuantParams::PerTensor(1, -128));
  const QuantParams tiny = ParamsFor({0, 1e-44F}, kU8);
  EXPECT_GE(tiny.scales[0], std::numeric_limits<float>::min());
}

TEST(ActivationGrids, HaveNamesThatParse) {
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    for (const bool symmetric : {false, true}) {
      const ActivationGrid grid{dtype, symmetric};
      EXPECT_EQ(ParseActivationGrid(ActivationGridName(grid)), grid);
    }
  }
  EXPECT_EQ(ParseActivationGrid("int8"), std::nullopt);
}

TEST(RangeMethods, HaveNamesThatParse) {
  for (const RangeMethod method :
       {RangeMethod::kAuto, RangeMethod::kMinMax, RangeMethod::kMovingAverage,
        RangeMethod::kPercentile, RangeMethod::kMse, RangeMethod::kEntropy}) {
    EXPECT_EQ(ParseRangeMethod(RangeMethodName(method)), method);
  }
  EXPECT_EQ(ParseRangeMethod("maximum"), std::nullopt);
}

}  // namespace ranges_test
}  // namespace octet
