// What ai.onnx.ml's operators make of scores.
#include "engine/ops/class_scores.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace class_scores_test {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

std::vector<float> Transformed(PostTransform post, std::vector<float> scores) {
  TransformScores(post, scores);
  return scores;
}

TEST(ClassScores, SoftmaxOfLargeScores) {
  const float e = std::exp(-1.0F);
  EXPECT_THAT(Transformed(PostTransform::kSoftmax, {1000, 999}),
              Pointwise(FloatNear(1e-6F), {1 / (1 + e), e / (1 + e)}));
}

TEST(ClassScores, SoftmaxZeroLeavesZerosOut) {
  const float e = std::exp(-1.0F);
  EXPECT_THAT(Transformed(PostTransform::kSoftmaxZero, {2, 0, 1, 5e-8F}),
              Pointwise(FloatNear(1e-6F), {1 / (1 + e), 0.0F, e / (1 + e), 0.0F}));
  EXPECT_THAT(Transformed(PostTransform::kSoftmaxZero, {0, 0}), ElementsAre(0, 0));
}

TEST(ClassScores, LogisticStaysExactAtBothEnds) {
  EXPECT_THAT(Transformed(PostTransform::kLogistic, {0, 100, -100, 1}),
              Pointwise(FloatNear(1e-7F), {0.5F, 1.0F, 0.0F, 0.7310586F}));
}

TEST(ClassScores, ProbitIsTheNormalQuantile) {
  // Of the normal distribution: 0.5 -> 0, 0.841345 -> 1, 0.977250 -> 2.
  EXPECT_THAT(Transformed(PostTransform::kProbit, {0.5F, 0.841345F, 0.97725F, 0.158655F}),
              Pointwise(FloatNear(5e-3F), {0.0F, 1.0F, 2.0F, -1.0F}));
  EXPECT_TRUE(std::isnan(Probit(1.5F)));
}

TEST(ClassScores, OneScoreIsLeftButByProbit) {
  EXPECT_THAT(Transformed(PostTransform::kSoftmax, {3}), ElementsAre(3));
  EXPECT_THAT(Transformed(PostTransform::kLogistic, {3}), ElementsAre(3));
  EXPECT_NE(Transformed(PostTransform::kProbit, {0.9F})[0], 0.9F);
}

TEST(ClassScores, PostTransformIsPerRow) {
  OneNode node("PostTransform", 1, kOctetDomain);
  node.Input(Tensor::From<float>(Shape{2, 2}, {1, 1, 0, 2}));
  const auto outputs = node.Set("post_transform", std::string("SOFTMAX")).Run();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const float e = std::exp(-2.0F);
  EXPECT_THAT(Elements<float>(outputs->front()),
              Pointwise(FloatNear(1e-6F), {0.5F, 0.5F, e / (1 + e), 1 / (1 + e)}));
  EXPECT_THAT(node.Set("post_transform", std::string("softmax")).InferredShape(),
              HasSubstr("not 'softmax'"));
}

}  // namespace class_scores_test
}  // namespace octet::testing
