// Pad, Gather, GatherElements, GatherND, ScatterElements, ScatterND.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"

namespace octet {
namespace pad_gather_test {

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

OneNode PadNode(const char* mode, List pads) {
  return OneNode("Pad", 19)
      .Input(Tensor::From<int32_t>({4}, {1, 2, 3, 4}))
      .Ints(std::move(pads))
      .Set("mode", std::string(mode));
}

TEST(PadTest, KnowsEveryMode) {
  EXPECT_THAT(RunOne<int32_t>(PadNode("constant", {2, 1})), ElementsAre(0, 0, 1, 2, 3, 4, 0));
  EXPECT_THAT(RunOne<int32_t>(PadNode("edge", {2, 1})), ElementsAre(1, 1, 1, 2, 3, 4, 4));
  EXPECT_THAT(RunOne<int32_t>(PadNode("reflect", {2, 1})), ElementsAre(3, 2, 1, 2, 3, 4, 3));
  EXPECT_THAT(RunOne<int32_t>(PadNode("wrap", {2, 1})), ElementsAre(3, 4, 1, 2, 3, 4, 1));
  EXPECT_THAT(PadNode("mirror", {2, 1}).InferredShape(), HasSubstr("unknown 'mode': 'mirror'"));
}

TEST(PadTest, ReflectsAgainBeyondTheFirstReflection) {
  EXPECT_THAT(RunOne<int32_t>(PadNode("reflect", {5, 0})), ElementsAre(2, 3, 4, 3, 2, 1, 2, 3, 4));
}

TEST(PadTest, CutsWithNegativePads) {
  EXPECT_THAT(RunOne<int32_t>(PadNode("constant", {-1, 2})), ElementsAre(2, 3, 4, 0, 0));
  EXPECT_THAT(RunOne<int32_t>(PadNode("reflect", {-1, 1})), ElementsAre(2, 3, 4, 3));
  EXPECT_THAT(PadNode("constant", {-3, -2}).InferredShape(), HasSubstr("loses more than it has"));
}

TEST(PadTest, TakesAttributesBeforeOpset11AndAxesSince18) {
  EXPECT_THAT(RunOne<float>(OneNode("Pad", 2)
                                .Input(Iota<float>({1, 2}))
                                .Set("pads", List{0, 1, 0, 0})
                                .Set("value", 9.0f)),
              ElementsAre(9, 0, 1));
  EXPECT_THAT(RunOne<float>(OneNode("Pad", 18)
                                .Input(Iota<float>({2, 2}))
                                .Ints({1, 0})
                                .Constant(Tensor::Scalar(7.0f))
                                .Ints({-2})),
              ElementsAre(7, 7, 0, 1, 2, 3));
}

TEST(PadTest, FillsQuantizedIntegersWithWhatStandsForTheFillValue) {
  const auto quant = QuantParams::PerTensor(0.5f, 100);
  auto out = OneNode("Pad", 13)
                 .Input(Tensor::From<uint8_t>({2}, {7, 8}), quant)
                 .Ints({1, 1})
                 .Declare(DType::kU8, std::nullopt, quant)
                 .Run();
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_THAT(Elements<uint8_t>((*out)[0]), ElementsAre(100, 7, 8, 100));
}

TEST(PadTest, InfersUnknownExtents) {
  EXPECT_EQ(OneNode("Pad", 13).Spec(DType::kF32, Shape{kU, 3}).Ints({0, 1, 0, 1}).InferredShape(),
            "[?,5]");
  EXPECT_EQ(
      OneNode("Pad", 13).Spec(DType::kF32, Shape{2, 3}).Spec(DType::kI64, Shape{4}).InferredShape(),
      "[?,?]");
  EXPECT_THAT(OneNode("Pad", 13).Spec(DType::kF32, Shape{2, 3}).Ints({0, 1}).InferredShape(),
              HasSubstr("has 2 values, expected 4"));
}

TEST(GatherTest, PicksBlocksAlongAnAxis) {
  EXPECT_THAT(RunOne<float>(OneNode("Gather", 13)
                                .Input(Iota<float>({2, 3, 2}))
                                .Input(Tensor::From<int32_t>({2}, {2, -3}))
                                .Set("axis", int64_t{1})),
              ElementsAre(4, 5, 0, 1, 10, 11, 6, 7));
  EXPECT_EQ(OneNode("Gather", 13)
                .Spec(DType::kF32, Shape{kU, 8})
                .Spec(DType::kI64, Shape{2, kU})
                .InferredShape(),
            "[2,?,8]");
  EXPECT_EQ(OneNode("Gather", 13)
                .Spec(DType::kF32, Shape{kU, 8})
                .Constant(Tensor::Scalar<int64_t>(0))
                .InferredShape(),
            "[8]");
}

TEST(GatherTest, RefusesAnIndexOutsideAtRunTime) {
  const auto out =
      OneNode("Gather", 13).Input(Iota<float>({3})).Input(Tensor::From<int64_t>({2}, {0, 3})).Run();
  EXPECT_EQ(out.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(out.status())), HasSubstr("index 1 is outside [-3, 3): 3"));
}

TEST(GatherElementsTest, PicksOneElementPerIndex) {
  EXPECT_THAT(RunOne<int8_t>(OneNode("GatherElements", 13)
                                 .Input(Iota<int8_t>({2, 2}))
                                 .Input(Tensor::From<int64_t>({2, 2}, {0, 0, -1, 0}))
                                 .Set("axis", int64_t{1})),
              ElementsAre(0, 0, 3, 2));
}

TEST(GatherNDTest, RefusesAnIndexOutsideAtRunTime) {
  const auto out = OneNode("GatherND", 13)
                       .Input(Iota<float>({2, 2}))
                       .Input(Tensor::From<int64_t>({1, 2}, {1, 2}))
                       .Run();
  EXPECT_EQ(out.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ScatterElementsTest, ReducesDuplicates) {
  const OneNode node = OneNode("ScatterElements", 18)
                           .Input(Tensor::From<float>({3}, {1, 1, 1}))
                           .Input(Tensor::From<int64_t>({3}, {0, 0, -1}))
                           .Input(Tensor::From<float>({3}, {2, 3, 4}))
                           .Set("reduction", std::string("add"));
  EXPECT_THAT(RunOne<float>(node), ElementsAre(6, 1, 5));
}

TEST(ScatterNDTest, ReplacesBlocksOfAnyType) {
  EXPECT_THAT(RunOne<bool>(OneNode("ScatterND", 11)
                               .Input(Tensor::From<bool>({2, 2}, {false, false, true, true}))
                               .Input(Tensor::From<int64_t>({1, 1}, {1}))
                               .Input(Tensor::From<bool>({1, 2}, {true, false}))),
              ElementsAre(false, false, true, false));
}

}  // namespace pad_gather_test
}  // namespace octet
