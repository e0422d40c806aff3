// What the passes that fold and fuse leave, and that the answers stay.
#include "gtest/gtest.h"

#include "engine/ops/op.h"
#include "engine/tensor/format.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace structure_test {

// Runs a pass on the graph, and holds its answers against the graph's own.
Graph Checked(std::string_view pass, const Graph& graph, const Tolerance& tolerance = {}) {
  Graph after = AfterPass(pass, graph);
  EXPECT_TRUE(SameAnswers(graph, after, tolerance)) << pass;
  EXPECT_EQ(OpNames(AfterPass(pass, after)), OpNames(after))
      << pass << " finds something in its own result";
  return after;
}

TEST(FoldConstants, EvaluatesWhatDependsOnConstantsAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId sum = b.Op("Add", {b.Random({3}), b.Random({3})});
  b.Output(b.Op("Mul", {x, sum}));
  EXPECT_THAT(Checked("fold_constants", b.Build()), HasOps({"Mul"}));
}

TEST(FoldConstants, KnowsTheExtentsOfAnInput) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4});
  const ValueId flat = b.Op("Gather", {b.Op("Shape", {x}), b.IntList({0})});
  const ValueId target = b.Op("Concat", {flat, b.IntList({-1})}, {{"axis", int64_t{0}}});
  b.Output(b.Op("Reshape", {x, target}));
  Graph graph = b.Build();
  EXPECT_THAT(Optimised(graph), HasOps({"Reshape"}));
}

// More layers than a group of passes has rounds, each cut by the extent of what the last one left.
TEST(FoldConstants, FollowsShapesThroughAWholeNetwork) {
  constexpr int kLayers = 80;
  GraphBuilder b;
  ValueId x = b.Input("x", {2, kLayers + 3});
  for (int i = 0; i < kLayers; ++i) {
    const ValueId extent = b.Op("Gather", {b.Op("Shape", {x}), b.IntList({1})});
    const ValueId end = b.Op("Sub", {extent, b.IntList({1})});
    x = b.Op("Slice", {x, b.IntList({0}), end, b.IntList({1})});
  }
  b.Output(x);
  const Graph after = AfterPass("fold_constants", b.Build());
  EXPECT_THAT(after, HasNo("Shape"));
  EXPECT_THAT(after, HasExactly(kLayers, "Slice"));
  EXPECT_EQ(after.value(after.outputs[0]).shape, (Shape{2, 3}));
}

// PyTorch's exporter writes the weights of its quantized modules so, another would write a table of embeddings.
TEST(FoldConstants, TakesConstantsOfAnySize) {
  GraphBuilder b;
  const ValueId table = b.Op("Constant", {}, {{"value", Tensor(DType::kF32, Shape{1 << 16, 8})}});
  b.Output(b.Op("Gather", {table, b.Input("rows", {3}, DType::kI64)}));
  EXPECT_THAT(AfterPass("fold_constants", b.Build()), HasOps({"Gather"}));
}

TEST(FoldConstants, LeavesQuantizedWeightsAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4});
  b.Output(b.Op("Add", {x, b.QuantizedWeights({4}, 0)}));
  EXPECT_THAT(AfterPass("fold_constants", b.Build()), HasOps({"DequantizeLinear", "Add"}));
}

TEST(FoldConstants, WidensStoredHalfPrecision) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4});
  const ValueId half = b.Constant<Half>({4}, {ToHalf(1), ToHalf(2), ToHalf(-3), ToHalf(0.5F)});
  b.Output(b.Op("Mul", {x, b.Op("Cast", {half}, {{"to", int64_t{1}}})}));
  EXPECT_THAT(Checked("fold_constants", b.Build()), HasOps({"Mul"}));
}

TEST(FoldConstants, DoesNotMakeLargeConstantsOutOfSmallOnes) {
  GraphBuilder b;
  const ValueId large = b.Op("Expand", {b.Random({1, 1024}), b.IntList({1024, 1024})});
  b.Output(b.Op("Add", {b.Input("x", {1024, 1024}), large}));
  EXPECT_THAT(AfterPass("fold_constants", b.Build()), HasOps({"Expand", "Add"}));
}

TEST(FoldConstants, MakesWeightsOutOfNothing) {
  GraphBuilder b;
  const ValueId weights = b.Op("Expand", {b.Random({1, 1024}), b.IntList({1024, 1024})});
  b.Output(b.Op("MatMul", {b.Input("x", {2, 1024}), weights}));
  EXPECT_THAT(Checked("fold_constants", b.Build()), HasOps({"MatMul"}));
}

TEST(FoldConstants, MakesNoMoreWeightsOutOfNothingThanAFileCouldHold) {
  GraphBuilder b;
  const ValueId weights = b.Op("Expand", {b.Random({1, 1 << 10}), b.IntList({1 << 19, 1 << 10})});
  b.Output(b.Op("MatMul", {b.Input("x", {1, 1 << 19}), weights}));
  EXPECT_THAT(AfterPass("fold_constants", b.Build()), HasOps({"Expand", "MatMul"}));
}

size_t BytesOfConstants(const Graph& graph) {
  size_t bytes = 0;
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    if (graph.value(id).is_constant()) bytes += graph.value(id).constant.bytes();
  }
  return bytes;
}

TEST(FoldConstants, MakesNoMoreOfManyNodesThanAGraphMayGrow) {
  GraphBuilder b;
  const int64_t count = 250'000;  // A little less than one MiB.
  ValueId y = b.Input("x", {count});
  const ValueId extents = b.IntList({count});
  for (int i = 0; i < 2000; ++i) y = b.Op("Max", {y, b.Op("ConstantOfShape", {extents})});
  b.Output(y);
  constexpr size_t kMost = (size_t{1} << 26) + (size_t{1} << 16);
  Graph after = AfterPass("fold_constants", b.Build());
  EXPECT_LE(BytesOfConstants(after), kMost);
  EXPECT_GT(BytesOfConstants(after), kMost / 2) << "it stops too early";
  for (int i = 0; i < 3; ++i) after = AfterPass("fold_constants", after);
  EXPECT_LE(BytesOfConstants(after), kMost) << "each run has a budget of its own";
}

TEST(FoldConstants, DoesNotDoubleAConstantAgainAndAgain) {
  GraphBuilder b;
  ValueId c = b.Random({1 << 18});
  for (int i = 0; i < 9; ++i) c = b.Op("Concat", {c, c}, {{"axis", int64_t{0}}});
  const ValueId x = b.Input("x", {1});
  b.Output(b.Op("Mul", {x, b.Op("ReduceMax", {b.Op("Mul", {c, x})}, {{"keepdims", int64_t{0}}})}));
  EXPECT_LE(BytesOfConstants(AfterPass("fold_constants", b.Build())), size_t{1} << 27);
}

TEST(FoldConstants, MakesWeightsBehindAChangeOfShape) {
  GraphBuilder b;
  const ValueId made = b.Op("Expand", {b.Random({1, 1024}), b.IntList({1024, 1024})});
  const ValueId weights = b.Op("Reshape", {made, b.IntList({2048, 512})});
  b.Output(b.Op("MatMul", {b.Input("x", {2, 2048}), weights}));
  EXPECT_THAT(Optimised(b.Build()), HasOps({"octet:MatMul"}));
}

TEST(FoldConstants, LooksForALayerBehindAFewMovementsAlone) {
  GraphBuilder b;
  const ValueId shape = b.Input("shape", {1}, DType::kI64);
  const ValueId first = b.Op("Reshape", {b.Random({2, 2}), b.IntList({4})});
  b.Output(b.Op("Reshape", {first, shape}));
  Graph graph = b.Build();
  // Not by the builder: it looks for a free name among all that there are.
  Node reshape = graph.node(graph.producer(graph.outputs[0]));
  for (int i = 0; i < 300'000; ++i) {
    reshape.name = Format("r{}", i);
    reshape.inputs[0] = reshape.outputs[0];
    reshape.outputs[0] = graph.AddValue({.name = reshape.name, .dtype = DType::kF32});
    graph.AddNode(reshape);
  }
  graph.outputs[0] = reshape.outputs[0];
  const Graph after = AfterPass("fold_constants", graph);
  EXPECT_TRUE(after.value(first).is_constant());
  EXPECT_EQ(after.order().size(), graph.order().size() - 1);
}

TEST(SumToAdd, MakesAChain) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId y = b.Input("y", {2, 3});
  b.Output(b.Op("Sum", {x, y, b.Random({3}), y}), "sum");
  const Graph after = Checked("sum_to_add", b.Build());
  EXPECT_THAT(after, HasOps({"Add", "Add", "Add"}));
  EXPECT_EQ(after.value(after.outputs[0]).name, "sum");
}

TEST(SumToAdd, OfOneValueStays) {
  GraphBuilder b;
  b.Output(b.Op("Sum", {b.Input("x", {2, 3})}));
  EXPECT_THAT(Checked("sum_to_add", b.Build()), HasOps({"Sum"}));
}

TEST(SumToAdd, LetsAResidualFuse) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 4, 4});
  const ValueId conv = b.Op("Conv", {x, b.Random({3, 3, 1, 1})});
  b.Output(b.Op("Relu", {b.Op("Sum", {conv, x})}));
  EXPECT_THAT(Optimised(b.Build()), HasNo("Sum"));
  EXPECT_EQ(TheOnly(Optimised(b.Build()), "Conv").post_ops.size(), 2u);
}

TEST(FoldAffine, JoinsFactorsAndAddends) {
  GraphBuilder b;
  ValueId x = b.Input("x", {2, 3, 4, 4});
  x = b.Op("Mul", {x, b.Random({3, 1, 1})});
  x = b.Op("Add", {b.Random({3, 1, 1}), x});
  x = b.Op("Mul", {x, b.Random({1})});
  x = b.Op("Mul", {x, b.Random({1, 3, 1, 1})});
  b.Output(b.Op("Add", {x, b.Random({3, 1, 1})}));
  EXPECT_THAT(Checked("fold_affine", b.Build(), {1e-5F, 1e-5F}), HasOps({"Mul", "Add"}));
}

TEST(FoldAffine, MakesNoConstantThatIsLargerThanBoth) {
  GraphBuilder b;
  ValueId x = b.Input("x", {2, 3, 4});
  x = b.Op("Mul", {x, b.Random({3, 1})});
  b.Output(b.Op("Mul", {x, b.Random({1, 4})}));
  EXPECT_THAT(Checked("fold_affine", b.Build()), HasOps({"Mul", "Mul"}));
}

TEST(FoldAffine, LeavesAValueThatOthersRead) {
  GraphBuilder b;
  const ValueId x = b.Op("Add", {b.Input("x", {2, 3}), b.Random({3})});
  b.Output(b.Op("Add", {x, b.Random({3})}));
  b.Output(b.Op("Relu", {x}));
  EXPECT_THAT(Checked("fold_affine", b.Build()), HasOps({"Add", "Add", "Relu"}));
}

// x of an unknown rank + b, * m, both along axis 1.
Graph LegacyAffine() {
  GraphBuilder b(6);
  const GraphBuilder::Attrs along = {{"broadcast", int64_t{1}}, {"axis", int64_t{1}}};
  const ValueId x = b.Input("x", {1, 3, 4, 4});
  const ValueId sum = b.Op("Add", {x, b.Random({3})}, along);
  b.Output(b.Op("Relu", {b.Op("Mul", {sum, b.Random({3})}, along)}));
  Graph graph = b.Build();
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    if (!graph.value(id).is_constant()) graph.mutable_value(id).shape.reset();
  }
  return graph;
}

TEST(FoldAffine, KeepsTheAxesOfOldOpsets) {
  EXPECT_THAT(AfterPass("fold_affine", LegacyAffine()), HasOps({"Add", "Mul", "Relu"}));
  Graph optimised = Optimised(LegacyAffine());
  Graph bound = LegacyAffine();
  for (Graph* graph : {&optimised, &bound}) {
    graph->mutable_value(graph->inputs[0]).shape = Shape{1, 3, 4, 4};
  }
  ASSERT_EQ(InferShapes(bound), absl::OkStatus());
  const Graph after = Optimised(optimised);
  EXPECT_THAT(after, HasNo("Unsqueeze"));
  EXPECT_TRUE(SameAnswers(bound, after));
}

TEST(FuseResidual, AMulCarriesTheSumWithAConstant) {
  GraphBuilder b;
  ValueId x = b.Op("Mul", {b.Input("x", {2, 3, 4, 4}), b.Random({3, 1, 1})});
  b.Output(b.Op("Relu", {b.Op("Add", {x, b.Random({3, 1, 1})})}));
  const Graph graph = b.Build();
  EXPECT_THAT(Checked("fuse_residual", graph), HasOps({"Mul", "Relu"}));
  EXPECT_EQ(TheOnly(Optimised(graph), "Mul").post_ops.size(), 2u);
}

TEST(FuseResidual, AMulDoesNotCarryTheSumWithAValue) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  b.Output(b.Op("Add", {b.Op("Mul", {x, b.Random({3})}), x}));
  EXPECT_THAT(Checked("fuse_residual", b.Build()), HasOps({"Mul", "Add"}));
}

TEST(RemoveNoOps, TakesOutWhatHandsItsInputThrough) {
  GraphBuilder b;
  ValueId x = b.Op("Relu", {b.Input("x", {2, 3, 4})});
  x = b.Op("Identity", {x});
  x = b.Op("Cast", {x}, {{"to", int64_t{1}}});
  x = b.Op("Dropout", {x});
  x = b.Op("Reshape", {x, b.IntList({2, 3, 4})});
  x = b.Op("Concat", {x}, {{"axis", int64_t{1}}});
  x = b.Op("Transpose", {x}, {{"perm", Ints{0, 1, 2}}});
  x = b.Op("Pad", {x, b.IntList({0, 0, 0, 0, 0, 0})});
  x = b.Op("Slice", {x, b.IntList({0}), b.IntList({100}), b.IntList({1})});
  b.Output(x, "y");
  const Graph after = Checked("remove_no_ops", b.Build());
  EXPECT_THAT(after, HasOps({"Relu"}));
  EXPECT_EQ(after.value(after.outputs[0]).name, "y") << "an output keeps its name";
}

TEST(RemoveNoOps, KeepsAReversingSlice) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {4});
  const ValueId all =
      b.Op("Slice", {x, b.IntList({-1}), b.IntList({-100}), b.IntList({0}), b.IntList({-1})});
  b.Output(b.Op("Relu", {all}));
  EXPECT_THAT(Checked("remove_no_ops", b.Build()), HasOps({"Slice", "Relu"}));
}

TEST(RemoveNoOps, MergesMovementsThatFollowEachOther) {
  GraphBuilder b;
  ValueId x = b.Input("x", {2, 3, 4});
  x = b.Op("Transpose", {x}, {{"perm", Ints{2, 0, 1}}});
  x = b.Op("Transpose", {x}, {{"perm", Ints{1, 0, 2}}});
  x = b.Op("Reshape", {x, b.IntList({8, 3})});
  x = b.Op("Flatten", {x}, {{"axis", int64_t{0}}});
  b.Output(x);
  EXPECT_THAT(Checked("remove_no_ops", b.Build()), HasOps({"Transpose", "Reshape"}));
}

TEST(ExplicitPads, LeavesSamePaddingOfNothing) {
  GraphBuilder b(22);
  const ValueId x = b.Input("x", {1, 3, 8, 0});
  b.Output(b.Op("MaxPool", {x},
                {{"auto_pad", std::string("SAME_LOWER")}, {"kernel_shape", Ints{2, 2}}}));
  EXPECT_THAT(AfterPass("explicit_pads", b.Build()), HasOps({"MaxPool"}));
}

TEST(ExplicitPads, ResolvesSamePadding) {
  GraphBuilder b(8);
  const ValueId x = b.Input("x", {1, 2, 7, 8});
  const ValueId c = b.Op("Conv", {x, b.Random({3, 2, 3, 4})},
                         {{"auto_pad", std::string("SAME_LOWER")}, {"strides", Ints{2, 1}}});
  b.Output(
      b.Op("MaxPool", {c}, {{"auto_pad", std::string("VALID")}, {"kernel_shape", Ints{2, 2}}}));
  const Graph after = Checked("explicit_pads", b.Build());
  const Node& conv = TheOnly(after, "Conv");
  EXPECT_EQ(*conv.attributes.Ints("pads", {}), (Ints{1, 2, 1, 1}));
  EXPECT_EQ(*conv.attributes.Ints("kernel_shape", {}), (Ints{3, 4}));
  EXPECT_FALSE(conv.attributes.has("auto_pad"));
  EXPECT_EQ(*TheOnly(after, "MaxPool").attributes.Ints("pads", {}), (Ints{0, 0, 0, 0}));
}

TEST(ExplicitPads, WaitsForUnknownExtentsWhenTheyMatter) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 2, kUnknownDim, kUnknownDim});
  b.Output(b.Op("Conv", {x, b.Random({3, 2, 3, 3})},
                {{"auto_pad", std::string("SAME_UPPER")}, {"strides", Ints{2, 2}}}));
  EXPECT_TRUE(TheOnly(AfterPass("explicit_pads", b.Build()), "Conv").attributes.has("auto_pad"));
}

TEST(CanonicalMatMul, TakesGemmWithItsFactorsIntoConstants) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 4});
  b.Output(b.Op("Gemm", {x, b.Random({5, 4}), b.Random({1, 5})},
                {{"transB", int64_t{1}}, {"alpha", 0.5F}, {"beta", 2.0F}}));
  const Graph after = Checked("canonical_matmul", b.Build());
  EXPECT_THAT(after, HasOps({"octet:MatMul"}));
  EXPECT_EQ(TheOnly(after, "octet:MatMul").attributes.IntOr("trans_b", 0), 1);
  EXPECT_EQ(TheOnly(after, "octet:MatMul").inputs.size(), 3U);
}

TEST(CanonicalMatMul, KeepsWhatNoConstantTakesIn) {
  GraphBuilder b;
  const ValueId a = b.Input("a", {4, 3});
  const ValueId w = b.Input("w", {4, 5});
  const ValueId c = b.Input("c", {3, 1});
  b.Output(b.Op("Gemm", {a, w, c}, {{"transA", int64_t{1}}, {"alpha", 0.5F}, {"beta", 3.0F}}));
  const Graph after = Checked("canonical_matmul", b.Build());
  EXPECT_THAT(after, HasOps({"Transpose", "octet:MatMul", "Mul", "Mul", "Add"}));
}

TEST(CanonicalMatMul, ReadsATransposedRightSideDirectly) {
  GraphBuilder b;
  const ValueId q = b.Input("q", {2, 5, 4});
  const ValueId k = b.Input("k", {2, 6, 4});
  b.Output(b.Op("MatMul", {q, b.Op("Transpose", {k}, {{"perm", Ints{0, 2, 1}}})}));
  const Graph after = Checked("canonical_matmul", b.Build());
  EXPECT_THAT(after, HasOps({"octet:MatMul"}));
  EXPECT_EQ(TheOnly(after, "octet:MatMul").attributes.IntOr("trans_b", 0), 1);
}

TEST(CanonicalMatMul, LeavesVectorsToTheReference) {
  GraphBuilder b;
  b.Output(b.Op("MatMul", {b.Input("v", {4}), b.Random({4, 3})}));
  EXPECT_THAT(AfterPass("canonical_matmul", b.Build()), HasOps({"MatMul"}));
}

TEST(SpatialMean, BecomesAPooling) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 5});
  b.Output(b.Op("ReduceMean", {x}, {{"axes", Ints{-1, 2}}, {"keepdims", int64_t{0}}}));
  b.Output(b.Op("ReduceMean", {x}, {{"axes", Ints{2, 3}}}));
  EXPECT_THAT(Checked("spatial_mean", b.Build()),
              HasOps({"GlobalAveragePool", "Reshape", "GlobalAveragePool"}));
}

TEST(SpatialMean, LeavesMeansOverFeaturesAlone) {
  GraphBuilder b;
  b.Output(b.Op("ReduceMean", {b.Input("x", {2, 3, 4})}, {{"axes", Ints{2}}}));
  EXPECT_THAT(AfterPass("spatial_mean", b.Build()), HasOps({"ReduceMean"}));
}

TEST(FoldPad, BecomesTheConvolutionsOwn) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 2, 6, 6});
  const ValueId padded = b.Op("Pad", {x, b.IntList({0, 0, 1, 2, 0, 0, 0, 1})});
  b.Output(b.Op("Conv", {padded, b.Random({3, 2, 3, 3})}, {{"pads", Ints{1, 1, 1, 1}}}));
  b.Output(b.Op("AveragePool", {padded}, {{"kernel_shape", Ints{2, 2}}}));
  const Graph after = Checked("fold_pad", b.Build());
  EXPECT_THAT(after, HasOps({"Conv", "AveragePool"}));
  EXPECT_EQ(*TheOnly(after, "Conv").attributes.Ints("pads", {}), (Ints{2, 3, 1, 2}));
}

TEST(FoldPad, StaysWhenTheAverageWouldNotCountIt) {
  GraphBuilder b;
  const ValueId padded =
      b.Op("Pad", {b.Input("x", {1, 2, 6, 6}), b.IntList({0, 0, 1, 1, 0, 0, 1, 1})});
  b.Output(
      b.Op("AveragePool", {padded}, {{"kernel_shape", Ints{3, 3}}, {"pads", Ints{1, 1, 1, 1}}}));
  EXPECT_THAT(AfterPass("fold_pad", b.Build()), HasOps({"Pad", "AveragePool"}));
}

TEST(FoldPad, StaysWhenItFillsWithSomethingElse) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 2, 6, 6});
  const ValueId padded = b.Op("Pad", {x, b.IntList({0, 0, 1, 1, 0, 0, 1, 1}), b.Scalar(1.0F)});
  b.Output(b.Op("Conv", {padded, b.Random({3, 2, 3, 3})}));
  EXPECT_THAT(AfterPass("fold_pad", b.Build()), HasOps({"Pad", "Conv"}));
}

ValueId BatchNorm(GraphBuilder& b, ValueId x, int64_t channels) {
  return b.Op("BatchNormalization", {x, b.Random({channels}), b.Random({channels}),
                                     b.Random({channels}), b.Random({channels}, 0.5F, 2.0F)});
}

TEST(FoldBatchNorm, GoesIntoTheWeightsAhead) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4, 5, 5});
  const ValueId c =
      b.Op("Conv", {x, b.Random({6, 2, 3, 3}), b.Random({6})}, {{"group", int64_t{2}}});
  b.Output(BatchNorm(b, c, 6));
  EXPECT_THAT(Checked("fold_batch_norm", b.Build()), HasOps({"Conv"}));
}

TEST(FoldBatchNorm, GoesIntoTheWeightsBehindWithoutPadding) {
  GraphBuilder b;
  const ValueId x = BatchNorm(b, b.Input("x", {2, 4, 5, 5}), 4);
  b.Output(b.Op("Conv", {x, b.Random({6, 2, 3, 3})}, {{"group", int64_t{2}}}));
  EXPECT_THAT(Checked("fold_batch_norm", b.Build()), HasOps({"Conv"}));
}

TEST(FoldBatchNorm, BecomesMulAndAddElsewhere) {
  GraphBuilder b;
  const ValueId x = BatchNorm(b, b.Input("x", {2, 4, 5, 5}), 4);
  b.Output(b.Op("Conv", {x, b.Random({6, 4, 3, 3})}, {{"pads", Ints{1, 1, 1, 1}}}));
  EXPECT_THAT(Checked("fold_batch_norm", b.Build()), HasOps({"Mul", "Add", "Conv"}));
}

TEST(FoldBatchNorm, GoesIntoAMatrixProduct) {
  for (const bool transposed : {false, true}) {
    GraphBuilder b;
    const ValueId w = transposed ? b.Random({5, 4}) : b.Random({4, 5});
    const ValueId y =
        b.Op("octet:MatMul", {b.Input("x", {3, 4}), w}, {{"trans_b", int64_t{transposed ? 1 : 0}}});
    b.Output(BatchNorm(b, y, 5));
    EXPECT_THAT(Checked("fold_batch_norm", b.Build()), HasOps({"octet:MatMul"}));
  }
}

TEST(FoldBatchNorm, LeavesDoublePrecision) {
  for (const bool ahead : {false, true}) {
    GraphBuilder b;
    const auto ones = [&](Shape shape, double value) {
      const auto count = static_cast<size_t>(shape.elements());
      return b.Constant<double>(std::move(shape), std::vector<double>(count, value));
    };
    const auto norm = [&](ValueId x) {
      return b.Op("BatchNormalization",
                  {x, ones({4}, 2), ones({4}, -1), ones({4}, 0.5), ones({4}, 3)});
    };
    ValueId y = b.Input("x", {1, 4, 5, 5}, DType::kF64);
    if (ahead) y = norm(y);
    y = b.Op("Conv", {y, ones({4, 4, 3, 3}, 0.25)});
    if (!ahead) y = norm(y);
    b.Output(y);
    const Graph graph = b.Build();
    const Graph after = Optimised(graph);
    EXPECT_TRUE(SameAnswers(graph, after)) << ahead;
    EXPECT_EQ(CountOps(after, "BatchNormalization"), 1) << ahead;
  }
}

TEST(FuseBias, AddsUpConstantsPerChannel) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 4});
  ValueId c = b.Op("Conv", {x, b.Random({5, 3, 1, 1}), b.Random({5})});
  c = b.Op("Add", {b.Random({5, 1, 1}), c});
  c = b.Op("Sub", {c, b.Random({1, 5, 1, 1})});
  b.Output(b.Op("Add", {c, b.Scalar(0.25F)}));
  EXPECT_THAT(Checked("fuse_bias", b.Build()), HasOps({"Conv"}));
}

TEST(FuseBias, LeavesConstantsAlongOtherAxes) {
  GraphBuilder b;
  const ValueId y = b.Op("octet:MatMul", {b.Input("x", {2, 5, 4}), b.Random({4, 5})});
  b.Output(b.Op("Add", {y, b.Random({5, 1})}));
  b.Output(b.Op("Add", {b.Op("octet:MatMul", {b.Input("z", {5, 4}), b.Random({4, 5})}),
                        b.Random({1, 1, 5})}));
  EXPECT_THAT(AfterPass("fuse_bias", b.Build()), HasExactly(2, "Add"));
}

TEST(FoldScale, ScalesWeightsAndBias) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 4});
  ValueId c = b.Op("Conv", {x, b.Random({5, 3, 1, 1}), b.Random({5})});
  c = b.Op("Mul", {c, b.Random({5, 1, 1})});
  b.Output(b.Op("Div", {c, b.Scalar(3.0F)}));
  const ValueId y = b.Op("octet:MatMul", {b.Input("z", {2, 4}), b.Random({4, 5})});
  b.Output(b.Op("Mul", {b.Random({5}), y}));
  EXPECT_THAT(Checked("fold_scale", b.Build()), HasOps({"Conv", "octet:MatMul"}));
}

TEST(FuseActivation, BecomesAPostOp) {
  for (const char* op :
       {"Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "Elu", "Softplus"}) {
    SCOPED_TRACE(op);
    GraphBuilder b;
    const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
    b.Output(b.Op(op, {c}));
    EXPECT_THAT(Checked("fuse_activation", b.Build()), HasOps({"Conv"}));
  }
}

TEST(FuseActivation, TakesClipInBothForms) {
  GraphBuilder b;
  const ValueId sum = b.Op("Add", {b.Input("x", {4, 4}), b.Input("y", {4, 4})});
  b.Output(b.Op("Clip", {sum, b.Scalar(0.0F), b.Scalar(6.0F)}));
  EXPECT_THAT(Checked("fuse_activation", b.Build()), HasOps({"Add"}));
  GraphBuilder old(9);
  old.Output(old.Op("Clip",
                    {old.Op("Conv", {old.Input("x", {1, 3, 4, 4}), old.Random({5, 3, 1, 1})})},
                    {{"min", -0.5F}, {"max", 0.5F}}));
  EXPECT_THAT(Checked("fuse_activation", old.Build()), HasOps({"Conv"}));
}

TEST(FuseActivation, SeesAReluInAClipWithoutAnUpperBound) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
  b.Output(b.Op("Clip", {c, b.Scalar(0.0F)}));
  const Graph after = Checked("fuse_activation", b.Build());
  ASSERT_EQ(TheOnly(after, "Conv").post_ops.size(), 1U);
  EXPECT_EQ(TheOnly(after, "Conv").post_ops[0].kind, PostOp::Kind::kRelu);
}

TEST(FuseActivation, LeavesWhatANodeCannotCarryAnyMore) {
  GraphBuilder b;
  ValueId y = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
  for (int i = 0; i < 20; ++i) y = b.Op("LeakyRelu", {y}, {{"alpha", 0.9F}});
  b.Output(y);
  EXPECT_EQ(TheOnly(Checked("fuse_activation", b.Build()), "Conv").post_ops.size(), 16U);
}

TEST(FuseActivation, StaysWhenSomebodyElseReadsTheSum) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
  b.Output(c);
  b.Output(b.Op("Relu", {c}));
  EXPECT_THAT(AfterPass("fuse_activation", b.Build()), HasOps({"Conv", "Relu"}));
}

// Conv and a residual branch of its shape.
Graph Residual(Shape input, bool relu_between) {
  GraphBuilder b;
  const ValueId x = b.Input("x", std::move(input));
  const ValueId branch = b.Op("Relu", {x});
  ValueId c = b.Op("Conv", {branch, b.Random({3, 3, 3, 3})}, {{"pads", Ints{1, 1, 1, 1}}});
  if (relu_between) c = b.Op("Relu", {c});
  b.Output(b.Op("Relu", {b.Op("Add", {branch, c})}));
  return b.Build();
}

TEST(FuseResidual, TakesTheOtherBranchAsAnOperand) {
  const Graph graph = Residual({2, 3, 4, 4}, true);
  const Graph after = AfterPasses({"fuse_activation", "fuse_residual", "fuse_activation"}, graph);
  EXPECT_THAT(after, HasOps({"Relu", "Conv"}));
  EXPECT_TRUE(SameAnswers(graph, after));
  using Kind = PostOp::Kind;
  const auto& ops = TheOnly(after, "Conv").post_ops;
  ASSERT_EQ(ops.size(), 3U);
  EXPECT_EQ(ops[0].kind, Kind::kRelu);
  EXPECT_EQ(ops[1].kind, Kind::kAdd);
  EXPECT_EQ(ops[1].operand, 3) << "slot 2 belongs to the bias";
  EXPECT_EQ(ops[2].kind, Kind::kRelu);
}

TEST(FuseResidual, KnowsThatAnUnknownBatchIsTheSameOnBothSides) {
  EXPECT_THAT(AfterPass("fuse_residual", Residual({kUnknownDim, 3, 4, 4}, false)), HasNo("Add"));
}

TEST(FuseResidual, DoesNotTrustUnknownExtentsOfDifferentOrigin) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {kUnknownDim, 3, 4, 4}), b.Random({3, 3, 1, 1})});
  b.Output(b.Op("Add", {c, b.Input("other", {kUnknownDim, 3, 4, 4})}));
  EXPECT_THAT(AfterPass("fuse_residual", b.Build()), HasOps({"Conv", "Add"}));
}

TEST(FuseResidual, LeavesASumThatIsLargerThanTheResult) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({3, 3, 1, 1})});
  b.Output(b.Op("Add", {c, b.Input("other", {2, 3, 4, 4})}));
  EXPECT_THAT(AfterPass("fuse_residual", b.Build()), HasOps({"Conv", "Add"}));
}

TEST(FuseResidual, MultipliesByAGateThatBroadcasts) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 4});
  const ValueId c = b.Op("Conv", {x, b.Random({3, 3, 1, 1})});
  b.Output(b.Op("Mul", {c, b.Op("Sigmoid", {b.Op("GlobalAveragePool", {x})})}));
  const Graph graph = b.Build();
  const Graph after = AfterPass("fuse_residual", graph);
  EXPECT_THAT(after, HasNo("Mul"));
  EXPECT_TRUE(SameAnswers(graph, after));
}

TEST(FuseResidual, OfTwoConvolutionsTheLaterOneTakesTheOther) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 4});
  const ValueId main = b.Op("Conv", {x, b.Random({3, 3, 3, 3})}, {{"pads", Ints{1, 1, 1, 1}}});
  const ValueId shortcut = b.Op("Conv", {x, b.Random({3, 3, 1, 1})});
  b.Output(b.Op("Add", {main, shortcut}));
  const Graph graph = b.Build();
  const Graph after = AfterPass("fuse_residual", graph);
  EXPECT_THAT(after, HasOps({"Conv", "Conv"}));
  EXPECT_TRUE(after.node(after.order()[0]).post_ops.empty());
  EXPECT_TRUE(SameAnswers(graph, after));
}

}  // namespace structure_test
}  // namespace octet
