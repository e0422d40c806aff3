// What the passes that fold and fuse leave, and that the answers stay.
#include "gtest/gtest.h"

#include "engine/ops/op.h"
#include "tests/support/graph_builder.h"
#include "tests/unit/engine/passes/checked.h"

namespace octet {
namespace structure_test {

TEST(SumToAdd, MakesAChain) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  const ValueId y = b.Input("y", {2, 3});
  b.Output(b.Op("Sum", {x, y, b.Random({3}), y}), "sum");
  const Graph after = AfterPassChecked("sum_to_add", b.Build());
  EXPECT_THAT(after, HasOps({"Add", "Add", "Add"}));
  EXPECT_EQ(after.value(after.outputs[0]).name, "sum");
}

TEST(SumToAdd, OfOneValueStays) {
  GraphBuilder b;
  b.Output(b.Op("Sum", {b.Input("x", {2, 3})}));
  EXPECT_THAT(AfterPassChecked("sum_to_add", b.Build()), HasOps({"Sum"}));
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
  EXPECT_THAT(AfterPassChecked("fold_affine", b.Build(), {1e-5F, 1e-5F}), HasOps({"Mul", "Add"}));
}

TEST(FoldAffine, MakesNoConstantThatIsLargerThanBoth) {
  GraphBuilder b;
  ValueId x = b.Input("x", {2, 3, 4});
  x = b.Op("Mul", {x, b.Random({3, 1})});
  b.Output(b.Op("Mul", {x, b.Random({1, 4})}));
  EXPECT_THAT(AfterPassChecked("fold_affine", b.Build()), HasOps({"Mul", "Mul"}));
}

// x * 1e-25 * 1e-25 is no 0 for an x of 1e30.
TEST(FoldAffine, MakesNoFactorThatAFloatDoesNotHold) {
  const auto scaled_twice = [](float by) {
    GraphBuilder b;
    const ValueId once = b.Op("Mul", {b.Input("x", {2, 3}), b.Constant<float>({1}, {by})});
    b.Output(b.Op("Mul", {once, b.Constant<float>({1}, {by})}));
    return b.Build();
  };
  EXPECT_THAT(AfterPass("fold_affine", scaled_twice(1e-25F)), HasOps({"Mul", "Mul"}));
  EXPECT_THAT(AfterPass("fold_affine", scaled_twice(1e-15F)), HasOps({"Mul"}));
  EXPECT_THAT(AfterPass("fold_affine", scaled_twice(0.0F)), HasOps({"Mul"}));
}

TEST(FoldAffine, LeavesAValueThatOthersRead) {
  GraphBuilder b;
  const ValueId x = b.Op("Add", {b.Input("x", {2, 3}), b.Random({3})});
  b.Output(b.Op("Add", {x, b.Random({3})}));
  b.Output(b.Op("Relu", {x}));
  EXPECT_THAT(AfterPassChecked("fold_affine", b.Build()), HasOps({"Add", "Add", "Relu"}));
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
  EXPECT_THAT(AfterPassChecked("fuse_residual", graph), HasOps({"Mul", "Relu"}));
  EXPECT_EQ(TheOnly(Optimised(graph), "Mul").post_ops.size(), 2u);
}

TEST(FuseResidual, AMulDoesNotCarryTheSumWithAValue) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3});
  b.Output(b.Op("Add", {b.Op("Mul", {x, b.Random({3})}), x}));
  EXPECT_THAT(AfterPassChecked("fuse_residual", b.Build()), HasOps({"Mul", "Add"}));
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
  const Graph after = AfterPassChecked("remove_no_ops", b.Build());
  EXPECT_THAT(after, HasOps({"Relu"}));
  EXPECT_EQ(after.value(after.outputs[0]).name, "y") << "an output keeps its name";
}

TEST(RemoveNoOps, KeepsAReversingSlice) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {4});
  const ValueId all =
      b.Op("Slice", {x, b.IntList({-1}), b.IntList({-100}), b.IntList({0}), b.IntList({-1})});
  b.Output(b.Op("Relu", {all}));
  EXPECT_THAT(AfterPassChecked("remove_no_ops", b.Build()), HasOps({"Slice", "Relu"}));
}

TEST(RemoveNoOps, MergesMovementsThatFollowEachOther) {
  GraphBuilder b;
  ValueId x = b.Input("x", {2, 3, 4});
  x = b.Op("Transpose", {x}, {{"perm", Ints{2, 0, 1}}});
  x = b.Op("Transpose", {x}, {{"perm", Ints{1, 0, 2}}});
  x = b.Op("Reshape", {x, b.IntList({8, 3})});
  x = b.Op("Flatten", {x}, {{"axis", int64_t{0}}});
  b.Output(x);
  EXPECT_THAT(AfterPassChecked("remove_no_ops", b.Build()), HasOps({"Transpose", "Reshape"}));
}

TEST(RemoveNoOps, DropsPartsOfAConcatThatAddNothing) {
  GraphBuilder b;
  const ValueId x = b.Op("Relu", {b.Input("x", {2, 3})});
  const ValueId empty = b.Op("Relu", {b.Input("empty", {2, 0})});
  const ValueId open = b.Input("open", {2, kUnknownDim});
  b.Output(b.Op("Concat", {empty, x, b.Constant<float>({2, 0}, {}), open}, {{"axis", int64_t{-1}}}),
           "some");
  b.Output(b.Op("Concat", {x, empty}, {{"axis", int64_t{1}}}), "one");
  b.Output(b.Op("Concat", {empty, empty}, {{"axis", int64_t{1}}}), "none");
  b.Output(b.Op("Concat", {empty, empty}, {{"axis", int64_t{0}}}), "rows");
  const Graph graph = b.Build();
  const Graph after = AfterPass("remove_no_ops", graph);
  const Node& some = after.node(after.producer(after.outputs[0]));
  EXPECT_TRUE(some.is("Concat"));
  EXPECT_EQ(some.inputs.size(), 2U) << Dump(after);
  EXPECT_FALSE(after.node(after.producer(after.outputs[1])).is("Concat"));
  EXPECT_FALSE(after.node(after.producer(after.outputs[2])).is("Concat"));
  const Node& rows = after.node(after.producer(after.outputs[3]));
  EXPECT_EQ(rows.inputs.size(), 2U) << "rows of nothing are rows";
  EXPECT_TRUE(SameAnswers(WithUnknownExtents(graph, 4), WithUnknownExtents(after, 4)));
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
  const Graph after = AfterPassChecked("explicit_pads", b.Build());
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
  const Graph after = AfterPassChecked("canonical_matmul", b.Build());
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
  const Graph after = AfterPassChecked("canonical_matmul", b.Build());
  EXPECT_THAT(after, HasOps({"Transpose", "octet:MatMul", "Mul", "Mul", "Add"}));
}

TEST(CanonicalMatMul, ReadsATransposedRightSideDirectly) {
  GraphBuilder b;
  const ValueId q = b.Input("q", {2, 5, 4});
  const ValueId k = b.Input("k", {2, 6, 4});
  b.Output(b.Op("MatMul", {q, b.Op("Transpose", {k}, {{"perm", Ints{0, 2, 1}}})}));
  const Graph after = AfterPassChecked("canonical_matmul", b.Build());
  EXPECT_THAT(after, HasOps({"octet:MatMul"}));
  EXPECT_EQ(TheOnly(after, "octet:MatMul").attributes.IntOr("trans_b", 0), 1);
}

// By constants and by computed vectors, on either side or both, of matrices and of stacks.
TEST(CanonicalMatMul, MakesMatricesOfVectors) {
  GraphBuilder b;
  const ValueId v = b.Input("v", {4});
  const ValueId stack = b.Input("stack", {2, 3, 4});
  const std::vector<ValueId> products = {
      b.Op("MatMul", {v, b.Random({4, 3})}),    b.Op("MatMul", {b.Random({3}), stack}),
      b.Op("MatMul", {stack, b.Random({4})}),   b.Op("MatMul", {stack, v}),
      b.Op("MatMul", {v, b.Random({2, 4, 5})}), b.Op("MatMul", {v, b.Op("Relu", {v})}),
  };
  for (const ValueId y : products) b.Output(y);
  const Graph before = b.Build();
  const Graph after = AfterPassChecked("canonical_matmul", before);
  EXPECT_THAT(after, HasNo("MatMul"));
  EXPECT_THAT(after, HasExactly(6, "octet:MatMul"));
  for (size_t i = 0; i < products.size(); ++i)
    EXPECT_EQ(*after.value(after.outputs[i]).shape, *before.value(before.outputs[i]).shape) << i;
}

TEST(SpatialMean, BecomesAPooling) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 5});
  b.Output(b.Op("ReduceMean", {x}, {{"axes", Ints{-1, 2}}, {"keepdims", int64_t{0}}}));
  b.Output(b.Op("ReduceMean", {x}, {{"axes", Ints{2, 3}}}));
  EXPECT_THAT(AfterPassChecked("spatial_mean", b.Build()),
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
  const Graph after = AfterPassChecked("fold_pad", b.Build());
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

TEST(FuseBias, AddsUpConstantsPerChannel) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 4});
  ValueId c = b.Op("Conv", {x, b.Random({5, 3, 1, 1}), b.Random({5})});
  c = b.Op("Add", {b.Random({5, 1, 1}), c});
  c = b.Op("Sub", {c, b.Random({1, 5, 1, 1})});
  b.Output(b.Op("Add", {c, b.Scalar(0.25F)}));
  EXPECT_THAT(AfterPassChecked("fuse_bias", b.Build()), HasOps({"Conv"}));
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
  EXPECT_THAT(AfterPassChecked("fold_scale", b.Build()), HasOps({"Conv", "octet:MatMul"}));
}

// Of (x * 1e30) * 1e30 the weight would be infinite, whatever x is; of (x * 1e-30) * 1e-30 it would be 0.
TEST(FoldScale, LeavesFactorsThatWeightsCannotTake) {
  const auto left = [](float weight, float bias, float factor) {
    GraphBuilder b;
    const ValueId w = b.Constant<float>({2, 2}, {1, weight, 1, 0});
    const ValueId y =
        b.Op("octet:MatMul", {b.Input("x", {1, 2}), w, b.Constant<float>({2}, {0, bias})});
    b.Output(b.Op("Mul", {y, b.Constant<float>({2}, {0, factor})}));
    return AfterPass("fold_scale", b.Build());
  };
  EXPECT_THAT(left(1e30F, 0, 1e30F), HasExactly(1, "Mul"));
  EXPECT_THAT(left(1e-30F, 0, -1e-30F), HasExactly(1, "Mul"));
  EXPECT_THAT(left(1, 1e30F, 1e30F), HasExactly(1, "Mul"));
  EXPECT_THAT(left(1, 1e-30F, 1e-30F), HasExactly(0, "Mul")) << "the sum is as small as the bias";
  EXPECT_THAT(left(1e-35F, 1, 0.5F), HasExactly(0, "Mul")) << "a channel of zeros";
}

TEST(FoldScale, LeavesAShiftBehindItForTheBias) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 4, 4});
  ValueId c = b.Op("Conv", {x, b.Random({5, 3, 1, 1}), b.Random({5})});
  c = b.Op("Add", {b.Op("Mul", {c, b.Random({5, 1, 1})}), b.Random({5, 1, 1})});
  b.Output(b.Op("Relu", {c}));
  const Graph graph = Optimised(b.Build());
  const Node& conv = TheOnly(graph, "Conv");
  EXPECT_EQ(conv.inputs.size(), 3U) << Dump(graph);
  EXPECT_EQ(conv.post_ops.size(), 1U) << Dump(graph);
}

TEST(FuseActivation, BecomesAPostOp) {
  for (const char* op :
       {"Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "Elu", "Softplus"}) {
    SCOPED_TRACE(op);
    GraphBuilder b;
    const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
    b.Output(b.Op(op, {c}));
    EXPECT_THAT(AfterPassChecked("fuse_activation", b.Build()), HasOps({"Conv"}));
  }
}

TEST(FuseActivation, TakesClipInBothForms) {
  GraphBuilder b;
  const ValueId sum = b.Op("Add", {b.Input("x", {4, 4}), b.Input("y", {4, 4})});
  b.Output(b.Op("Clip", {sum, b.Scalar(0.0F), b.Scalar(6.0F)}));
  EXPECT_THAT(AfterPassChecked("fuse_activation", b.Build()), HasOps({"Add"}));
  GraphBuilder old(9);
  old.Output(old.Op("Clip",
                    {old.Op("Conv", {old.Input("x", {1, 3, 4, 4}), old.Random({5, 3, 1, 1})})},
                    {{"min", -0.5F}, {"max", 0.5F}}));
  EXPECT_THAT(AfterPassChecked("fuse_activation", old.Build()), HasOps({"Conv"}));
}

TEST(FuseActivation, SeesAReluInAClipWithoutAnUpperBound) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
  b.Output(b.Op("Clip", {c, b.Scalar(0.0F)}));
  const Graph after = AfterPassChecked("fuse_activation", b.Build());
  ASSERT_EQ(TheOnly(after, "Conv").post_ops.size(), 1U);
  EXPECT_EQ(TheOnly(after, "Conv").post_ops[0].kind, PostOp::Kind::kRelu);
}

TEST(FuseActivation, LeavesWhatANodeCannotCarryAnyMore) {
  GraphBuilder b;
  ValueId y = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
  for (int i = 0; i < 20; ++i) y = b.Op("LeakyRelu", {y}, {{"alpha", 0.9F}});
  b.Output(y);
  EXPECT_EQ(TheOnly(AfterPassChecked("fuse_activation", b.Build()), "Conv").post_ops.size(), 16U);
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
