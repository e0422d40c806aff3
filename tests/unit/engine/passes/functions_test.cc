// Operators that are defined by others, replaced by them: raise_opset and expand_functions.
#include "gtest/gtest.h"

#include "engine/onnx/onnx_file.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace functions_test {

TEST(RaiseOpset, RewritesWhatChangedAndRenumbersTheRest) {
  GraphBuilder b(6);
  const ValueId x = b.Input("x", {kUnknownDim, 3, 4, 4});
  const ValueId c = b.Op("Conv", {x, b.Random({5, 3, 1, 1})});
  const ValueId sum =
      b.Op("Add", {c, b.Random({5})}, {{"broadcast", int64_t{1}}, {"axis", int64_t{1}}});
  b.Output(b.Op("Relu", {sum}, {{"consumed_inputs", Ints{0}}}), "y");
  const Graph graph = b.Build();
  const Graph after = AfterPass("raise_opset", graph);
  EXPECT_THAT(after, HasOps({"Conv", "Unsqueeze", "Add", "Relu"}));
  for (const NodeId id : after.order()) {
    EXPECT_EQ(after.node(id).version, 7);
    EXPECT_FALSE(after.node(id).attributes.has("consumed_inputs"));
  }
  EXPECT_EQ(after.value(after.outputs[0]).name, "y");
  EXPECT_TRUE(SameAnswers(WithUnknownExtents(graph, 2), WithUnknownExtents(after, 2)));
  EXPECT_TRUE(WriteOnnxBytes(after).ok()) << "it is one opset of ONNX";
  // The bias goes on into the convolution.
  EXPECT_THAT(Optimised(WithUnknownExtents(graph, 2)), HasNo("Add"));
}

TEST(RaiseOpset, WaitsForRanks) {
  GraphBuilder b(6);
  const ValueId x = b.Input("x", {2, 3, 4});
  b.Output(b.Op("Add", {x, b.Random({3})}, {{"broadcast", int64_t{1}}, {"axis", int64_t{1}}}));
  const Graph graph = b.Build();
  Graph open = graph;
  open.mutable_value(open.inputs[0]).shape.reset();
  open.mutable_value(open.outputs[0]).shape.reset();
  Graph waiting = AfterPass("raise_opset", open);
  EXPECT_THAT(waiting, HasOps({"Add"}));
  waiting.mutable_value(waiting.inputs[0]).shape = Shape{2, 3, 4};
  EXPECT_THAT(AfterPass("raise_opset", waiting), HasOps({"Unsqueeze", "Add"}));
}

// Expands, and holds the body in place against the body as a kernel.
Graph Expanded(const Graph& graph) {
  Graph after = AfterPass("expand_functions", graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  EXPECT_TRUE(SameAnswers(graph, Optimised(graph), {.rtol = 1e-3F, .atol = 1e-4F, .steps = 1}));
  return after;
}

TEST(ExpandFunctions, FusedConvIsFusedAgain) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 6, 6});
  const ValueId z = b.Input("z", {1, 4, 6, 6});
  b.Output(b.Op("com.microsoft:FusedConv", {x, b.Random({4, 3, 3, 3}), b.Random({4}), z},
                {{"pads", Ints{1, 1, 1, 1}}, {"activation", std::string("Relu")}}));
  const Graph graph = b.Build();
  EXPECT_THAT(Expanded(graph), HasOps({"Conv", "Add", "Relu"}));
  const Graph fast = Optimised(graph);
  EXPECT_EQ(TheOnly(fast, "Conv").post_ops.size(), 2) << "the sum, and Relu";
}

TEST(ExpandFunctions, NestedFunctionsToo) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 5, 8}, DType::kU8);
  b.Output(b.Op("com.microsoft:QAttention",
                {x, b.RandomInts(DType::kI8, {8, 24}, -127, 127), b.Random({24}), b.Scalar(0.02F),
                 b.Scalar(0.01F), kNone, b.Scalar<uint8_t>(128), b.Scalar<int8_t>(0)},
                {{"num_heads", int64_t{2}}}));
  const Graph graph = b.Build();
  const Graph after = Expanded(graph);
  EXPECT_THAT(after, HasNo("com.microsoft:QAttention"));
  EXPECT_THAT(after, HasNo("com.microsoft:MatMulIntegerToFloat"));
  EXPECT_THAT(after, HasExactly(3, "MatMul"));
  // The projection runs on the integers.
  const Graph fast = Optimised(graph);
  int typed = 0;
  for (const NodeId id : fast.order()) {
    const Node& node = fast.node(id);
    if (node.is("MatMul", kOctetDomain) && fast.value(node.input(1)).dtype == DType::kI8) ++typed;
  }
  EXPECT_EQ(typed, 1) << Dump(fast);
}

TEST(ExpandFunctions, DynamicProductsQuantizeWhenTheyRun) {
  GraphBuilder b;
  b.Output(b.Op("com.microsoft:DynamicQuantizeMatMul",
                {b.Input("x", {3, 8}), b.RandomInts(DType::kI8, {8, 5}, -127, 127),
                 b.Random({5}, 0.01F, 0.02F), kNone, b.Random({5})}));
  const Graph fast = Optimised(b.Build());
  EXPECT_THAT(fast, HasOps({"octet:MatMul"}));
  EXPECT_EQ(TheOnly(fast, "octet:MatMul").attributes.IntOr("dynamic_quant", 0), 1);
}

TEST(ExpandFunctions, AZeroPointOfAllColumnsGoesWithTheirScales) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4}, DType::kU8);
  b.Output(b.Op("com.microsoft:MatMulIntegerToFloat",
                {x, b.RandomInts(DType::kI8, {4, 3}, -127, 127), b.Scalar(0.02F),
                 b.Random({3}, 0.002F, 0.01F), b.Scalar<uint8_t>(128), b.Scalar<int8_t>(0)}));
  const Graph graph = b.Build();
  const Graph after = Optimised(graph);
  EXPECT_THAT(after, HasExactly(1, "octet:MatMul"));
  EXPECT_TRUE(SameAnswers(graph, after));
}

TEST(ExpandFunctions, PackedHeadsAreTheSameHeads) {
  const auto attend = [](bool packed) {
    GraphBuilder b;
    const ValueId all = b.Input("x", {2, 5, 2, 3, 4});
    std::vector<ValueId> inputs = {all};
    if (!packed) {
      inputs = b.Ops("Split", {all, b.IntList({1, 1, 1})}, 3, {{"axis", int64_t{3}}});
      for (ValueId& one : inputs) one = b.Op("Reshape", {one, b.IntList({2, 5, 8})});
    }
    b.Output(b.Op("com.microsoft:MultiHeadAttention", inputs, {{"num_heads", int64_t{2}}}));
    return b.Build();
  };
  EXPECT_TRUE(SameAnswers(attend(false), attend(true)));
  EXPECT_TRUE(SameAnswers(attend(true), AfterPass("expand_functions", attend(true))));
}

TEST(ExpandFunctions, APoolOfChannelsLastHasItsChannelsLast) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 5, 6, 3}, DType::kU8);
  const GraphBuilder::Attrs window = {{"kernel_shape", Ints{3, 3}},
                                      {"strides", Ints{2, 2}},
                                      {"pads", Ints{1, 1, 1, 1}},
                                      {"ceil_mode", int64_t{1}}};
  const ValueId first = b.Op("Transpose", {x}, {{"perm", Ints{0, 3, 1, 2}}});
  b.Output(b.Op("Transpose", {b.Op("MaxPool", {first}, window)}, {{"perm", Ints{0, 2, 3, 1}}}));
  const Graph expected = b.Build();
  GraphBuilder c;
  c.Output(c.Op("com.microsoft:NhwcMaxPool", {c.Input("x", {1, 5, 6, 3}, DType::kU8)}, window));
  const Graph graph = c.Build();
  EXPECT_TRUE(SameAnswers(expected, graph));
  const Graph after = AfterPass("expand_functions", graph);
  EXPECT_THAT(after, HasOps({"Transpose", "MaxPool", "Transpose"}));
  EXPECT_TRUE(SameAnswers(expected, after));
}

TEST(ExpandFunctions, BodiesWaitForExtents) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, kUnknownDim, 8});
  b.Output(b.Op("com.microsoft:Attention", {x, b.Random({8, 24}), b.Random({24})},
                {{"num_heads", int64_t{2}}, {"unidirectional", int64_t{1}}}));
  const Graph graph = b.Build();
  EXPECT_THAT(AfterPass("expand_functions", graph), HasOps({"com.microsoft:Attention"}));
  EXPECT_THAT(Expanded(WithUnknownExtents(graph, 3)), HasExactly(3, "MatMul"));
}

TEST(ExpandFunctions, MeansOfIntegersAreRequantized) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4, 3}, DType::kU8);
  b.Output(
      b.Op("com.microsoft:QLinearReduceMean",
           {x, b.Scalar(0.02F), b.Scalar<uint8_t>(128), b.Scalar(0.02F), b.Scalar<uint8_t>(128)},
           {{"axes", Ints{2}}, {"keepdims", int64_t{0}}}));
  EXPECT_THAT(Expanded(b.Build()), HasOps({"DequantizeLinear", "ReduceMean", "QuantizeLinear"}));
}

TEST(ExpandFunctions, NamesWhatItDoesNotKnow) {
  const auto error = [](std::string_view op, std::vector<Shape> shapes,
                        GraphBuilder::Attrs attributes) {
    Graph graph;
    Node node{.name = "tested", .op = std::string(op), .domain = std::string(kMicrosoftDomain)};
    for (const Shape& shape : shapes) {
      node.inputs.push_back(
          graph.AddValue({.name = graph.UniqueName("x"), .dtype = DType::kF32, .shape = shape}));
      graph.inputs.push_back(node.inputs.back());
    }
    node.outputs = {graph.AddValue({.name = "y"})};
    graph.outputs = node.outputs;
    for (const auto& [name, value] : attributes) node.attributes.Set(name, value);
    graph.AddNode(std::move(node));
    return RunPasses(graph, {}).status();
  };
  const absl::Status rotary = error("Attention", {{2, 5, 8}, {8, 24}},
                                    {{"num_heads", int64_t{2}}, {"do_rotary", int64_t{1}}});
  EXPECT_EQ(rotary.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(rotary.message(),
            "com.microsoft:Attention 'tested' (opset 1): unsupported attribute 'do_rotary' = 1");
  const absl::Status heads = error("Attention", {{2, 5, 8}, {8, 24}}, {{"num_heads", int64_t{3}}});
  EXPECT_EQ(heads.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(error("FusedConv", {{1, 3, 4, 4}, {2, 3, 1, 1}}, {{"activation", std::string("Sine")}})
                .code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(error("FusedConv", {{1, 3, 4, 4}}, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(error("MatMulNBits", {{1, 32}, {2}, {2}},
                  {{"K", int64_t{32}}, {"N", int64_t{2}}, {"bits", int64_t{3}}})
                .code(),
            absl::StatusCode::kUnimplemented);
}

// What passes tell ONNX's kernels in attributes is none of a model's.
TEST(ExpandFunctions, NamesakesOfOnnxsOperatorsHaveItsAttributesAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 2, 2, 2});
  b.Output(b.Op("com.microsoft:GridSample", {x, b.Input("grid", {1, 1, 1, 2})},
                {{"channels_last", int64_t{1}},
                 {"align_corners", int64_t{1}},
                 {"mode", std::string("nearest")},
                 {"padding_mode", std::string("border")}}));
  b.Output(
      b.Op("com.microsoft:Trilu", {x}, {{"upper", int64_t{0}}, {"dynamic_quant", int64_t{1}}}));
  b.Output(b.Op("com.microsoft:GatherND", {x, b.Constant<int64_t>({1, 1}, {0})},
                {{"batch_dims", int64_t{1}}, {"dynamic_quant", int64_t{1}}}));
  const Graph after = AfterPass("expand_functions", b.Build());
  const auto names = [&](std::string_view op) {
    std::vector<std::string> found;
    for (const auto& [name, value] : TheOnly(after, op).attributes) found.push_back(name);
    return found;
  };
  EXPECT_THAT(names("GridSample"), ::testing::ElementsAre("align_corners", "mode", "padding_mode"));
  EXPECT_THAT(names("Trilu"), ::testing::ElementsAre("upper"));
  EXPECT_THAT(names("GatherND"), ::testing::ElementsAre("batch_dims"));
  for (const NodeId id : after.order()) EXPECT_EQ(after.node(id).domain, kOnnxDomain);
}

}  // namespace functions_test
}  // namespace octet
