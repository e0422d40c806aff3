// What is evaluated once for all runs, and what is left for each.
#include "gtest/gtest.h"

#include "engine/tensor/format.h"
#include "tests/support/graph_builder.h"
#include "tests/unit/engine/passes/checked.h"

namespace octet {
namespace fold_constants_test {

TEST(FoldConstants, EvaluatesWhatDependsOnConstantsAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId sum = b.Op("Add", {b.Random({3}), b.Random({3})});
  b.Output(b.Op("Mul", {x, sum}));
  EXPECT_THAT(AfterPassChecked("fold_constants", b.Build()), HasOps({"Mul"}));
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
  EXPECT_THAT(AfterPassChecked("fold_constants", b.Build()), HasOps({"Mul"}));
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
  EXPECT_THAT(AfterPassChecked("fold_constants", b.Build()), HasOps({"MatMul"}));
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

}  // namespace fold_constants_test
}  // namespace octet
