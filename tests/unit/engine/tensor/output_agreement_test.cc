#include "engine/tensor/output_agreement.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"

namespace octet {
namespace output_agreement_test {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

OutputComparison Compare(const Shape& shape, std::vector<float> got, std::vector<float> reference) {
  return CompareOutputs(Tensor::From<float>(shape, got).view(),
                        Tensor::From<float>(shape, reference).view());
}

TEST(NoiseSumsTest, AreTheFormulas) {
  NoiseSums sums;
  sums.Add(std::vector<float>{3, 6, 9, 12}, std::vector<float>{2, 4, 6, 8});
  EXPECT_EQ(sums.signal, 120);
  EXPECT_EQ(sums.noise, 30);
  EXPECT_EQ(sums.max_abs, 4);
  EXPECT_NEAR(sums.SqnrDb(), 10 * std::log10(4.0), 1e-12);
  EXPECT_EQ(sums.RelativeL2(), 0.5);
  sums.Add(std::vector<float>{-7}, std::vector<float>{0});
  EXPECT_EQ(sums.noise, 79);
  EXPECT_EQ(sums.max_abs, 7) << "the sums go on";
}

TEST(NoiseSumsTest, EqualTensorsAndAZeroReferenceAreInfinite) {
  NoiseSums equal;
  equal.Add(std::vector<float>{1, 2}, std::vector<float>{1, 2});
  EXPECT_EQ(equal.SqnrDb(), kInf);
  EXPECT_EQ(equal.RelativeL2(), 0);
  NoiseSums zero;
  zero.Add(std::vector<float>{1}, std::vector<float>{0});
  EXPECT_EQ(zero.SqnrDb(), -kInf);
  EXPECT_EQ(zero.RelativeL2(), kInf);
}

TEST(NoiseSumsTest, WhatHasNoDifferenceIsCountedApart) {
  NoiseSums sums;
  sums.Add(std::vector<float>{kNan, 1, kNan, kInf, -kInf, 1, kInf, 5},
           std::vector<float>{1, kNan, kNan, -kInf, 1, kInf, kInf, 4});
  EXPECT_EQ(sums.non_finite, 6) << "an infinity on both sides is equal";
  EXPECT_EQ(sums.lost, 2) << "where the reference is none either, nothing is";
  NoiseSums more;
  more.Merge(sums);
  EXPECT_EQ(more.lost, 2);
  EXPECT_EQ(sums.signal, 16);
  EXPECT_EQ(sums.noise, 1);
  EXPECT_EQ(sums.max_abs, 1);
}

TEST(NoiseSumsTest, DifferencesOfLargeFloatsDoNotOverflow) {
  NoiseSums sums;
  sums.Add(std::vector<float>{3e38F}, std::vector<float>{-3e38F});
  EXPECT_EQ(sums.non_finite, 0);
  EXPECT_NEAR(sums.RelativeL2(), 2, 1e-9);
}

TEST(TopClassTest, IsTheFirstOfTheLargest) {
  EXPECT_EQ(TopClass(std::vector<float>{1, 3, 3, 2}), 1U);
  EXPECT_EQ(TopClass(std::vector<float>{-kInf, -kInf}), 0U);
  EXPECT_EQ(TopClass(std::vector<float>{1, kNan}), std::nullopt);
  EXPECT_EQ(TopClass(std::vector<float>{kNan, 1}), std::nullopt);
  EXPECT_EQ(TopClass({}), std::nullopt);
}

TEST(TopClassTest, EqualScoresComeByIndex) {
  const std::vector<float> scores = {5, 1, 5, 4};
  EXPECT_TRUE(IsAmongTop(scores, 0, 1));
  EXPECT_FALSE(IsAmongTop(scores, 2, 1));
  EXPECT_TRUE(IsAmongTop(scores, 2, 2));
  EXPECT_FALSE(IsAmongTop(scores, 3, 2));
  EXPECT_FALSE(IsAmongTop(scores, 1, 3));
}

TEST(CompareOutputsTest, RowsAgreeOnTheBestClassOrOnTheFiveBest) {
  const auto comparison = Compare({3, 7}, {9, 1, 2, 3, 4, 5, 6,   // the best is 0 in both
                                           5, 9, 8, 7, 6, 0, 0,   // the best is 0, here the fifth
                                           4, 9, 8, 7, 6, 5, 0},  // the best is 0, here the sixth
                                  {8, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0});
  ASSERT_TRUE(comparison.classes.has_value());
  EXPECT_EQ(comparison.classes->rows, 3);
  EXPECT_EQ(comparison.classes->top1, 1);
  EXPECT_EQ(comparison.classes->top5, 2);
  EXPECT_FALSE(comparison.kl.has_value());
}

TEST(CompareOutputsTest, ARowWithANanNeverAgrees) {
  const auto comparison = Compare({2, 2}, {kNan, 1, 1, 2}, {kNan, 1, 1, 2});
  EXPECT_EQ(comparison.classes->rows, 2);
  EXPECT_EQ(comparison.classes->top1, 1);
  EXPECT_EQ(comparison.classes->top5, 1);
  EXPECT_EQ(comparison.noise->non_finite, 1);
}

TEST(CompareOutputsTest, TheClassAxisIsAxisOne) {
  const auto has_classes = [](const Shape& shape) {
    const std::vector<float> values(static_cast<size_t>(shape.elements()), 1);
    return Compare(shape, values, values).classes.has_value();
  };
  EXPECT_TRUE(has_classes({4, 3}));
  EXPECT_TRUE(has_classes({4, 3, 1, 1}));
  EXPECT_FALSE(has_classes({4, 1})) << "one number a row";
  EXPECT_FALSE(has_classes({4})) << "rows, not classes";
  EXPECT_FALSE(has_classes({1, 3, 2, 2})) << "a map";
  EXPECT_FALSE(has_classes({}));
}

TEST(ClassesOfTest, OneRowMayBeAVectorOfScores) {
  EXPECT_EQ(ClassesOf({10}, 1), 10);
  EXPECT_EQ(ClassesOf({10}, 10), 0) << "a number for each";
  EXPECT_EQ(ClassesOf({1}, 1), 0);
  EXPECT_EQ(ClassesOf({}, 1), 0);
  EXPECT_EQ(ClassesOf({10}), 0) << "rows or scores: nobody has said";
}

TEST(ClassesOfTest, RowsThatAreCountedLieAlongAxisZero) {
  EXPECT_EQ(ClassesOf({4, 10}, 4), 10);
  EXPECT_EQ(ClassesOf({4, 10, 1, 1}, 4), 10);
  EXPECT_EQ(ClassesOf({4, 1, 1, 10}, 4), 10);
  EXPECT_EQ(ClassesOf({4, 1, 1, 10}), 0);
  EXPECT_EQ(ClassesOf({4, 100, 4}, 4), 0) << "scores of a hundred boxes each";
  EXPECT_EQ(ClassesOf({4, 1}, 4), 0);
  EXPECT_EQ(ClassesOf({4, 1, 1}, 4), 0);
  EXPECT_EQ(ClassesOf({2, 10}, 4), 0);
}

TEST(CompareOutputsTest, WhoCountsTheRowsMayHaveClassesElsewhere) {
  const Tensor vector = Tensor::From<float>({3}, {1, 3, 2});
  EXPECT_FALSE(CompareOutputs(vector.view(), vector.view()).classes.has_value());
  EXPECT_FALSE(CompareOutputs(vector.view(), vector.view(), 3).classes.has_value());
  const auto one = CompareOutputs(vector.view(), vector.view(), 1);
  ASSERT_TRUE(one.classes.has_value());
  EXPECT_EQ(one.classes->top1, 1);
  const Tensor boxes = Tensor::From<float>({2, 3}, {1, 3, 2, 1, 3, 2});
  EXPECT_EQ(CompareOutputs(boxes.view(), boxes.view(), 1).classes->rows, 2) << "as without";
}

TEST(CompareOutputsTest, DistributionsDiverge) {
  const auto comparison = Compare({2, 2}, {0.25F, 0.75F, 0.5F, 0.5F}, {0.5F, 0.5F, 0.5F, 0.5F});
  ASSERT_TRUE(comparison.kl.has_value());
  const double first = 0.5 * std::log(0.5 / 0.25) + 0.5 * std::log(0.5 / 0.75);
  EXPECT_NEAR(*comparison.kl, first / 2, 1e-9);
  EXPECT_EQ(*Compare({1, 2}, {1, 0}, {1, 0}).kl, 0) << "0 ln 0 is 0";
  EXPECT_NEAR(*Compare({1, 2}, {1, 0}, {0.5F, 0.5F}).kl,
              0.5 * std::log(0.5) + 0.5 * std::log(0x1p23), 1e-6)
      << "what an 8-bit softmax rounds to zero is no infinity";
  EXPECT_GE(*Compare({1, 2}, {0.5005F, 0.5003F}, {0.4998F, 0.4996F}).kl, 0);
}

TEST(CompareOutputsTest, WhatIsNoDistributionHasNoDivergence) {
  EXPECT_FALSE(Compare({1, 2}, {0.5F, 0.502F}, {0.5F, 0.5F}).kl.has_value());
  EXPECT_FALSE(Compare({1, 2}, {0.5F, 0.5F}, {-0.5F, 1.5F}).kl.has_value());
  EXPECT_FALSE(Compare({1, 2}, {kNan, 1}, {0.5F, 0.5F}).kl.has_value());
  EXPECT_FALSE(Compare({2, 2}, {0.5F, 0.5F, 3, 4}, {0.5F, 0.5F, 3, 4}).kl.has_value())
      << "each row has to be one";
  EXPECT_FALSE(Compare({0, 2}, {}, {}).kl.has_value());
}

TEST(CompareOutputsTest, OtherWidthsAreComparedAsFloats) {
  Tensor half(DType::kF16, {1, 2});
  ConvertTensor(Tensor::From<float>({1, 2}, {3, 1}).view(), half.mutable_view());
  Tensor other(DType::kF16, {1, 2});
  ConvertTensor(Tensor::From<float>({1, 2}, {2, 1}).view(), other.mutable_view());
  const auto comparison = CompareOutputs(half.view(), other.view());
  EXPECT_EQ(comparison.noise->max_abs, 1);
  EXPECT_EQ(comparison.classes->top1, 1);
}

TEST(CompareOutputsTest, IntegersAndStringsAreEqualOrNot) {
  const auto integers = CompareOutputs(Tensor::From<int64_t>({4}, {1, 2, 3, 4}).view(),
                                       Tensor::From<int64_t>({4}, {1, 2, 3, -4}).view());
  EXPECT_EQ(integers.elements, 4);
  EXPECT_EQ(integers.equal, 3);
  EXPECT_FALSE(integers.noise.has_value());
  EXPECT_FALSE(integers.classes.has_value());
  const std::vector<std::string_view> words = {"a", "", "long enough to be elsewhere"};
  const std::vector<std::string_view> others = {"a", "b", "long enough to be elsewhere"};
  const auto strings =
      CompareOutputs(Tensor::Strings({3}, words).view(), Tensor::Strings({3}, others).view());
  EXPECT_EQ(strings.elements, 3);
  EXPECT_EQ(strings.equal, 2);
  const auto bytes = CompareOutputs(Tensor::From<uint8_t>({2}, {1, 2}).view(),
                                    Tensor::From<uint8_t>({2}, {1, 2}).view());
  EXPECT_EQ(bytes.equal, 2);
}

TEST(CompareOutputsTest, AnotherShapeOrTypeIsNotCompared) {
  const auto shapes = CompareOutputs(Tensor::From<float>({3}, {1, 2, 3}).view(),
                                     Tensor::From<float>({2}, {1, 2}).view());
  EXPECT_FALSE(shapes.same_shape);
  EXPECT_FALSE(shapes.noise.has_value());
  const auto types =
      CompareOutputs(Tensor::From<float>({1}, {1}).view(), Tensor::From<int32_t>({1}, {1}).view());
  EXPECT_FALSE(types.same_shape);
  EXPECT_TRUE(Compare({2}, {1, 2}, {1, 2}).same_shape);
}

}  // namespace output_agreement_test
}  // namespace octet
