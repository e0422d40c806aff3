// Weights and biases as integers.
#include "engine/quantize/weights.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/engine.h"
#include "engine/tensor/quantize.h"
#include "tests/support/graph_builder.h"
#include "tests/support/one_node.h"

namespace octet {
namespace weights_test {

using octet::testing::Elements;
using ::testing::ElementsAre;
using ::testing::FloatEq;

TEST(QuantizeWeights, ScalesEveryOutputChannelByItsLargestElement) {
  const Tensor weights = Tensor::From<float>(Shape{2, 3}, {1.27F, -0.635F, 0, -12.7F, 0.1F, 6.35F});
  const QuantizedWeights result = QuantizeWeights(weights, 0, true);
  EXPECT_EQ(result.params.axis, 0);
  EXPECT_THAT(result.params.scales, ElementsAre(FloatEq(0.01F), FloatEq(0.1F)));
  EXPECT_THAT(result.params.zero_points, ElementsAre(0, 0));
  EXPECT_EQ(result.values.shape(), weights.shape());
  EXPECT_THAT(Elements<int8_t>(result.values), ElementsAre(127, -64, 0, -127, 1, 64));
}

TEST(QuantizeWeights, FollowsTheAxisOfAMatrixWithChannelsLast) {
  const Tensor weights = Tensor::From<float>(Shape{2, 3}, {1, 20, 0.5F, -2, 10, 0.25F});
  const QuantizedWeights result = QuantizeWeights(weights, 1, true);
  EXPECT_EQ(result.params.axis, 1);
  EXPECT_THAT(result.params.scales,
              ElementsAre(FloatEq(2.0F / 127), FloatEq(20.0F / 127), FloatEq(0.5F / 127)));
  EXPECT_THAT(Elements<int8_t>(result.values), ElementsAre(64, 127, 127, -127, 64, 64));
}

TEST(QuantizeWeights, TakesOneScaleWhenAsked) {
  const Tensor weights = Tensor::From<float>(Shape{2, 2}, {1, -2, 4, 0.5F});
  const QuantizedWeights result = QuantizeWeights(weights, 0, false);
  EXPECT_TRUE(result.params.per_tensor());
  EXPECT_THAT(result.params.scales, ElementsAre(FloatEq(4.0F / 127)));
}

TEST(QuantizeWeights, GivesAChannelOfZerosAUsableScale) {
  const QuantizedWeights result =
      QuantizeWeights(Tensor::From<float>(Shape{2, 1}, {0, 1}), 0, true);
  EXPECT_GT(result.params.scales[0], 0);
  EXPECT_THAT(Elements<int8_t>(result.values), ElementsAre(0, 127));
}

// max|w| / 127 of such channels is no float of a thread that flushes denormals to zero, as those that run models do.
TEST(QuantizeWeights, AChannelThatIsNearlyDeadIsOneOfZeros) {
  const FlushToZero mode;
  for (const float least : {1.18e-38F, 1e-37F, 1.5e-36F, 1e-30F}) {
    for (const int limit : {kByteLimit, kNibbleLimit}) {
      const QuantizedWeights result = QuantizeWeights(
          Tensor::From<float>(Shape{2, 2}, {least, -least, 1, -0.5F}), 0, true, {}, limit);
      EXPECT_FLOAT_EQ(result.params.scales[0], 1.0F / static_cast<float>(limit)) << least;
      EXPECT_EQ(Elements<int8_t>(result.values)[0], 0);
      EXPECT_EQ(Elements<int8_t>(result.values)[1], 0);
      EXPECT_EQ(Elements<int8_t>(result.values)[2], limit);
    }
  }
  const QuantizedWeights above =
      QuantizeWeights(Tensor::From<float>(Shape{1, 2}, {2e-30F, -1e-30F}), 0, true);
  EXPECT_THAT(Elements<int8_t>(above.values), ElementsAre(127, -64));
}

TEST(QuantizeWeights, IsNeverFurtherOffThanHalfAStep) {
  std::mt19937 random(TestSeed());
  std::normal_distribution<float> normal(0, 0.2F);
  Tensor weights(DType::kF32, Shape{8, 4, 3, 3});
  for (float& w : weights.mutable_span<float>()) w = normal(random);
  const QuantizedWeights result = QuantizeWeights(weights, 0, true);
  Tensor back(DType::kF32, weights.shape());
  DequantizeTensor(result.values.view(), result.params, back.mutable_view());
  for (int64_t i = 0; i < weights.elements(); ++i) {
    const auto at = static_cast<size_t>(i);
    const float step = result.params.scales[at / 36];
    EXPECT_LE(std::abs(weights.span<float>()[at] - back.span<float>()[at]), 0.5001F * step);
    EXPECT_GE(result.values.span<int8_t>()[at], -127);
  }
}

TEST(QuantizeWeights, ACoarseGridIsAsWideAsTheErrorsAskFor) {
  // A channel that the widest grid fits; one with an outlier, which is cut off; one of zeros.
  constexpr size_t kInputs = 25;
  std::vector<float> reals(3 * kInputs, 0.0F);
  std::fill_n(reals.begin(), kInputs, 1.0F);
  std::fill_n(reals.begin() + kInputs, kInputs, -0.1F);
  reals[kInputs] = 1;
  const Tensor weights = Tensor::From<float>(Shape{3, kInputs}, reals);
  const QuantizedWeights result = QuantizeWeights(weights, 0, true, {}, 7);
  EXPECT_EQ(result.limit, 7);
  const auto q = Elements<int8_t>(result.values);
  const auto error = [&](size_t channel, double scale) {
    double sum = 0;
    for (size_t i = channel * kInputs; i < (channel + 1) * kInputs; ++i)
      sum +=
          std::pow(reals[i] - scale * std::clamp(std::nearbyint(reals[i] / scale), -7.0, 7.0), 2);
    return sum;
  };
  EXPECT_NEAR(error(0, result.params.scales[0]), 0, 1e-9);
  EXPECT_LT(result.params.scales[1], 0.95F / 7);
  EXPECT_LT(error(1, result.params.scales[1]), 0.8 * error(1, 1.0 / 7));
  EXPECT_THAT(std::vector<int8_t>(q.begin() + kInputs, q.begin() + kInputs + 2),
              ElementsAre(7, -1));
  EXPECT_EQ(q.back(), 0);
}

TEST(QuantizeWeights, AChannelOfZerosDoesNotWidenTheOthers) {
  const Tensor weights = Tensor::From<float>(Shape{2, 2}, {0, 0, 0.1F, -0.2F});
  EXPECT_FLOAT_EQ(QuantizeWeights(weights, 0, false).params.scales[0], 0.2F / 127);
}

TEST(CorrectBias, FindsTheInputsOfAGroupedConvolution) {
  // Two groups of two inputs, one output each; what was rounded away is put in by hand.
  const Tensor exact = Tensor::From<float>(Shape{2, 2, 1, 1}, {1, 2, 3, 4});
  const QuantizedWeights rounded{Tensor::From<int8_t>(Shape{2, 2, 1, 1}, {2, 2, 3, 6}),
                                 QuantParams::PerTensor(1, 0)};
  const std::vector<double> means = {10, 100, 1000, 0.5};
  const Tensor bias = Tensor::From<float>(Shape{2}, {0, 7});
  EXPECT_THAT(Elements<float>(CorrectBias(bias, exact, rounded, {0, 2}, means)),
              ElementsAre(FloatEq(-10), FloatEq(7 - 2 * 0.5F)));
}

TEST(CorrectBias, FindsTheOutputsOfAGroupedTransposedConvolution) {
  // Two groups of one input, two outputs each.
  const Tensor exact = Tensor::From<float>(Shape{2, 2, 1, 1}, {1, 2, 3, 4});
  const QuantizedWeights rounded{Tensor::From<int8_t>(Shape{2, 2, 1, 1}, {2, 2, 3, 6}),
                                 QuantParams::PerTensor(1, 0)};
  const std::vector<double> means = {10, 0.5};
  const Tensor bias = Tensor::From<float>(Shape{4}, {0, 1, 2, 7});
  EXPECT_THAT(Elements<float>(CorrectBias(bias, exact, rounded, {1, 2}, means)),
              ElementsAre(FloatEq(-10), 1, 2, FloatEq(7 - 2 * 0.5F)));
}

TEST(CorrectBias, FollowsTheAxisOfAMatrix) {
  const Tensor exact = Tensor::From<float>(Shape{2, 2}, {1, 2, 3, 4});
  const QuantizedWeights rounded{Tensor::From<int8_t>(Shape{2, 2}, {1, 3, 3, 4}),
                                 QuantParams::PerTensor(1, 0)};
  const std::vector<double> means = {5, 50};
  const Tensor bias = Tensor::From<float>(Shape{2}, {0, 0});
  EXPECT_THAT(Elements<float>(CorrectBias(bias, exact, rounded, {1}, means)),
              ElementsAre(0, FloatEq(-5)));
  EXPECT_THAT(Elements<float>(CorrectBias(bias, exact, rounded, {0}, means)),
              ElementsAre(FloatEq(-50), 0));
}

TEST(RoundBias, LiesOnTheGridOfTheSums) {
  const Tensor bias = Tensor::From<float>(Shape{3}, {0.53F, -0.26F, 2.0F});
  EXPECT_THAT(Elements<float>(RoundBias(bias, std::vector{0.1F, 0.1F, 0.01F})),
              ElementsAre(FloatEq(0.5F), FloatEq(-0.3F), FloatEq(2.0F)));
  EXPECT_THAT(Elements<float>(RoundBias(Tensor::From<float>(Shape{4}, {0.53F, 0.53F, 2, 2}),
                                        std::vector{0.1F, 0.25F})),
              ElementsAre(FloatEq(0.5F), FloatEq(0.5F), FloatEq(2), FloatEq(2)))
      << "the scales of a group";
  EXPECT_THAT(Elements<float>(RoundBias(bias, std::vector{0.25F})),
              ElementsAre(0.5F, -0.25F, 2.0F));
  EXPECT_THAT(Elements<float>(RoundBias(bias, std::vector{1e-12F})),
              ElementsAre(2147483520e-12F, -2147483520e-12F, 2147483520e-12F))
      << "what a reader rounds fits 32 bits";
}

// A channel of tiny weights with a large bias (a folded batch norm makes them) would overflow 32 bits.
TEST(SmallestScales, KeepTheBiasInside32Bits) {
  const Tensor bias = Tensor::From<float>(Shape{1}, {1000.0F});
  const Tensor weights = Tensor::From<float>(Shape{1, 1}, {1e-9F});
  constexpr float kInputScale = 1e-3F;
  const std::vector<float> smallest = SmallestScales(bias, kInputScale);
  const QuantizedWeights result = QuantizeWeights(weights, 0, true, smallest);
  const float sum_scale = kInputScale * result.params.scales[0];
  EXPECT_NEAR(RoundBias(bias, std::vector{sum_scale}).span<float>()[0], 1000.0, 0.01);
}

}  // namespace weights_test
}  // namespace octet
