// Comparisons and selection: element types, broadcasting, NaN and infinities.
#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace comparison_test {

using testing::Answer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::OneNode;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(ComparisonTest, IsFalseForNaN) {
  const Tensor a = Tensor::From<float>({4}, {1, 2, 3, kNaN});
  const Tensor b = Tensor::From<float>({4}, {2, 2, 2, kNaN});
  const auto of = [&](const char* op) { return Answer<bool>(OneNode(op, 13).Input(a).Input(b)); };
  EXPECT_THAT(of("Less"), ElementsAre(true, false, false, false));
  EXPECT_THAT(of("LessOrEqual"), ElementsAre(true, true, false, false));
  EXPECT_THAT(of("Equal"), ElementsAre(false, true, false, false));
  EXPECT_THAT(of("GreaterOrEqual"), ElementsAre(false, true, true, false));
  EXPECT_THAT(of("Greater"), ElementsAre(false, false, true, false));
}

TEST(ComparisonTest, ComparesIntegersBeyondWhatFloatsTellApart) {
  EXPECT_THAT(Answer<bool>(OneNode("Equal", 13)
                               .Input(Tensor::From<int64_t>({2}, {int64_t{1} << 60, 5}))
                               .Input(Tensor::From<int64_t>({2}, {(int64_t{1} << 60) + 1, 5}))),
              ElementsAre(false, true));
  EXPECT_THAT(Answer<bool>(OneNode("Less", 13)
                               .Input(Tensor::From<uint64_t>({1}, {uint64_t{1} << 63}))
                               .Input(Tensor::From<uint64_t>({1}, {1}))),
              ElementsAre(false));
}

TEST(ComparisonTest, Broadcasts) {
  EXPECT_THAT(Answer<bool>(OneNode("Greater", 13)
                               .Input(Tensor::From<float>({2, 1}, {1, 3}))
                               .Input(Tensor::From<float>({3}, {0, 2, 4}))),
              ElementsAre(true, false, false, true, true, false));
  EXPECT_EQ(OneNode("Equal", 13)
                .Spec(DType::kF32, Shape{kUnknownDim, 1})
                .Spec(DType::kF32, Shape{3})
                .InferredShape(),
            "[?,3]");
  EXPECT_THAT(
      OneNode("Equal", 13).Spec(DType::kF32, Shape{2}).Spec(DType::kF32, Shape{3}).InferredShape(),
      HasSubstr("broadcast"));
}

TEST(WhereTest, ChoosesBetweenElementsOfAnyType) {
  const Tensor condition = Tensor::From<bool>({2, 1}, {true, false});
  EXPECT_THAT(Answer<float>(OneNode("Where", 16)
                                .Input(condition)
                                .Input(Tensor::From<float>({2}, {1, 2}))
                                .Input(Tensor::From<float>({}, {-kInf}))),
              ElementsAre(1, 2, -kInf, -kInf));
  EXPECT_THAT(Answer<int64_t>(OneNode("Where", 16)
                                  .Input(condition)
                                  .Input(Tensor::From<int64_t>({}, {int64_t{1} << 60}))
                                  .Input(Tensor::From<int64_t>({2}, {3, 4}))),
              ElementsAre(int64_t{1} << 60, int64_t{1} << 60, 3, 4));
}

TEST(WhereTest, RefusesChoicesOfTwoTypesAndShapesThatDoNotFit) {
  EXPECT_FALSE(OneNode("Where", 16)
                   .Spec(DType::kBool, Shape{2})
                   .Spec(DType::kF32, Shape{2})
                   .Spec(DType::kI32, Shape{2})
                   .Infer()
                   .ok());
  EXPECT_THAT(OneNode("Where", 16)
                  .Spec(DType::kBool, Shape{2})
                  .Spec(DType::kF32, Shape{3})
                  .Spec(DType::kF32, Shape{})
                  .InferredShape(),
              HasSubstr("do not broadcast"));
}

TEST(FloatTestTest, FindsNaNAndInfinitiesOfEitherSign) {
  const Tensor x = Tensor::From<float>({4}, {0, kNaN, kInf, -kInf});
  EXPECT_THAT(Answer<bool>(OneNode("IsNaN", 13).Input(x)), ElementsAre(false, true, false, false));
  EXPECT_THAT(Answer<bool>(OneNode("IsInf", 10).Input(x)), ElementsAre(false, false, true, true));
  EXPECT_THAT(Answer<bool>(OneNode("IsInf", 10).Input(x).Set("detect_negative", int64_t{0})),
              ElementsAre(false, false, true, false));
  EXPECT_THAT(Answer<bool>(OneNode("IsInf", 10).Input(x).Set("detect_positive", int64_t{0})),
              ElementsAre(false, false, false, true));
}

}  // namespace comparison_test
}  // namespace octet
