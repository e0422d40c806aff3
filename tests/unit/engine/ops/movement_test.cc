// Transpose, DepthToSpace, SpaceToDepth, Concat, Split, Slice, Expand, Tile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"

namespace octet {
namespace movement_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Iota;
using testing::OneNode;

constexpr int64_t kU = kUnknownDim;
using List = std::vector<int64_t>;

template <typename T>
std::vector<T> RunOne(const OneNode& node) {
  const auto out = node.Run();
  EXPECT_TRUE(out.ok()) << out.status();
  return out.ok() ? Elements<T>((*out)[0]) : std::vector<T>{};
}

TEST(TransposeTest, ReversesTheAxesByDefault) {
  EXPECT_THAT(RunOne<int16_t>(OneNode("Transpose", 13).Input(Iota<int16_t>({2, 3}))),
              ElementsAre(0, 3, 1, 4, 2, 5));
}

TEST(TransposeTest, InfersUnknownExtentsAndRanks) {
  EXPECT_EQ(OneNode("Transpose", 13)
                .Spec(DType::kF32, Shape{kU, 3, 8})
                .Set("perm", List{0, 2, 1})
                .InferredShape(),
            "[?,8,3]");
  EXPECT_EQ(OneNode("Transpose", 13)
                .Spec(DType::kF32, std::nullopt)
                .Set("perm", List{0, 2, 1})
                .InferredShape(),
            "[?,?,?]");
  EXPECT_THAT(OneNode("Transpose", 13)
                  .Spec(DType::kF32, Shape{2, 3})
                  .Set("perm", List{0, 0})
                  .InferredShape(),
              HasSubstr("no permutation of 2 axes: [0,0]"));
}

TEST(TransposeTest, MovesQuantizedIntegersUnchanged) {
  const auto quant = QuantParams::PerTensor(0.5f, 3);
  auto out = OneNode("Transpose", 13)
                 .Input(Iota<uint8_t>({2, 2}), quant)
                 .Declare(DType::kU8, std::nullopt, quant)
                 .Run();
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_THAT(Elements<uint8_t>((*out)[0]), ElementsAre(0, 2, 1, 3));
}

TEST(DepthToSpaceTest, IsTheInverseOfSpaceToDepth) {
  const Tensor x = Iota<float>({1, 8, 2, 3});
  auto spread = OneNode("DepthToSpace", 13).Input(x).Set("blocksize", int64_t{2}).Run();
  ASSERT_TRUE(spread.ok()) << spread.status();
  EXPECT_EQ((*spread)[0].shape(), (Shape{1, 2, 4, 6}));
  auto back = OneNode("SpaceToDepth", 13).Input((*spread)[0]).Set("blocksize", int64_t{2}).Run();
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(Elements<float>((*back)[0]), Elements<float>(x));
}

TEST(DepthToSpaceTest, RefusesChannelsThatDoNotDivide) {
  EXPECT_THAT(OneNode("DepthToSpace", 13)
                  .Spec(DType::kF32, Shape{1, 6, 2, 2})
                  .Set("blocksize", int64_t{2})
                  .InferredShape(),
              HasSubstr("no multiple of 4"));
}

TEST(ConcatTest, JoinsAlongAnAxisWithUnknownExtents) {
  const auto shape = [](std::optional<Shape> a, std::optional<Shape> b, int64_t axis) {
    return OneNode("Concat", 13)
        .Spec(DType::kF32, std::move(a))
        .Spec(DType::kF32, std::move(b))
        .Set("axis", axis)
        .InferredShape();
  };
  EXPECT_EQ(shape(Shape{kU, 3}, Shape{2, 5}, 1), "[2,8]")
      << "a known extent completes an unknown one";
  EXPECT_EQ(shape(Shape{2, 3}, Shape{kU, 3}, 0), "[?,3]");
  EXPECT_EQ(shape(Shape{2, 3}, std::nullopt, -1), "[2,?]");
  EXPECT_EQ(shape(std::nullopt, std::nullopt, 0), "unknown");
  EXPECT_THAT(shape(Shape{2, 3}, Shape{4, 3}, 1), HasSubstr("does not join"));
  EXPECT_THAT(OneNode("Concat", 13).Spec(DType::kF32, Shape{1}).InferredShape(),
              HasSubstr("lacks its attribute 'axis'"));
}

TEST(ConcatTest, InterleavesRowsOfItsInputs) {
  EXPECT_THAT(RunOne<int32_t>(OneNode("Concat", 13)
                                  .Input(Tensor::From<int32_t>({2, 1}, {1, 2}))
                                  .Input(Tensor::From<int32_t>({2, 2}, {3, 4, 5, 6}))
                                  .Set("axis", int64_t{1})),
              ElementsAre(1, 3, 4, 2, 5, 6));
}

TEST(SplitTest, CutsAsEachOpsetSays) {
  const Tensor x = Iota<float>({7});
  EXPECT_THAT(OneNode("Split", 13).Input(x).Outputs(2).InferredShape(),
              HasSubstr("cannot split 7 into 2 parts"));
  const OneNode uneven = OneNode("Split", 18).Input(x).Set("num_outputs", int64_t{3}).Outputs(3);
  EXPECT_EQ(uneven.InferredShape(0), "[3]");
  EXPECT_EQ(uneven.InferredShape(2), "[1]");
  EXPECT_EQ(OneNode("Split", 11).Input(x).Set("split", List{2, 5}).Outputs(2).InferredShape(1),
            "[5]");
  EXPECT_EQ(
      OneNode("Split", 13).Spec(DType::kF32, Shape{kU}).Ints({2, 5}).Outputs(2).InferredShape(1),
      "[5]");
  EXPECT_EQ(OneNode("Split", 13).Spec(DType::kF32, Shape{kU, 4}).Outputs(2).InferredShape(1),
            "[?,4]");
  EXPECT_THAT(OneNode("Split", 13).Input(x).Ints({2, 2}).Outputs(2).InferredShape(),
              HasSubstr("adds up to 4"));
}

TEST(SplitTest, WritesEveryPart) {
  auto out = OneNode("Split", 13)
                 .Input(Iota<int64_t>({2, 3}))
                 .Ints({1, 2})
                 .Set("axis", int64_t{1})
                 .Outputs(2)
                 .Run();
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_THAT(Elements<int64_t>((*out)[0]), ElementsAre(0, 3));
  EXPECT_THAT(Elements<int64_t>((*out)[1]), ElementsAre(1, 2, 4, 5));
}

TEST(SliceTest, CountsFromTheEndAndStepsBackwards) {
  const Tensor x = Iota<uint8_t>({10});
  EXPECT_THAT(RunOne<uint8_t>(OneNode("Slice", 13).Input(x).Ints({-3}).Ints({INT64_MAX})),
              ElementsAre(7, 8, 9));
  EXPECT_THAT(RunOne<uint8_t>(
                  OneNode("Slice", 13).Input(x).Ints({-1}).Ints({INT64_MIN}).Ints({0}).Ints({-4})),
              ElementsAre(9, 5, 1));
  EXPECT_THAT(RunOne<uint8_t>(
                  OneNode("Slice", 13).Input(x).Ints({8}).Ints({2}).Ints({0}).Ints({INT64_MIN})),
              ElementsAre(8));
  EXPECT_THAT(RunOne<uint8_t>(OneNode("Slice", 13).Input(x).Ints({5}).Ints({2})), ElementsAre());
}

TEST(SliceTest, TakesAttributesBeforeOpset10) {
  EXPECT_THAT(RunOne<float>(OneNode("Slice", 9)
                                .Input(Iota<float>({2, 4}))
                                .Set("axes", List{1})
                                .Set("starts", List{1})
                                .Set("ends", List{-1})),
              ElementsAre(1, 2, 5, 6));
}

// Positions are clamped to extents: to one that is not known they would wrap around.
TEST(SliceTest, ClampsNothingToUnknownExtents) {
  for (const int64_t start : {INT64_MIN, int64_t{-1}, int64_t{0}, INT64_MAX}) {
    for (const int64_t end : {INT64_MIN, int64_t{-1}, int64_t{0}, INT64_MAX}) {
      for (const int64_t step : {int64_t{-1}, int64_t{1}, INT64_MIN}) {
        EXPECT_EQ(OneNode("Slice", 13)
                      .Spec(DType::kF32, Shape{kU, 8})
                      .Ints({start, 0})
                      .Ints({end, 3})
                      .Ints({0, 1})
                      .Ints({step, 1})
                      .InferredShape(),
                  "[?,3]");
      }
    }
  }
}

TEST(SliceTest, LeavesUnknownExtentsUnknown) {
  EXPECT_EQ(OneNode("Slice", 13)
                .Spec(DType::kF32, Shape{kU, 8})
                .Ints({2})
                .Ints({6})
                .Ints({1})
                .InferredShape(),
            "[?,4]");
  EXPECT_EQ(OneNode("Slice", 13)
                .Spec(DType::kF32, Shape{kU, 8})
                .Ints({0})
                .Ints({1})
                .Ints({0})
                .InferredShape(),
            "[?,8]");
  EXPECT_EQ(OneNode("Slice", 13)
                .Spec(DType::kF32, Shape{4, 8})
                .Spec(DType::kI64, Shape{1})
                .Ints({1})
                .InferredShape(),
            "[?,?]");
}

TEST(SliceTest, ReadsPositionsThatArriveWithTheData) {
  const OneNode node = OneNode("Slice", 13)
                           .Input(Iota<float>({5}))
                           .Input(Tensor::From<int64_t>({1}, {1}))
                           .Input(Tensor::From<int64_t>({1}, {3}))
                           .Declare(DType::kF32, Shape{2});
  EXPECT_THAT(RunOne<float>(node), ElementsAre(1, 2));
  const OneNode wrong = OneNode("Slice", 13)
                            .Input(Iota<float>({5}))
                            .Input(Tensor::From<int64_t>({1}, {1}))
                            .Input(Tensor::From<int64_t>({1}, {2}))
                            .Declare(DType::kF32, Shape{2});
  EXPECT_EQ(wrong.Run().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(SliceTest, RefusesAStepOfZero) {
  EXPECT_THAT(OneNode("Slice", 13)
                  .Spec(DType::kF32, Shape{4})
                  .Ints({0})
                  .Ints({1})
                  .Ints({0})
                  .Ints({0})
                  .InferredShape(),
              HasSubstr("a step is 0"));
}

TEST(ExpandTest, RepeatsExtentsOfOne) {
  EXPECT_THAT(RunOne<int8_t>(OneNode("Expand", 13).Input(Iota<int8_t>({2, 1})).Ints({2, 1, 3})),
              ElementsAre(0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1));
  EXPECT_EQ(OneNode("Expand", 13).Spec(DType::kF32, Shape{kU, 1}).Ints({1, 4}).InferredShape(),
            "[?,4]");
  EXPECT_EQ(
      OneNode("Expand", 13).Spec(DType::kF32, Shape{3}).Spec(DType::kI64, Shape{2}).InferredShape(),
      "[?,?]");
  EXPECT_THAT(OneNode("Expand", 13).Spec(DType::kF32, Shape{3}).Ints({2}).InferredShape(),
              HasSubstr("cannot expand"));
}

TEST(TileTest, RepeatsTheWholeTensor) {
  EXPECT_THAT(RunOne<int16_t>(OneNode("Tile", 13).Input(Iota<int16_t>({2, 2})).Ints({2, 2})),
              ElementsAre(0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 2, 3, 2, 3));
}

}  // namespace movement_test
}  // namespace octet
