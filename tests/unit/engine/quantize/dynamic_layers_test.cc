// Which layers dynamic int8 would slow down.
#include "engine/quantize/dynamic_layers.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace dynamic_layers_test {

using ::testing::HasSubstr;

// Whether a Conv with weights [OC, IC / groups, k, k] is.
bool IsSlower(const Shape& weights, int64_t groups, int64_t stride = 1) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, weights[1] * groups, kUnknownDim, kUnknownDim});
  b.Output(
      b.Op("Conv", {x, b.Random(weights)}, {{"group", groups}, {"strides", Ints{stride, stride}}}));
  return !LayersSlowerInDynamicInt8(b.Build()).empty();
}

TEST(DynamicLayers, AreInFloatWhereDotProductsStayEmpty) {
  EXPECT_TRUE(IsSlower({64, 1, 3, 3}, 64)) << "depthwise";
  EXPECT_TRUE(IsSlower({64, 1, 7, 7}, 64)) << "however many taps it has";
  EXPECT_TRUE(IsSlower({64, 1, 10, 4}, 1)) << "of one channel";
  EXPECT_FALSE(IsSlower({64, 3, 3, 3}, 1)) << "a network's first";
  EXPECT_FALSE(IsSlower({64, 4, 3, 3}, 16)) << "in groups of four";
}

TEST(DynamicLayers, AreInFloatWhereFewReadWhatWouldBeQuantized) {
  EXPECT_FALSE(IsSlower({16, 64, 1, 1}, 1));
  EXPECT_TRUE(IsSlower({12, 64, 1, 1}, 1));
  EXPECT_TRUE(IsSlower({32, 64, 1, 1}, 1, 2)) << "reads one pixel of four";
  EXPECT_FALSE(IsSlower({64, 64, 1, 1}, 1, 2));
}

// A row times a matrix is bound by reading the matrix.
TEST(DynamicLayers, AreNoProductsHoweverNarrow) {
  for (const bool transposed : {false, true}) {
    for (const int64_t columns : {1, 2, 8, 64}) {
      GraphBuilder b;
      const Shape weights = transposed ? Shape{columns, 1280} : Shape{1280, columns};
      const ValueId x = b.Input("x", {kUnknownDim, 1280});
      b.Output(b.Op("Gemm", {x, b.Random(weights)}, {{"transB", int64_t{transposed}}}));
      EXPECT_TRUE(LayersSlowerInDynamicInt8(b.Build()).empty()) << columns;
    }
  }
}

TEST(DynamicLayers, AreProductsOfOneRow) {
  GraphBuilder b;
  b.Output(b.Op("MatMul", {b.Input("x", {kUnknownDim, 1}), b.Random({1, 64})}));
  const auto slower = LayersSlowerInDynamicInt8(b.Build());
  ASSERT_EQ(slower.size(), 1U);
  EXPECT_THAT(slower.begin()->second, HasSubstr("1 at a time"));
}

// What one of them alone would not be worth.
TEST(DynamicLayers, ShareTheBytesOfWhatTheyRead) {
  for (const int readers : {1, 2}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 64, 6, 6});
    for (int i = 0; i < readers; ++i) b.Output(b.Op("Conv", {x, b.Random({9, 64, 1, 1})}));
    const auto slower = LayersSlowerInDynamicInt8(b.Build());
    EXPECT_EQ(slower.empty(), readers == 2);
    for (const auto& [unused, reason] : slower)
      EXPECT_THAT(reason, HasSubstr("the time of 6.0 multiply-adds"));
  }
}

TEST(DynamicLayers, ShareTheBytesOfProducts) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 64, 6, 6});
  b.Output(b.Op("Conv", {x, b.Random({9, 64, 1, 1})}));
  b.Output(b.Op("MatMul", {x, b.Random({6, 2})}));
  EXPECT_TRUE(LayersSlowerInDynamicInt8(b.Build()).empty());
}

}  // namespace dynamic_layers_test
}  // namespace octet
