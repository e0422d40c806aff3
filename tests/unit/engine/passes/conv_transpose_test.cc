// Transposed convolutions: their canonical form, and what fuses, quantizes and lays them out with Conv.
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace conv_transpose_pass_test {

const Ints kTwo = {2, 2};

Graph Canonical(const Graph& graph) {
  Graph after = AfterPass("canonical_conv_transpose", graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  return after;
}

TEST(CanonicalConvTranspose, ResolvesEveryWayToStateThePads) {
  const std::vector<GraphBuilder::Attrs> kWays = {
      {},
      {{"pads", Ints{1, 0, 0, 1}}, {"output_padding", Ints{1, 1}}},
      {{"auto_pad", std::string("SAME_UPPER")}},
      {{"auto_pad", std::string("SAME_LOWER")}, {"dilations", Ints{2, 1}}},
      {{"auto_pad", std::string("VALID")}},
      {{"output_shape", Ints{9, 12}}},
      {{"output_shape", Ints{2, 6, 12, 11}}},
      {{"group", int64_t{2}}},
  };
  for (size_t way = 0; way < kWays.size(); ++way) {
    SCOPED_TRACE(way);
    GraphBuilder b;
    GraphBuilder::Attrs attributes = kWays[way];
    attributes["strides"] = kTwo;
    const int64_t group = attributes.contains("group") ? 2 : 1;
    const ValueId x = b.Input("x", {2, 4, 5, 6});
    b.Output(b.Op("ConvTranspose", {x, b.Random({4, 6 / group, 3, 2}), b.Random({6})}, attributes));
    const Graph after = Canonical(b.Build());
    EXPECT_THAT(after, HasOps({"octet:ConvTranspose"}));
    EXPECT_FALSE(TheOnly(after, "octet:ConvTranspose").attributes.has("auto_pad"));
  }
}

TEST(CanonicalConvTranspose, WaitsForExtentsThatAnOutputShapeNeeds) {
  for (const bool stated : {true, false}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 4, kUnknownDim, 6});
    GraphBuilder::Attrs attributes = {{"strides", kTwo}};
    if (stated) attributes["output_shape"] = Ints{9, 12};
    b.Output(b.Op("ConvTranspose", {x, b.Random({4, 6, 2, 2})}, attributes));
    const Graph after = AfterPass("canonical_conv_transpose", b.Build());
    EXPECT_EQ(OpNames(after)[0], stated ? "ConvTranspose" : "octet:ConvTranspose");
  }
}

TEST(CanonicalConvTranspose, LeavesComputedWeightsAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4, 5, 6});
  b.Output(b.Op("ConvTranspose", {x, b.Input("w", {4, 6, 2, 2})}));
  EXPECT_THAT(AfterPass("canonical_conv_transpose", b.Build()), HasOps({"ConvTranspose"}));
}

TEST(CanonicalConvTranspose, TakesInWhatFollows) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4, 5, 6});
  ValueId y = b.Op("ConvTranspose", {x, b.Random({4, 3, 2, 2}), b.Random({6})},
                   {{"strides", kTwo}, {"group", int64_t{2}}});
  y = b.Op("BatchNormalization",
           {y, b.Random({6}), b.Random({6}), b.Random({6}), b.Random({6}, 0.5F, 1.0F)});
  y = b.Op("Mul", {y, b.Random({6, 1, 1})});
  b.Output(b.Op("Relu", {y}));
  const Graph graph = b.Build();
  const Graph after = Optimised(graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  EXPECT_THAT(after, HasOps({"Transpose", "octet:ConvTranspose", "Transpose"}));
  EXPECT_EQ(TheOnly(after, "octet:ConvTranspose").post_ops.size(), 1U);
}

TEST(CanonicalConvTranspose, HasNoTransposeBetweenItAndConvolutions) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 8, 8});
  const ValueId down =
      b.Op("Conv", {x, b.Random({8, 3, 3, 3})}, {{"strides", kTwo}, {"pads", Ints{1, 1, 1, 1}}});
  const ValueId up = b.Op("ConvTranspose", {down, b.Random({8, 4, 2, 2})}, {{"strides", kTwo}});
  b.Output(b.Op("Conv", {b.Op("Relu", {up}), b.Random({2, 4, 1, 1})}));
  const Graph graph = b.Build();
  const Graph after = Optimised(graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  EXPECT_THAT(after, HasOps({"Transpose", "Conv", "octet:ConvTranspose", "Conv", "Transpose"}));
}

// x -> Q/DQ -> ConvTranspose(DQ(w)) -> Relu -> Q/DQ, w quantized along `axis`.
Graph Quantized(int64_t axis, int64_t group, const Ints& dilations = {1, 1},
                const Ints& pads = {1, 1, 1, 1}, const Ints& output_padding = {1, 1}) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 4, 5, 6}), 0.02F, 120);
  const ValueId w = b.QuantizedWeights({4, 6 / group, 3, 3}, axis);
  const ValueId y = b.Op("ConvTranspose", {x, w, b.Random({6})},
                         {{"strides", kTwo},
                          {"dilations", dilations},
                          {"group", group},
                          {"pads", pads},
                          {"output_padding", output_padding}});
  b.Output(b.FakeQuantize(b.Op("Relu", {y}), 0.05F, 0));
  return b.Build();
}

TEST(CanonicalConvTranspose, MultipliesIntegersWhereTheModelDoes) {
  PassContext int8;
  int8.precision = Precision::kInt8;
  for (const int64_t group : {1, 2}) {
    SCOPED_TRACE(group);
    const Graph graph = Quantized(1, group);
    const Graph after = Optimised(graph, int8);
    EXPECT_TRUE(SameAnswers(graph, after, {.atol = 0.051F}));
    const Node& node = TheOnly(after, "octet:ConvTranspose");
    EXPECT_TRUE(after.value(node.input(0)).quant.has_value()) << Dump(after);
    EXPECT_EQ(after.value(node.input(1)).dtype, DType::kI8);
    EXPECT_TRUE(after.value(node.output(0)).quant.has_value());
  }
}

TEST(CanonicalConvTranspose, StaysRealWhereNoKernelIsFastInIntegers) {
  PassContext int8;
  int8.precision = Precision::kInt8;
  // The last one's last rows are reached by no tap.
  for (const Graph& graph :
       {Quantized(0, 1), Quantized(1, 1, {2, 2}), Quantized(1, 1, {1, 1}, {0, 0, 0, 0}, {0, 1})}) {
    const Graph after = Optimised(graph, int8);
    EXPECT_TRUE(SameAnswers(graph, after, {.atol = 0.051F}));
    const Node& node = TheOnly(after, "octet:ConvTranspose");
    EXPECT_EQ(node.domain, kOctetDomain) << Dump(after);
    EXPECT_EQ(after.value(node.input(1)).dtype, DType::kF32);
  }
}

// x -> DynamicQuantizeLinear -> DequantizeLinear -> ConvTranspose(DQ(w)).
Graph QuantizedWhenItRuns(int64_t group, const Ints& dilations = {1, 1}) {
  GraphBuilder b;
  const auto quantized = b.Ops("DynamicQuantizeLinear", {b.Input("x", {2, 4, 5, 6})}, 3);
  const ValueId x = b.Op("DequantizeLinear", quantized);
  b.Output(b.Op("ConvTranspose", {x, b.QuantizedWeights({4, 6 / group, 3, 3}, 1), b.Random({6})},
                {{"strides", kTwo}, {"dilations", dilations}, {"group", group}}));
  return b.Build();
}

TEST(CanonicalConvTranspose, QuantizesItsInputWhenItRuns) {
  PassContext dynamic;
  dynamic.precision = Precision::kInt8Dynamic;
  for (const int64_t group : {1, 2}) {
    const Graph graph = QuantizedWhenItRuns(group);
    const Graph after = Optimised(graph, dynamic);
    EXPECT_TRUE(SameAnswers(graph, after));
    const Node& node = TheOnly(after, "octet:ConvTranspose");
    EXPECT_EQ(node.attributes.IntOr("dynamic_quant", 0), 1) << Dump(after);
    EXPECT_EQ(after.value(node.input(1)).dtype, DType::kI8);
  }
  const Graph real = QuantizedWhenItRuns(1, {2, 2});
  const Graph after = Optimised(real, dynamic);
  EXPECT_TRUE(SameAnswers(real, after));
  EXPECT_EQ(TheOnly(after, "octet:ConvTranspose").attributes.IntOr("dynamic_quant", 0), 0);
}

}  // namespace conv_transpose_pass_test
}  // namespace octet
