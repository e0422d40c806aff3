// Noise that repeats with a seed, and does not without one.
#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace random_test {

using ::testing::Each;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Lt;

constexpr int64_t kCount = 20000;

std::vector<float> Draw(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
}

OneNode Noise(std::string op, float seed) {
  return OneNode(std::move(op), 13).Set("shape", std::vector<int64_t>{kCount}).Set("seed", seed);
}

double Mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float v : values) sum += double{v};
  return sum / static_cast<double>(values.size());
}

double Deviation(const std::vector<float>& values) {
  const double mean = Mean(values);
  double sum = 0;
  for (const float v : values) sum += (double{v} - mean) * (double{v} - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

TEST(Random, NormalHasItsMoments) {
  const auto values = Draw(Noise("RandomNormal", 1).Set("mean", 3.0F).Set("scale", 2.0F));
  EXPECT_NEAR(Mean(values), 3, 0.06) << "four standard errors";
  EXPECT_NEAR(Deviation(values), 2, 0.04);
}

TEST(Random, UniformFillsItsRange) {
  const auto values = Draw(Noise("RandomUniform", 1).Set("low", -1.0F).Set("high", 3.0F));
  EXPECT_THAT(values, Each(Ge(-1.0F)));
  EXPECT_THAT(values, Each(Lt(3.0F)));
  EXPECT_NEAR(Mean(values), 1, 0.033);
  EXPECT_LT(*std::ranges::min_element(values), -0.99F);
  EXPECT_GT(*std::ranges::max_element(values), 2.99F);
}

TEST(Random, ASeedRepeatsAndAnotherDoesNot) {
  EXPECT_EQ(Draw(Noise("RandomNormal", 5)), Draw(Noise("RandomNormal", 5)));
  EXPECT_NE(Draw(Noise("RandomNormal", 5)), Draw(Noise("RandomNormal", 6)));
  OneNode unseeded("RandomUniform", 13);
  unseeded.Set("shape", std::vector<int64_t>{100});
  EXPECT_NE(Draw(unseeded), Draw(unseeded));
}

TEST(Random, LikeTakesShapeAndType) {
  const OneNode like = OneNode("RandomNormalLike", 13).Input(Tensor(DType::kF64, Shape{2, 3}));
  EXPECT_EQ(like.InferredShape(), "[2,3]");
  const auto graph = like.Infer();
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(graph->value(graph->outputs[0]).dtype, DType::kF64);
}

TEST(Random, BernoulliDrawsWithItsProbabilities) {
  Tensor chances(DType::kF32, Shape{kCount});
  std::ranges::fill(chances.mutable_span<float>(), 0.25F);
  const auto values = Draw(OneNode("Bernoulli", 15).Input(chances).Set("seed", 1.0F));
  EXPECT_NEAR(Mean(values), 0.25, 0.0125);
  const Tensor certain = Tensor::From<float>(Shape{2}, {0.0F, 1.0F});
  EXPECT_EQ(Draw(OneNode("Bernoulli", 15).Input(certain)), (std::vector<float>{0, 1}));
}

TEST(Random, MultinomialDrawsByTheSoftmax) {
  const Tensor logits =
      Tensor::From<float>(Shape{2, 3}, {0, std::log(3.0F), -1e9F, 5, -1e9F, -1e9F});
  const auto outputs =
      OneNode("Multinomial", 7).Input(logits).Set("sample_size", kCount).Set("seed", 2.0F).Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const auto drawn = Elements<int32_t>(outputs->front());
  const auto ones = std::count(drawn.begin(), drawn.begin() + kCount, 1);
  EXPECT_NEAR(static_cast<double>(ones) / kCount, 0.75, 0.0125);
  EXPECT_EQ(std::count(drawn.begin(), drawn.begin() + kCount, 2), 0);
  EXPECT_EQ(std::count(drawn.begin() + kCount, drawn.end(), 0), kCount);
}

TEST(Random, RefusesWhatHasNoDraw) {
  EXPECT_THAT(Noise("RandomNormal", 1).Set("shape", std::vector<int64_t>{-1}).InferredShape(),
              HasSubstr("'shape' holds -1"));
  EXPECT_THAT(Noise("RandomNormal", 1).Set("dtype", int64_t{8}).InferredShape(),
              HasSubstr("unsupported element type 8"));
  EXPECT_THAT(OneNode("Multinomial", 7).Input(Tensor(DType::kF32, Shape{2, 0})).InferredShape(),
              HasSubstr("no class"));
}

}  // namespace random_test
}  // namespace octet::testing
