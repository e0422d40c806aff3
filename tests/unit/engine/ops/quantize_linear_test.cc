// Between reals and integers: rounding, saturation, scales per tensor, axis and block.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace quantize_linear_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::OneNode;
using testing::Reference;

TEST(QuantizeLinearTest, RoundsHalvesToEvenAndSaturates) {
  const Tensor x = Tensor::From<float>({7}, {0.5f, 1.5f, 2.5f, -0.5f, 1000, -1000, 3.2f});
  EXPECT_THAT(Reference<uint8_t>(OneNode("QuantizeLinear", 13)
                                     .Input(x)
                                     .Constant(Tensor::From<float>({}, {1}))
                                     .Constant(Tensor::From<uint8_t>({}, {7}))),
              ElementsAre(7, 9, 9, 7, 255, 0, 10));
  EXPECT_THAT(Reference<int8_t>(OneNode("QuantizeLinear", 13)
                                    .Input(x)
                                    .Constant(Tensor::From<float>({}, {1}))
                                    .Constant(Tensor::From<int8_t>({}, {-1}))),
              ElementsAre(-1, 1, 1, -1, 127, -128, 2));
}

TEST(QuantizeLinearTest, IsUnsignedWithoutAZeroPoint) {
  const OneNode node = OneNode("QuantizeLinear", 13)
                           .Input(Tensor::From<float>({2}, {-3, 3}))
                           .Constant(Tensor::From<float>({}, {0.5f}));
  EXPECT_THAT(Reference<uint8_t>(node), ElementsAre(0, 6));
}

TEST(QuantizeLinearTest, MakesTheZeroPointOfNaN) {
  const OneNode node = OneNode("QuantizeLinear", 13)
                           .Input(Tensor::From<float>({1}, {std::nanf("")}))
                           .Constant(Tensor::From<float>({}, {0.5f}))
                           .Constant(Tensor::From<uint8_t>({}, {77}));
  EXPECT_THAT(Reference<uint8_t>(node), ElementsAre(77));
}

TEST(QuantizeLinearTest, TakesScalesAlongAnAxis) {
  const OneNode node = OneNode("QuantizeLinear", 13)
                           .Input(Tensor::From<float>({2, 2}, {1, 1, -1, -1}))
                           .Constant(Tensor::From<float>({2}, {1, 0.25f}))
                           .Constant(Tensor::From<int8_t>({2}, {0, 5}))
                           .Set("axis", int64_t{1});
  EXPECT_THAT(Reference<int8_t>(node), ElementsAre(1, 9, -1, 1));
  EXPECT_THAT(Reference<int8_t>(OneNode(node).Set("axis", int64_t{-2})), ElementsAre(1, 1, 1, 1));
}

TEST(QuantizeLinearTest, RefusesScalesThatDoNotRunAlongTheAxis) {
  const OneNode node = OneNode("QuantizeLinear", 13)
                           .Input(Tensor::From<float>({2, 3}, {0, 0, 0, 0, 0, 0}))
                           .Constant(Tensor::From<float>({2}, {1, 1}));
  EXPECT_THAT(node.InferredShape(), HasSubstr("do not run along axis 1 of [2,3]"));
  EXPECT_THAT(OneNode("QuantizeLinear", 10)
                  .Input(Tensor::From<float>({1, 2}, {0, 0}))
                  .Constant(Tensor::From<float>({2}, {1, 1}))
                  .InferredShape(),
              HasSubstr("per-axis scales need opset 13"));
  EXPECT_THAT(OneNode("QuantizeLinear", 13)
                  .Input(Tensor::From<float>({1, 2}, {0, 0}))
                  .Constant(Tensor::From<float>({2}, {1, 1}))
                  .Constant(Tensor::From<uint8_t>({1}, {0}))
                  .InferredShape(),
              HasSubstr("differ in shape"));
}

TEST(DequantizeLinearTest, IsScaleTimesTheDistanceFromTheZeroPoint) {
  const OneNode node = OneNode("DequantizeLinear", 13)
                           .Input(Tensor::From<uint8_t>({3}, {0, 10, 255}))
                           .Constant(Tensor::From<float>({}, {0.5f}))
                           .Constant(Tensor::From<uint8_t>({}, {10}));
  EXPECT_THAT(Reference<float>(node), ElementsAre(-5, 0, 122.5f));
  const OneNode bias = OneNode("DequantizeLinear", 13)
                           .Input(Tensor::From<int32_t>({2}, {-3, 1 << 20}))
                           .Constant(Tensor::From<float>({2}, {0.5f, 0x1p-20f}))
                           .Set("axis", int64_t{0});
  EXPECT_THAT(Reference<float>(bias), ElementsAre(-1.5f, 1));
}

// What a Gather moves out of a table of bytes: the plan runs it, no reference kernel.
TEST(DequantizeLinearTest, TakesAScalePerElementOfARow) {
  const OneNode node = OneNode("DequantizeLinear", 13)
                           .Input(Tensor::From<int8_t>({2, 3}, {1, -2, 3, 4, 5, -128}))
                           .Constant(Tensor::From<float>({3}, {1, 10, 0.5f}))
                           .Set("axis", int64_t{-1});
  EXPECT_THAT(testing::Answer<float>(node), ElementsAre(1, -20, 1.5f, 4, 50, -64));
  EXPECT_EQ(testing::Lower(node)->layer.impl, "octet:elementwise");
  const OneNode shifted = OneNode("DequantizeLinear", 13)
                              .Input(Tensor::From<uint8_t>({2, 2}, {0, 255, 10, 128}))
                              .Constant(Tensor::From<float>({2}, {1, 2}))
                              .Constant(Tensor::From<uint8_t>({2}, {255, 128}));
  EXPECT_THAT(testing::Answer<float>(shifted), ElementsAre(-255, 254, -245, 0));
}

TEST(DequantizeLinearTest, TakesAScalePerBlock) {
  // Blocks of 2 along an axis of 3: the last one is not full.
  const OneNode node = OneNode("DequantizeLinear", 21)
                           .Input(Tensor::From<int8_t>({2, 3}, {1, 2, 3, 4, 5, 6}))
                           .Constant(Tensor::From<float>({2, 2}, {1, 10, 100, 1000}))
                           .Set("axis", int64_t{1})
                           .Set("block_size", int64_t{2});
  EXPECT_THAT(Reference<float>(node), ElementsAre(1, 2, 30, 400, 500, 6000));
  EXPECT_THAT(OneNode(node).Set("block_size", int64_t{3}).InferredShape(),
              HasSubstr("must have shape [2,1], got [2,2]"));
}

TEST(DynamicQuantizeLinearTest, CoversTheRangeAndZero) {
  const OneNode positive = OneNode("DynamicQuantizeLinear", 11)
                               .Input(Tensor::From<float>({3}, {51, 102, 255}))
                               .Outputs(3);
  EXPECT_THAT(Reference<uint8_t>(positive), ElementsAre(51, 102, 255));
  EXPECT_THAT(Reference<float>(positive, 1), ElementsAre(1));
  EXPECT_THAT(Reference<uint8_t>(positive, 2), ElementsAre(0));
  const OneNode mixed = OneNode("DynamicQuantizeLinear", 11)
                            .Input(Tensor::From<float>({3}, {-55, 0, 200}))
                            .Outputs(3);
  EXPECT_THAT(Reference<uint8_t>(mixed), ElementsAre(0, 55, 255));
  EXPECT_THAT(Reference<float>(mixed, 1), ElementsAre(1));
  EXPECT_THAT(Reference<uint8_t>(mixed, 2), ElementsAre(55));
}

TEST(DynamicQuantizeLinearTest, GivesARangeOfNothingAScaleAllTheSame) {
  const OneNode node =
      OneNode("DynamicQuantizeLinear", 11).Input(Tensor::From<float>({2}, {0, 0})).Outputs(3);
  EXPECT_THAT(Reference<uint8_t>(node), ElementsAre(0, 0));
  EXPECT_THAT(Reference<float>(node, 1), ElementsAre(1));
}

}  // namespace quantize_linear_test
}  // namespace octet
