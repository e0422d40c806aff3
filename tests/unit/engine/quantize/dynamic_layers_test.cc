// Which layers dynamic int8 would slow down.
#include "engine/quantize/dynamic_layers.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace dynamic_layers_test {

using testing::HasSubstr;

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

TEST(DynamicLayers, CountTheColumnsOfProducts) {
  for (const bool transposed : {false, true}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 64});
    const auto product = [&](int64_t columns) {
      const Shape weights = transposed ? Shape{columns, 64} : Shape{64, columns};
      return b.Op("Gemm", {x, b.Random(weights)}, {{"transB", int64_t{transposed}}});
    };
    b.Output(b.Op("Gemm", {product(64), b.Random({64, 2})}));
    const Graph graph = b.Build();
    const auto slower = LayersSlowerInDynamicInt8(graph);
    ASSERT_EQ(slower.size(), 1U);
    EXPECT_EQ(slower.begin()->first, graph.order().back());
    EXPECT_THAT(slower.begin()->second, HasSubstr("the time of 1.3 multiply-adds"));
  }
}

// What one of them alone would not be worth.
TEST(DynamicLayers, ShareTheBytesOfWhatTheyRead) {
  for (const int readers : {1, 2}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 64});
    for (int i = 0; i < readers; ++i) b.Output(b.Op("MatMul", {x, b.Random({64, 9})}));
    EXPECT_EQ(LayersSlowerInDynamicInt8(b.Build()).empty(), readers == 2);
  }
}

}  // namespace dynamic_layers_test
}  // namespace octet
