// Layout: convolutions on [N, spatial..., C], and Transposes that are pushed until they cancel.
#include <algorithm>
#include <memory>
#include <numeric>

#include "gtest/gtest.h"

#include "engine/passes/permutation.h"
#include "engine/passes/reshape_groups.h"
#include "engine/tensor/format.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace layout_test {

const Ints kToLast = {0, 2, 3, 1};
const Ints kToFirst = {0, 3, 1, 2};

ValueId ToLast(GraphBuilder& b, ValueId x) { return b.Op("Transpose", {x}, {{"perm", kToLast}}); }
ValueId ToFirst(GraphBuilder& b, ValueId x) { return b.Op("Transpose", {x}, {{"perm", kToFirst}}); }

Graph Pushed(const Graph& graph) {
  Graph after = AfterPasses({"channels_last", "push_transposes", "remove_no_ops"}, graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  const Graph twice = AfterPasses({"channels_last", "push_transposes", "remove_no_ops"}, after);
  EXPECT_EQ(OpNames(twice), OpNames(after)) << "a second run changes something: " << Dump(twice);
  return after;
}

TEST(Permutations, Compose) {
  EXPECT_EQ(Compose(kToFirst, kToLast), (Permutation{0, 1, 2, 3}));
  EXPECT_EQ(Inverse({2, 0, 1}), (Permutation{1, 2, 0}));
  EXPECT_EQ(ToChannelsLast(4), kToLast);
  EXPECT_EQ(ToChannelsFirst(3), (Permutation{0, 2, 1}));
}

TEST(Permutations, MoveElements) {
  const Tensor x = Tensor::From<int32_t>({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor y = Permute(x, {1, 0});
  EXPECT_THAT(y.span<int32_t>(), ::testing::ElementsAre(1, 4, 2, 5, 3, 6));
  EXPECT_TRUE(MovesOnlyOnes({kUnknownDim, 1, 28, 28}, kToLast));
  EXPECT_FALSE(MovesOnlyOnes({1, 3, 28, 28}, kToLast));
  EXPECT_TRUE(MovesOnlyOnes({8, 1, 1, 64}, kToFirst));
}

// Larger than what is copied at most. The last piece of a few rows is shorter than the others.
TEST(Permutations, MoveTheElementsOfLargeTensorsInPlace) {
  struct Case {
    Shape shape;
    Permutation perm;
    bool in_place;
  };
  for (const Case& c : {Case{{25, 7, 5, 4096}, {1, 2, 0, 3}, true},  // Long blocks.
                        {{1237, 32, 7, 9}, {0, 2, 3, 1}, true},      // Elements within rows.
                        {{3, 1000, 1100}, {0, 2, 1}, true},          // Rows of more than a piece.
                        {{1500, 2000}, {1, 0}, false}}) {
    SCOPED_TRACE(c.shape.ToString());
    Tensor tensor(DType::kI32, c.shape);
    std::ranges::iota(tensor.mutable_span<int32_t>(), 0);
    const Tensor expected = Permute(tensor, c.perm);
    const void* const place = tensor.data();
    const Tensor moved = PermuteInPlace(tensor, c.perm);
    EXPECT_EQ(moved.shape(), expected.shape());
    EXPECT_TRUE(std::ranges::equal(moved.span<int32_t>(), expected.span<int32_t>()));
    EXPECT_EQ(moved.data() == place, c.in_place);
    const auto owner = std::make_shared<Tensor>(expected);
    const Tensor seen(DType::kI32, expected.shape(), owner, expected.data());
    EXPECT_NE(PermuteInPlace(seen, Inverse(c.perm)).data(), expected.data()) << "another's memory";
  }
}

TEST(ReshapeGroups, AreTheFinestOnes) {
  using Groups = std::vector<AxisGroup>;
  EXPECT_EQ(GroupAxes({kUnknownDim, 64, 7, 7}, {kUnknownDim, 2, 32, 49}),
            (Groups{{0, 1, 0, 1}, {1, 2, 1, 3}, {2, 4, 3, 4}}));
  EXPECT_EQ(GroupAxes({6, 4}, {4, 6}), (Groups{{0, 2, 0, 2}}));
  EXPECT_EQ(GroupAxes({kUnknownDim, kUnknownDim}, {kUnknownDim, kUnknownDim}), std::nullopt);
  EXPECT_EQ(GroupAxes({kUnknownDim, 4}, {2, -1}), std::nullopt);
}

TEST(ChannelsLastPass, WrapsAConvolutionOfAnyRank) {
  for (const int spatial : {1, 2, 3}) {
    SCOPED_TRACE(spatial);
    GraphBuilder b;
    Shape x{2, 3};
    Shape w{4, 3};
    for (int i = 0; i < spatial; ++i) {
      x.push_back(5 + i);
      w.push_back(2 + i % 2);
    }
    b.Output(b.Op("Conv", {b.Input("x", x), b.Random(w), b.Random({4})}));
    const Graph after = Pushed(b.Build());
    EXPECT_THAT(after, HasOps({"Transpose", "Conv", "Transpose"}));
  }
}

struct Strided {
  int64_t steps, channels, taps, stride, pad_begin, pad_end;
};

Graph StridedConv(const Strided& c, bool typed) {
  GraphBuilder b;
  const Shape shape{2, c.steps, c.channels};
  const ValueId x = typed ? b.TypedInput("x", shape, DType::kU8, QuantParams::PerTensor(0.02F, 77))
                          : b.Input("x", shape);
  const ValueId w = typed ? b.Convert(b.Random({5, c.channels, c.taps}), DType::kI8,
                                      QuantParams::PerTensor(1.0F / 127, 0))
                          : b.Random({5, c.channels, c.taps});
  b.Output(b.Op("Conv", {x, w, b.Random({5})},
                {{"strides", Ints{c.stride}},
                 {"pads", Ints{c.pad_begin, c.pad_end}},
                 {"dilations", Ints{1}},
                 {"kernel_shape", Ints{c.taps}},
                 {"group", int64_t{1}},
                 {"channels_last", int64_t{1}}}));
  return b.Build();
}

void ExpectFolded(const Strided& c, bool typed) {
  SCOPED_TRACE(Format("{} steps, {} channels, {} taps, stride {}, pads {} {}, typed {}", c.steps,
                      c.channels, c.taps, c.stride, c.pad_begin, c.pad_end, typed));
  const Graph graph = AfterPass("fold_constants", StridedConv(c, typed));
  const Graph after = AfterPass("fold_stride", graph);
  ASSERT_THAT(after, HasOps({"Reshape", "Conv"}));
  const Node& conv = TheOnly(after, "Conv");
  EXPECT_EQ((*after.value(conv.input(0)).shape)[2], c.stride * c.channels);
  EXPECT_EQ(*conv.attributes.Ints("strides", {}), Ints{1});
  EXPECT_TRUE(SameAnswers(graph, after));
}

TEST(FoldStridePass, TakesTheStepsOfAStrideAsChannels) {
  for (const Strided& c :
       {Strided{40, 1, 8, 4, 0, 0}, Strided{40, 1, 10, 5, 0, 0}, Strided{40, 2, 7, 4, 0, 0},
        Strided{40, 1, 7, 2, 3, 3}, Strided{40, 1, 16, 8, 8, 8}, Strided{40, 1, 8, 5, 5, 0}}) {
    ExpectFolded(c, false);
    ExpectFolded(c, true);
  }
}

TEST(FoldStridePass, AddsMoreZerosToWeightsOf8BitsThanToOthers) {
  for (const Strided& c : {Strided{40, 3, 3, 2, 1, 0}, Strided{40, 1, 3, 4, 0, 0},
                           Strided{40, 1, 25, 10, 12, 12}, Strided{40, 1, 2, 4, 0, 0}}) {
    ExpectFolded(c, true);
    EXPECT_THAT(AfterPass("fold_stride", StridedConv(c, false)), HasOps({"Conv"}));
  }
  // Nor to these as many as a window that is much shorter than its stride, or ends right behind one, would take.
  for (const Strided& c : {Strided{40, 1, 1, 4, 0, 0}, Strided{40, 1, 3, 4, 1, 1}}) {
    const Graph graph = AfterPass("fold_constants", StridedConv(c, true));
    EXPECT_THAT(AfterPass("fold_stride", graph), HasOps({"Conv"}));
  }
}

TEST(FoldStridePass, LeavesWhatItCannotCutIntoStrides) {
  for (const Strided& c :
       {Strided{41, 1, 8, 4, 0, 0}, Strided{40, 4, 8, 4, 0, 0}, Strided{40, 1, 8, 1, 0, 0}})
    EXPECT_THAT(AfterPass("fold_stride", StridedConv(c, false)), HasOps({"Conv"}));
}

TEST(ChannelsLastPass, TransposesTheOperandsOfPostOps) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4, 5, 5});
  const ValueId c = b.Op("Conv", {x, b.Random({4, 4, 1, 1})});
  const ValueId gated = b.Op("Mul", {c, b.Op("Sigmoid", {b.Op("GlobalAveragePool", {x})})});
  b.Output(b.Op("Add", {b.Op("Mul", {gated, b.Random({4, 1, 1})}), x}));
  const Graph fused = AfterPass("fuse_residual", b.Build());
  ASSERT_EQ(TheOnly(fused, "Conv").post_ops.size(), 3U);
  Pushed(fused);
}

TEST(PushTransposes, TakesAlongWhatResizesAndNormalisesPlanes) {
  const std::vector<GraphBuilder::Attrs> kHow = {
      {{"mode", std::string("nearest")}},
      {{"mode", std::string("linear")}},
      {{"mode", std::string("linear")}, {"axes", Ints{2, 3}}},
  };
  for (const GraphBuilder::Attrs& how : kHow) {
    for (const bool sized : {false, true}) {
      GraphBuilder b(19);
      const ValueId x = b.Input("x", {2, 3, 6, 5});
      ValueId y = b.Op("Conv", {x, b.Random({4, 3, 3, 3})});
      const bool all = !how.contains("axes");
      if (sized) {
        y = b.Op("Resize", {y, kNone, kNone, b.IntList(all ? Ints{2, 4, 8, 6} : Ints{8, 6})}, how);
      } else {
        const std::vector<float> scales =
            all ? std::vector<float>{1, 1, 2, 3} : std::vector<float>{2, 3};
        y = b.Op("Resize", {y, kNone, b.Constant<float>({std::ssize(scales)}, scales)}, how);
      }
      y = b.Op("InstanceNormalization", {y, b.Random({4}), b.Random({4})});
      y = b.Op("GroupNormalization", {y, b.Random({2}), b.Random({2})},
               {{"num_groups", int64_t{2}}});
      b.Output(b.Op("Conv", {y, b.Random({2, 4, 1, 1})}));
      EXPECT_THAT(Pushed(b.Build()), HasOps({"Transpose", "Conv", "Resize", "InstanceNormalization",
                                             "GroupNormalization", "Conv", "Transpose"}));
    }
  }
}

TEST(PushTransposes, TakesAlongWhatPoolsAndSamplesPlanes) {
  GraphBuilder b(22);
  const ValueId x = b.Input("x", {2, 3, 12, 12});
  const GraphBuilder::Attrs window = {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 1}}};
  const ValueId y = b.Op("Conv", {x, b.Random({4, 3, 3, 3})});
  const std::vector<ValueId> largest = b.Ops("MaxPool", {y}, 2, window);
  const ValueId powers = b.Op("LpPool", {largest[0]}, window);
  const ValueId sampled = b.Op("GridSample", {powers, b.Random({2, 5, 4, 2})});
  b.Output(b.Op("Conv", {sampled, b.Random({2, 4, 1, 1})}));
  b.Output(largest[1]);
  EXPECT_THAT(Pushed(b.Build()), HasOps({"Transpose", "Conv", "MaxPool", "Transpose", "LpPool",
                                         "GridSample", "Conv", "Transpose"}));
}

// No axes listed are all of them.
TEST(PushTransposes, MoveTheScalesOfAResizeWithoutAxes) {
  GraphBuilder b(18);
  const ValueId y = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({3, 3, 1, 1})});
  const ValueId scales = b.Constant<float>({4}, {1, 1, 2, 2});
  b.Output(b.Op("Relu", {b.Op("Resize", {y, kNone, scales},
                              {{"axes", Ints{}}, {"mode", std::string("nearest")}})}));
  const Graph graph = b.Build();
  EXPECT_TRUE(SameAnswers(graph, Optimised(graph)));
}

TEST(PushTransposes, LeavesOneAtEachEndOfATrunk) {
  GraphBuilder b;
  ValueId x = b.Input("x", {2, 3, 12, 12});
  x = b.Op("Conv", {x, b.Random({4, 3, 3, 3}), b.Random({4})});
  x = b.Op("Clip", {x, b.Scalar(0.0F), b.Scalar(1.0F)});
  x = b.Op("MaxPool", {x}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}});
  const ValueId left = b.Op("Conv", {x, b.Random({4, 4, 1, 1})});
  const ValueId right = b.Op("Conv", {x, b.Random({2, 4, 3, 3})}, {{"pads", Ints{1, 1, 1, 1}}});
  x = b.Op("Concat", {left, right, x}, {{"axis", int64_t{1}}});
  x = b.Op("Mul", {b.Op("Sigmoid", {x}), b.Op("Add", {x, b.Random({10, 1, 1})})});
  x = b.Op("Pad", {x, b.IntList({0, 1, 1, 0, 0, 0, 0, 2})});
  x = b.Op("Slice",
           {x, b.IntList({1, 0}), b.IntList({9, 4}), b.IntList({1, 3}), b.IntList({2, 1})});
  x = b.Op("AveragePool", {x}, {{"kernel_shape", Ints{2, 2}}});
  b.Output(b.Op("Relu", {b.Op("Conv", {x, b.Random({3, 4, 1, 1})})}));
  const Graph after = Pushed(b.Build());
  EXPECT_THAT(after, HasExactly(2, "Transpose"));
  EXPECT_EQ(after.node(after.order().front()).op, "Transpose");
  EXPECT_EQ(after.node(after.order().back()).op, "Transpose");
}

TEST(PushTransposes, EndInAReshapeBehindAGlobalPool) {
  GraphBuilder b;
  ValueId x = b.Op("Conv", {b.Input("x", {kUnknownDim, 1, 12, 12}), b.Random({4, 1, 3, 3})});
  x = b.Op("GlobalAveragePool", {x});
  b.Output(b.Op("Softmax", {b.Op("Flatten", {x})}));
  const Graph after = AfterPasses({"channels_last", "push_transposes", "remove_no_ops"}, b.Build());
  EXPECT_THAT(after, HasOps({"Reshape", "Conv", "GlobalAveragePool", "Reshape", "Softmax"}));
}

TEST(PushTransposes, RemapTheAxesOfReductions) {
  GraphBuilder b;
  const ValueId x = ToFirst(b, b.Op("Relu", {b.Input("x", {2, 5, 6, 3})}));
  b.Output(b.Op("ReduceMean", {x}, {{"axes", Ints{2, -1}}, {"keepdims", int64_t{0}}}));
  b.Output(ToLast(b, b.Op("ReduceMax", {x}, {{"axes", Ints{1}}})));
  b.Output(b.Op("ReduceSum", {x, b.IntList({1})}, {{"keepdims", int64_t{0}}}));
  b.Output(b.Op("ArgMax", {x}, {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}}));
  b.Output(ToLast(b, b.Op("Softmax", {x}, {{"axis", int64_t{1}}})));
  EXPECT_THAT(Pushed(b.Build()), HasNo("Transpose"));
}

TEST(PushTransposes, RemapSplitGatherAndSqueeze) {
  GraphBuilder b;
  const ValueId x = ToFirst(b, b.Op("Relu", {b.Input("x", {2, 5, 1, 4})}));
  for (const ValueId part : b.Ops("Split", {x, b.IntList({1, 3})}, 2, {{"axis", int64_t{1}}}))
    b.Output(ToLast(b, part));
  b.Output(ToLast(b, b.Op("Gather", {x, b.IntList({2, 0})}, {{"axis", int64_t{1}}})));
  b.Output(b.Op("Transpose", {b.Op("Squeeze", {x, b.IntList({3})})}, {{"perm", Ints{0, 2, 1}}}));
  EXPECT_THAT(Pushed(b.Build()), HasNo("Transpose"));
}

TEST(PushTransposes, GatherOneSliceAway) {
  GraphBuilder b;
  const ValueId x = ToFirst(b, b.Op("Relu", {b.Input("x", {2, 5, 6, 4})}));
  b.Output(b.Op("Gather", {x, b.Scalar<int64_t>(1)}, {{"axis", int64_t{1}}}));
  EXPECT_THAT(Pushed(b.Build()), HasNo("Transpose"));
}

TEST(PushTransposes, MoveThroughASumWhenBothSidesHaveOne) {
  GraphBuilder b;
  const ValueId x = ToFirst(b, b.Op("Relu", {b.Input("x", {2, 5, 6, 4})}));
  const ValueId y = ToFirst(b, b.Op("Relu", {b.Input("y", {2, 5, 6, 4})}));
  b.Output(b.Op("Add", {x, y}));
  EXPECT_THAT(Pushed(b.Build()), HasExactly(1, "Transpose"));
}

TEST(PushTransposes, DoNotMultiplyAtASumWithAnUntransposedSide) {
  GraphBuilder b;
  const ValueId x = ToFirst(b, b.Op("Relu", {b.Input("x", {2, 5, 6, 4})}));
  b.Output(b.Op("Add", {x, b.Op("Exp", {b.Input("y", {2, 4, 5, 6})})}));
  EXPECT_THAT(Pushed(b.Build()), HasExactly(1, "Transpose"));
}

TEST(PushTransposes, TurnAChannelShuffleIntoOneSmallTranspose) {
  GraphBuilder b;
  ValueId x = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({6, 3, 1, 1})});
  x = b.Op("Reshape", {x, b.IntList({1, 2, 3, 4, 4})});
  x = b.Op("Transpose", {x}, {{"perm", Ints{0, 2, 1, 3, 4}}});
  x = b.Op("Reshape", {x, b.IntList({1, -1, 4, 4})});
  const auto halves = b.Ops("Split", {x, b.IntList({3, 3})}, 2, {{"axis", int64_t{1}}});
  const ValueId branch = b.Op("Conv", {halves[1], b.Random({3, 3, 1, 1})});
  x = b.Op("Concat", {halves[0], branch}, {{"axis", int64_t{1}}});
  b.Output(b.Op("GlobalAveragePool", {x}));
  const Graph after = Pushed(b.Build());
  EXPECT_THAT(after, HasOps({"Transpose", "Conv", "Reshape", "Transpose", "Reshape", "Split",
                             "Conv", "Concat", "GlobalAveragePool", "Reshape"}));
  EXPECT_EQ(*after.node(after.order()[3]).attributes.Ints("perm", {}), (Ints{0, 1, 2, 4, 3}));
}

TEST(PushTransposes, TurnPixelsIntoTokens) {
  GraphBuilder b;
  ValueId x =
      b.Op("Conv", {b.Input("x", {2, 3, 8, 8}), b.Random({5, 3, 4, 4})}, {{"strides", Ints{4, 4}}});
  x = b.Op("Reshape", {x, b.IntList({2, 5, -1})});
  b.Output(b.Op("Transpose", {x}, {{"perm", Ints{0, 2, 1}}}));
  EXPECT_THAT(Pushed(b.Build()), HasOps({"Transpose", "Conv", "Reshape"}));
}

TEST(PushTransposes, PermuteTheWeightsBehindAFlatten) {
  for (const bool transposed : {false, true}) {
    GraphBuilder b;
    const ValueId x = b.Op("Conv", {b.Input("x", {2, 1, 6, 6}), b.Random({4, 1, 3, 3})});
    const ValueId w = transposed ? b.Random({5, 64}) : b.Random({64, 5});
    b.Output(b.Op("octet:MatMul", {b.Op("Flatten", {x}), w},
                  {{"trans_b", int64_t{transposed ? 1 : 0}}}));
    EXPECT_THAT(Pushed(b.Build()), HasOps({"Reshape", "Conv", "Reshape", "octet:MatMul"}));
  }
}

TEST(PushTransposes, StayOnTheNarrowSideOfAConversion) {
  GraphBuilder b;
  const QuantParams quant = QuantParams::PerTensor(0.02F, 10);
  const ValueId x = b.TypedInput("x", {2, 4, 4, 3}, DType::kU8, quant);
  b.Output(b.Convert(ToFirst(b, x), DType::kF32));
  b.Output(ToFirst(b, b.Convert(x, DType::kF32)));
  const Graph after = Pushed(b.Build());
  for (const ValueId output : after.outputs) {
    EXPECT_EQ(after.node(after.producer(output)).op, "Convert") << Dump(after);
  }
}

TEST(PushTransposes, OfOneValueAreMerged) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 5});
  b.Output(b.Op("Conv", {x, b.Random({4, 3, 1, 1})}));
  b.Output(b.Op("Conv", {x, b.Random({5, 3, 1, 1})}));
  EXPECT_THAT(Pushed(b.Build()), HasExactly(3, "Transpose"));
}

}  // namespace layout_test
}  // namespace octet
