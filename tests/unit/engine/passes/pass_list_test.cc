// The list of passes and the loop that runs it; what bf16 asks for.
#include <algorithm>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "engine/passes/match.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace pass_list_test {

Graph SmallNetwork() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 8, 8});
  const ValueId c = b.Op("Relu", {b.Op("Conv", {x, b.Random({4, 3, 3, 3}), b.Random({4})})});
  const ValueId d =
      b.Op("Conv", {b.Op("MaxPool", {c}, {{"kernel_shape", Ints{2, 2}}}), b.Random({4, 4, 1, 1})});
  b.Output(b.Op("Gemm", {b.Op("Flatten", {b.Op("GlobalAveragePool", {d})}), b.Random({4, 5})}));
  return b.Build();
}

TEST(PassList, NamesAreCheckedAgainstIt) {
  EXPECT_TRUE(CheckPassNames(std::vector<std::string>{"fuse_bias", "push_transposes"}).ok());
  const absl::Status status =
      CheckPassNames(std::vector<std::string>{"fuse_bias", "fuse_everything"});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("fuse_everything"));
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("channels_last"))
      << "it lists what there is";
}

TEST(PassList, TracesEveryPassInOrder) {
  Graph graph = SmallNetwork();
  const auto trace = RunPasses(graph, {});
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->size(), AllPasses().size());
  int rewrites = 0;
  for (size_t i = 0; i < trace->size(); ++i) {
    EXPECT_EQ((*trace)[i].name, AllPasses()[i].name);
    rewrites += (*trace)[i].rewrites;
  }
  EXPECT_GT(rewrites, 0);
}

TEST(PassList, EveryPassCanBeSwitchedOffAlone) {
  const Graph graph = SmallNetwork();
  const Graph bound = WithUnknownExtents(graph, 2);
  for (const Pass& pass : AllPasses()) {
    SCOPED_TRACE(pass.name);
    PassContext context;
    context.disabled.emplace(pass.name);
    Graph off = graph;
    const auto trace = RunPasses(off, context);
    ASSERT_TRUE(trace.ok()) << trace.status();
    for (const PassTrace& one : *trace) {
      if (one.name == pass.name) {
        EXPECT_EQ(one.rewrites, 0);
      }
    }
    EXPECT_TRUE(SameAnswers(bound, Optimised(WithUnknownExtents(off, 2), context)));
  }
}

TEST(PassList, SaysWhichOperatorItDoesNotKnow) {
  GraphBuilder b;
  Graph graph;
  Value value;
  value.name = "x";
  value.dtype = DType::kF32;
  value.shape = Shape{1};
  graph.inputs.push_back(graph.AddValue(value));
  Node node;
  node.name = "odd";
  node.op = "Sinusoid";
  node.version = 13;
  node.inputs = graph.inputs;
  value.name = "y";
  node.outputs = {graph.AddValue(value)};
  graph.outputs = node.outputs;
  graph.AddNode(node);
  const auto trace = RunPasses(graph, {});
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kUnimplemented) << trace.status();
  EXPECT_THAT(std::string(trace.status().message()), ::testing::HasSubstr("Sinusoid"));
}

TEST(PassList, BlamesTheModelForAContradictionThatFoldingShows) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId target =
      b.Op("Mul", {b.IntList({2, 2}), b.IntList({1, 2})});  // 2 x 4 of six elements.
  b.Output(b.Op("Reshape", {x, target}));
  Graph graph = b.Build();
  const auto trace = RunPasses(graph, {});
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << trace.status();
  EXPECT_THAT(std::string(trace.status().message()), ::testing::HasSubstr("Reshape"));
}

PassContext Bf16Context() {
  PassContext context;
  context.precision = Precision::kBf16;
  context.target.bf16 = true;
  return context;
}

TEST(LowerBf16, StoresWhatLiesBetweenConvolutionsInBf16) {
  const Graph graph = SmallNetwork();
  const Graph after = Optimised(WithUnknownExtents(graph, 2), Bf16Context());
  EXPECT_TRUE(SameAnswers(WithUnknownExtents(graph, 2), after, {.rtol = 0.05F, .atol = 0.05F}));
  EXPECT_THAT(after, HasExactly(1, "octet:Convert")) << "at the input; the answer is F32 already";
  for (const NodeId id : after.order()) {
    const Node& node = after.node(id);
    if (!node.is("Conv") && !node.is("MatMul", kOctetDomain)) continue;
    EXPECT_EQ(after.value(node.input(0)).dtype, DType::kBF16) << Dump(after);
    EXPECT_EQ(after.value(node.input(1)).dtype, DType::kBF16) << Dump(after);
    if (node.input(2) != kNone) {
      EXPECT_EQ(after.value(node.input(2)).dtype, DType::kF32) << "biases stay";
    }
  }
  EXPECT_EQ(after.value(after.outputs[0]).dtype, DType::kF32);
  EXPECT_EQ(Dump(Optimised(after, Bf16Context())), Dump(after)) << "a second run changes something";
}

TEST(LowerBf16, LeavesWhatOthersReadInF32) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4});
  const ValueId y = b.Op("octet:MatMul", {x, b.Random({4, 4})});
  b.Output(b.Op("octet:MatMul", {b.Op("Relu", {y}), b.Random({4, 4})}));
  b.Output(b.Op("Exp", {y}));
  b.Output(b.Op("Reshape", {y, b.IntList({4, 2})}));
  const Graph graph = b.Build();
  const Graph after = AfterPass("lower_bf16", graph, Bf16Context());
  EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 0.05F, .atol = 0.05F}));
  EXPECT_EQ(after.value(TheOnly(after, "Exp").input(0)).dtype, DType::kF32);
  EXPECT_EQ(after.value(TheOnly(after, "Relu").input(0)).dtype, DType::kBF16);
  for (const ValueId output : after.outputs) EXPECT_EQ(after.value(output).dtype, DType::kF32);
}

// x -> Q, DQ -> Conv of integers -> Conv, marked -> Relu -> Gemm, marked -> Log -> MatMul
Graph MixedNetwork(bool bytes = false) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 3, 4, 4}), 0.05F, 128);
  const ValueId c = b.Op("Conv", {x, b.QuantizedWeights({4, 3, 3, 3}, 0)});
  const ValueId w = bytes ? b.QuantizedWeights({4, 4, 1, 1}, 0) : b.Random({4, 4, 1, 1}, 0.1F, 1);
  const ValueId d = b.Op("Relu", {b.Op("Conv", {c, w})});
  const ValueId g =
      b.Op("Gemm", {b.Op("Flatten", {d}), b.Random({16, 8}, 0.1F, 1), b.Random({8}, 1, 2)});
  b.Output(b.Op("MatMul", {b.Op("Log", {b.Op("Add", {b.Op("Abs", {g}), b.Scalar(1.0F)})}),
                           b.Random({8, 8})}));
  Graph graph = b.Build();
  for (const NodeId id : graph.order()) {
    Node& node = graph.mutable_node(id);
    node.in_bf16 = (node.is("Conv") && node.input(1) == w) || node.is("Gemm");
  }
  return graph;
}

TEST(LowerBf16, TakesTheMarkedNodesOfAMixedInt8Model) {
  const Graph graph = MixedNetwork();
  PassContext context = Bf16Context();
  context.precision = Precision::kInt8;
  const Graph after = Optimised(graph, context);
  EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 0.05F, .atol = 0.1F}));
  std::vector<DType> types;
  for (const NodeId id : after.order()) {
    const Node& node = after.node(id);
    if (node.is("Conv") || node.is("MatMul", kOctetDomain))
      types.push_back(after.value(node.input(0)).dtype);
  }
  EXPECT_THAT(types, ::testing::ElementsAre(DType::kU8, DType::kBF16, DType::kBF16, DType::kF32))
      << Dump(after);
  EXPECT_EQ(after.value(TheOnly(after, "Log").input(0)).dtype, DType::kF32);
  EXPECT_EQ(Dump(Optimised(after, context)), Dump(after)) << "a second run changes something";
  context.precision = Precision::kFp32;
  EXPECT_THAT(Dump(Optimised(graph, context)), ::testing::Not(::testing::HasSubstr(":bf16")));
  context.precision = Precision::kInt8;
  context.target.bf16 = false;
  EXPECT_THAT(Dump(Optimised(graph, context)), ::testing::Not(::testing::HasSubstr(":bf16")));
}

// One run of the passes is all that a segment gets.
TEST(LowerBf16, TakesMarkedWeightsOutOfBytes) {
  PassContext context = Bf16Context();
  context.precision = Precision::kInt8;
  const Graph after = Optimised(MixedNetwork(true), context);
  int narrow = 0;
  for (const NodeId id : after.order()) {
    const Node& node = after.node(id);
    if (!node.is("Conv") || after.value(node.input(0)).dtype != DType::kBF16) continue;
    ++narrow;
    EXPECT_TRUE(after.value(node.input(1)).is_constant()) << Dump(after);
    EXPECT_EQ(after.value(node.input(1)).dtype, DType::kBF16);
  }
  EXPECT_EQ(narrow, 1) << Dump(after);
}

TEST(LowerBf16, BiasesThatAreComputedStayF32) {
  for (const bool output : {false, true}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {1, 4, 6, 6});
    const ValueId small = b.Input("small", {1, 4});
    const ValueId bias =
        b.Op("Reshape", {b.Op("octet:MatMul", {small, b.Random({4, 4})}), b.IntList({4})});
    const ValueId y = b.Op("Conv", {x, b.Random({4, 4, 3, 3}), bias});
    const ValueId z = b.Op("InstanceNormalization", {b.Op("Relu", {y}), bias, bias});
    b.Output(b.Op("Conv", {z, b.Random({4, 4, 1, 1})}));
    if (output) b.Output(bias);
    const Graph graph = b.Build();
    const Graph after = AfterPass("lower_bf16", graph, Bf16Context());
    EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 0.1F, .atol = 0.1F}));
    const Node& norm = TheOnly(after, "InstanceNormalization");
    EXPECT_EQ(after.value(norm.input(0)).dtype, DType::kBF16) << Dump(after);
    EXPECT_EQ(after.value(norm.input(1)).dtype, DType::kF32) << Dump(after);
    for (const NodeId id : after.order()) {
      const Node& node = after.node(id);
      if (!node.is("Conv")) continue;
      EXPECT_EQ(after.value(node.input(0)).dtype, DType::kBF16);
      if (node.input(2) != kNone) {
        EXPECT_EQ(after.value(node.input(2)).dtype, DType::kF32) << Dump(after);
      }
    }
  }
}

// Of one input channel, and of output channels that fill no vector.
TEST(LowerBf16, LeavesConvolutionsThatItsKernelsAreSlowerAtInF32) {
  const auto type_of = [](const Shape& weights, int64_t groups) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {1, weights[1] * groups, 8, 8});
    b.Output(b.Op("Conv", {x, b.Random(weights)}, {{"group", groups}}));
    const Graph after = AfterPass("lower_bf16", b.Build(), Bf16Context());
    return after.value(TheOnly(after, "Conv").input(1)).dtype;
  };
  EXPECT_EQ(type_of({8, 1, 5, 5}, 1), DType::kF32);
  EXPECT_EQ(type_of({64, 1, 5, 5}, 1), DType::kBF16);
  EXPECT_EQ(type_of({8, 2, 5, 5}, 1), DType::kBF16);
  EXPECT_EQ(type_of({8, 1, 5, 5}, 8), DType::kBF16) << "depthwise";
}

// The mask of opset 7 has the type of what is dropped: ones, whatever that is stored as.
// cos(frequencies * positions), as rotary embeddings have it, and with a layer's weights in their place.
TEST(LowerBf16, LeavesProductsThatMakeAnglesInF32) {
  for (const int64_t frequencies : {32, 2048}) {
    SCOPED_TRACE(frequencies);
    GraphBuilder b;
    const ValueId positions = b.Input("positions", {2, 1, 3});
    const ValueId angles = b.Op("octet:MatMul", {b.Random({frequencies, 1}), positions});
    const ValueId turned = b.Op("Transpose", {angles}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
    b.Output(b.Op("Cos", {b.Op("Concat", {turned, turned}, {{"axis", int64_t{-1}}})}));
    b.Output(b.Op("Relu", {b.Op("octet:MatMul", {positions, b.Random({3, 4})})}));
    const Graph after = AfterPass("lower_bf16", b.Build(), Bf16Context());
    const Node& product = *ProducerOf(after, TheOnly(after, "Transpose").input(0));
    EXPECT_EQ(after.value(product.input(0)).dtype, frequencies == 32 ? DType::kF32 : DType::kBF16)
        << Dump(after);
    EXPECT_EQ(after.value(ProducerOf(after, TheOnly(after, "Relu").input(0))->input(1)).dtype,
              DType::kBF16)
        << Dump(after);
  }
}

TEST(LowerBf16, ADropoutsMaskHoldsOnes) {
  GraphBuilder b(9);
  const ValueId x = b.Input("x", {1, 4, 6, 6});
  const auto dropped = b.Ops("Dropout", {b.Op("Conv", {x, b.Random({4, 4, 3, 3})})}, 2);
  b.Output(b.Op("Conv", {b.Op("Mul", {dropped[0], dropped[1]}), b.Random({4, 4, 1, 1})}));
  const Graph graph = b.Build();
  const Graph after = AfterPass("lower_bf16", graph, Bf16Context());
  EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 0.1F, .atol = 0.1F}));
}

// Each level reads the one before 64 times: one walk looks at a value once.
TEST(LowerBf16, LooksForMasksInOneWalk) {
  GraphBuilder b;
  const ValueId y = b.Op("octet:MatMul", {b.Input("x", {2, 4}), b.Random({4, 4})});
  ValueId level = b.Op("Exp", {y});
  for (int i = 0; i < 8; ++i) level = b.Op("Max", std::vector<ValueId>(64, level));
  b.Output(b.Op("octet:MatMul", {b.Op("Add", {y, level}), b.Random({4, 4})}));
  EXPECT_THAT(AfterPass("lower_bf16", b.Build(), Bf16Context()), HasExactly(8, "Max"));
}

// Attention with a mask of the least F32, which BF16 has no finite number for: added to the scores, or put in their place.
Graph MaskedAttention(bool added, bool constant) {
  GraphBuilder b;
  const float least = std::numeric_limits<float>::lowest();
  const ValueId q = b.Input("q", {1, 2, 4, 8});
  const ValueId k = b.Input("k", {1, 2, 8, 4});
  const ValueId scores = b.Op("MatMul", {q, k});
  ValueId masked = kNone;
  if (constant) {
    std::vector<float> mask(16, 0.0F);
    std::fill_n(mask.begin(), 4, least);
    masked = b.Op("Add", {scores, b.Constant<float>({1, 1, 4, 4}, mask)});
  } else if (added) {
    masked = b.Op("Add", {scores, b.Input("mask", {1, 1, 4, 4})});
  } else {
    masked = b.Op("Where", {b.Input("keep", {1, 1, 4, 4}, DType::kBool), scores, b.Scalar(least)});
  }
  const ValueId weights = b.Op("Softmax", {masked}, {{"axis", int64_t{-1}}});
  b.Output(b.Op("MatMul", {weights, b.Random({1, 2, 4, 8})}));
  return b.Build();
}

TEST(LowerBf16, KeepsAMaskFinite) {
  for (const bool added : {true, false}) {
    for (const bool constant : {false, true}) {
      SCOPED_TRACE(added);
      const Graph graph = MaskedAttention(added, constant);
      std::vector<Tensor> inputs = RandomInputs(graph);
      // The first row is masked as a whole.
      if (!constant && added) {
        std::vector<float> mask(16, 0.0F);
        std::fill_n(mask.begin(), 4, std::numeric_limits<float>::lowest());
        inputs[2] = Tensor::From<float>({1, 1, 4, 4}, mask);
      } else if (!constant) {
        inputs[2] = Tensor(DType::kBool, {1, 1, 4, 4});
        for (int i = 0; i < 16; ++i) inputs[2].mutable_span<bool>()[i] = i >= 4;
      }
      const Graph after = Optimised(graph, Bf16Context());
      EXPECT_THAT(after, HasExactly(2, "octet:MatMul"));
      EXPECT_TRUE(SameAnswers(graph, after, inputs, {.rtol = 0.05F, .atol = 0.05F})) << Dump(after);
      EXPECT_EQ(Dump(Optimised(after, Bf16Context())), Dump(after));
    }
  }
}

TEST(LowerBf16, DoesNothingWhereTheMachineHasNone) {
  PassContext context = Bf16Context();
  context.target.bf16 = false;
  EXPECT_THAT(Optimised(SmallNetwork(), context), HasNo("octet:Convert"));
  context.target.bf16 = true;
  context.precision = Precision::kFp32;
  EXPECT_THAT(Optimised(SmallNetwork(), context), HasNo("octet:Convert"));
}

}  // namespace pass_list_test
}  // namespace octet
