#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"

namespace octet {
namespace reshape_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Iota;
using testing::OneNode;

constexpr int64_t kU = kUnknownDim;

TEST(ReshapeTest, KeepsTheElementsAndTheirOrder) {
  const auto out = OneNode("Reshape", 13).Input(Iota<float>({2, 3})).Ints({3, -1}).Run();
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ((*out)[0].shape(), (Shape{3, 2}));
  EXPECT_THAT(Elements<float>((*out)[0]), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(ReshapeTest, InfersThroughUnknownExtents) {
  const auto shape = [](std::optional<Shape> in, std::vector<int64_t> target) {
    return OneNode("Reshape", 13)
        .Spec(DType::kF32, std::move(in))
        .Ints(std::move(target))
        .InferredShape();
  };
  EXPECT_EQ(shape(Shape{kU, 16, 4, 4}, {0, -1}), "[?,256]") << "copied extents cancel";
  EXPECT_EQ(shape(Shape{kU, 16, 4, 4}, {-1, 256}), "[?,256]");
  EXPECT_EQ(shape(Shape{kU, 256}, {2, 128}), "[2,128]");
  EXPECT_EQ(shape(std::nullopt, {0, -1, 4}), "[?,?,4]");
}

TEST(ReshapeTest, KnowsTheRankFromAShapeThatIsNotConstant) {
  EXPECT_EQ(OneNode("Reshape", 13)
                .Spec(DType::kF32, Shape{6})
                .Spec(DType::kI64, Shape{3})
                .InferredShape(),
            "[?,?,?]");
  EXPECT_EQ(OneNode("Reshape", 13)
                .Spec(DType::kF32, Shape{6})
                .Spec(DType::kI64, Shape{kU})
                .InferredShape(),
            "unknown");
}

TEST(ReshapeTest, AllowZeroMeansZero) {
  EXPECT_EQ(OneNode("Reshape", 14)
                .Spec(DType::kF32, Shape{0, 3})
                .Ints({3, 0})
                .Set("allowzero", int64_t{1})
                .InferredShape(),
            "[3,0]");
  EXPECT_THAT(OneNode("Reshape", 14)
                  .Spec(DType::kF32, Shape{2, 3})
                  .Ints({3, 0})
                  .Set("allowzero", int64_t{1})
                  .InferredShape(),
              HasSubstr("cannot reshape [2,3] to [3,0]"));
}

TEST(ReshapeTest, RefusesShapesThatDoNotFit) {
  const auto shape = [](std::vector<int64_t> target) {
    return OneNode("Reshape", 13)
        .Spec(DType::kF32, Shape{2, 3})
        .Ints(std::move(target))
        .InferredShape();
  };
  EXPECT_THAT(shape({4, -1}),
              HasSubstr("Reshape 'tested' (opset 13): cannot reshape [2,3] to [4,-1]"));
  EXPECT_THAT(shape({-1, -1}), HasSubstr("more than one extent -1"));
  EXPECT_THAT(shape({2, 3, 0}), HasSubstr("copies extent 2"));
  EXPECT_THAT(shape({-2, 3}), HasSubstr("negative extent: -2"));
}

TEST(FlattenTest, SplitsAtTheAxis) {
  const auto shape = [](Shape in, int64_t axis) {
    return OneNode("Flatten", 13).Spec(DType::kF32, in).Set("axis", axis).InferredShape();
  };
  EXPECT_EQ(shape({2, 3, 4}, 1), "[2,12]");
  EXPECT_EQ(shape({2, 3, 4}, 0), "[1,24]");
  EXPECT_EQ(shape({2, 3, 4}, 3), "[24,1]");
  EXPECT_EQ(shape({kU, 3, 4}, -1), "[?,4]");
  EXPECT_THAT(shape({2, 3}, 4), HasSubstr("axis is outside"));
}

TEST(SqueezeTest, TakesAxesFromAttributesBeforeOpset13AndFromInputsSince) {
  const Tensor x = Iota<int8_t>({1, 2, 1});
  EXPECT_EQ(OneNode("Squeeze", 11).Input(x).Set("axes", std::vector<int64_t>{0}).InferredShape(),
            "[2,1]");
  EXPECT_EQ(OneNode("Squeeze", 13).Input(x).Ints({-1}).InferredShape(), "[1,2]");
  EXPECT_EQ(OneNode("Squeeze", 13).Input(x).InferredShape(), "[2]");
  EXPECT_EQ(OneNode("Squeeze", 13).Spec(DType::kF32, Shape{1, kU}).InferredShape(), "unknown");
  EXPECT_THAT(OneNode("Squeeze", 13).Input(x).Ints({1}).InferredShape(),
              HasSubstr("cannot squeeze axis 1 of [1,2,1]"));
}

TEST(UnsqueezeTest, AddsExtentsOfOne) {
  EXPECT_EQ(OneNode("Unsqueeze", 11)
                .Spec(DType::kF32, Shape{2, kU})
                .Set("axes", std::vector<int64_t>{0, 3})
                .InferredShape(),
            "[1,2,?,1]");
  EXPECT_EQ(OneNode("Unsqueeze", 13).Spec(DType::kF32, Shape{2}).Ints({-1, 0}).InferredShape(),
            "[1,2,1]");
  EXPECT_THAT(OneNode("Unsqueeze", 13).Spec(DType::kF32, Shape{2}).Ints({1, 1}).InferredShape(),
              HasSubstr("appears twice"));
  EXPECT_THAT(OneNode("Unsqueeze", 11).Spec(DType::kF32, Shape{2}).InferredShape(),
              HasSubstr("'axes'"));
}

}  // namespace reshape_test
}  // namespace octet
