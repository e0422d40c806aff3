// What layers and their neighbours take in, and what they leave to nodes of its own.
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace layer_operands_test {

Graph Residual(const Graph& graph) {
  Graph after = AfterPass("fuse_residual", graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  return after;
}

TEST(LayerOperands, AConvolutionTakesAllElementsOrOnePerChannel) {
  for (const Shape& shape : {Shape{2, 4, 5, 5}, Shape{2, 4, 1, 1}, Shape{1, 4, 1, 1}, Shape{1}}) {
    SCOPED_TRACE(shape.ToString());
    GraphBuilder b;
    const ValueId c =
        b.Op("Relu", {b.Op("Conv", {b.Input("x", {2, 3, 5, 5}), b.Random({4, 3, 1, 1})})});
    b.Output(b.Op("Mul", {c, b.Random(shape)}));
    const Graph fused = AfterPass("fuse_activation", b.Build());
    EXPECT_THAT(Residual(fused), HasOps({"Conv"}));
  }
}

TEST(LayerOperands, AConvolutionLeavesMasksAndPlanesForAllSamples) {
  for (const Shape& shape :
       {Shape{2, 1, 5, 5}, Shape{1, 4, 5, 5}, Shape{4, 5, 1}, Shape{2, 1, 1, 1}}) {
    SCOPED_TRACE(shape.ToString());
    GraphBuilder b;
    const ValueId c = b.Op("Conv", {b.Input("x", {2, 3, 5, 5}), b.Random({4, 3, 1, 1})});
    b.Output(b.Op("Mul", {c, b.Random(shape)}));
    EXPECT_THAT(Residual(b.Build()), HasOps({"Conv", "Mul"}));
  }
}

TEST(LayerOperands, AProductTakesOneMatrixForTheStacksOfOneAxis) {
  for (const Shape& shape :
       {Shape{2, 3, 5, 8}, Shape{2, 1, 5, 8}, Shape{1, 3, 5, 8}, Shape{2, 1, 1, 8}, Shape{8}}) {
    SCOPED_TRACE(shape.ToString());
    GraphBuilder b;
    const ValueId y =
        b.Op("octet:MatMul", {b.Input("x", {2, 3, 5, 4}), b.Input("z", {2, 3, 4, 8})});
    b.Output(b.Op("Add", {b.Random(shape), y}));
    EXPECT_THAT(Residual(b.Build()), HasOps({"octet:MatMul"}));
  }
}

TEST(LayerOperands, AProductLeavesWhatRepeatsAlongItsColumnsOrAllStacks) {
  for (const Shape& shape :
       {Shape{5, 8}, Shape{1, 1, 5, 8}, Shape{2, 3, 5, 1}, Shape{5, 1}, Shape{1, 3, 1, 8}}) {
    SCOPED_TRACE(shape.ToString());
    GraphBuilder b;
    const ValueId y =
        b.Op("octet:MatMul", {b.Input("x", {2, 3, 5, 4}), b.Input("z", {2, 3, 4, 8})});
    b.Output(b.Op("Add", {b.Random(shape), y}));
    EXPECT_THAT(Residual(b.Build()), HasOps({"octet:MatMul", "Add"}));
  }
}

// Axes of stacks that operands repeat along alike are one: [windows, heads, rows, columns] of what follows here.
TEST(LayerOperands, AProductOfManyAxesTakesWhatFourAxesHave) {
  for (const Shape& shape : {Shape{1, 1, 2, 5, 8}, Shape{2, 5, 8}, Shape{2, 3, 1, 5, 8},
                             Shape{2, 3, 2, 5, 8}, Shape{2, 1, 1, 1, 8}}) {
    SCOPED_TRACE(shape.ToString());
    GraphBuilder b;
    const ValueId y =
        b.Op("octet:MatMul", {b.Input("x", {2, 3, 2, 5, 4}), b.Input("z", {2, 3, 2, 4, 8})});
    b.Output(b.Op("Add", {y, b.Random(shape)}));
    EXPECT_THAT(Residual(b.Build()), HasOps({"octet:MatMul"}));
  }
}

TEST(LayerOperands, AProductOfManyAxesLeavesWhatTellsThemApart) {
  for (const Shape& shape :
       {Shape{2, 1, 2, 5, 8}, Shape{1, 3, 1, 5, 8}, Shape{2, 3, 2, 5, 1}, Shape{1, 3, 1, 1, 8}}) {
    SCOPED_TRACE(shape.ToString());
    GraphBuilder b;
    const ValueId y =
        b.Op("octet:MatMul", {b.Input("x", {2, 3, 2, 5, 4}), b.Input("z", {2, 3, 2, 4, 8})});
    b.Output(b.Op("Mul", {y, b.Random(shape)}));
    EXPECT_THAT(Residual(b.Build()), HasOps({"octet:MatMul", "Mul"}));
  }
}

// The second operand would part axes that the product and its first operand have as one.
TEST(LayerOperands, AProductOfManyAxesCountsEveryOperand) {
  GraphBuilder b;
  ValueId y = b.Op("octet:MatMul", {b.Input("x", {2, 3, 2, 5, 4}), b.Input("z", {2, 3, 2, 4, 8})});
  y = b.Op("Add", {y, b.Random({1, 1, 2, 5, 8})});
  b.Output(b.Op("Add", {y, b.Random({2, 1, 1, 5, 8})}));
  const Graph once = Residual(b.Build());
  EXPECT_THAT(once, HasOps({"octet:MatMul", "Add"}));
  EXPECT_EQ(TheOnly(once, "octet:MatMul").post_ops.size(), 1U);
}

TEST(LayerOperands, AFactorStaysRealBesideIntegers) {
  for (const char* op : {"Add", "Mul"}) {
    SCOPED_TRACE(op);
    GraphBuilder b;
    const ValueId x = b.FakeQuantize(b.Input("x", {1, 3, 4, 4}), 0.02F, 100);
    const ValueId other = b.FakeQuantize(b.Input("other", {1, 4, 4, 4}), 0.02F, 100);
    const ValueId c = b.Op("Conv", {x, b.QuantizedWeights({4, 3, 1, 1}, 0)});
    b.Output(b.FakeQuantize(b.Op(op, {c, other}), 0.05F, 128));
    const Graph graph = b.Build();
    const Graph after =
        AfterPasses({"fold_constants", "fuse_residual", "import_qdq", "absorb_converts"}, graph);
    EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 0, .atol = 0.0501F, .steps = 1}));
    const Node& conv = TheOnly(after, "Conv");
    ASSERT_EQ(conv.post_ops.size(), 1U) << Dump(after);
    EXPECT_EQ(after.value(conv.input(0)).dtype, DType::kU8);
    EXPECT_EQ(after.value(conv.output(0)).dtype, DType::kU8);
    const ValueId operand = conv.input(static_cast<size_t>(conv.post_ops[0].operand));
    EXPECT_EQ(after.value(operand).dtype,
              conv.post_ops[0].kind == PostOp::Kind::kMul ? DType::kF32 : DType::kU8);
  }
}

// (x - 1e6) / 3 for x from an input, and for one that a layer computes.
TEST(LayerOperands, WhatIsSubtractedFromAnInputIsSubtractedFirst) {
  for (const bool computed : {false, true}) {
    GraphBuilder b;
    ValueId x = b.Op("Reshape", {b.Input("x", {2, 6}), b.IntList({3, 4})});
    if (computed) x = b.Op("Relu", {x});
    const ValueId difference = b.Op("Add", {x, b.Scalar(-1e6F)});
    b.Output(b.Op("Mul", {difference, b.Scalar(1.0F / 3)}));
    const Graph after = AfterPass("fold_affine", b.Build());
    EXPECT_EQ(after.node(after.order().back()).op, computed ? "Add" : "Mul");
  }
}

}  // namespace layer_operands_test
}  // namespace octet
