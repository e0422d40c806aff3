// Activations and normalizations that exporters write out in parts.
#include "gtest/gtest.h"

#include "engine/passes/product.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace pattern_test {

Graph Checked(std::string_view pass, const Graph& graph) {
  Graph after = AfterPass(pass, graph);
  EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 1e-3F, .atol = 1e-4F})) << pass;
  return after;
}

TEST(FuseGelu, KnowsTheErfFormInManyOrders) {
  const float root = 1.41421356F;
  for (int form = 0; form < 4; ++form) {
    SCOPED_TRACE(form);
    GraphBuilder b;
    const ValueId x = b.Input("x", {3, 4});
    const ValueId scaled =
        form % 2 == 0 ? b.Op("Div", {x, b.Scalar(root)}) : b.Op("Mul", {b.Scalar(1 / root), x});
    const ValueId sum = b.Op("Add", {b.Op("Erf", {scaled}), b.Scalar(1.0F)});
    ValueId y = kNone;
    if (form == 0) y = b.Op("Mul", {b.Op("Mul", {x, sum}), b.Scalar(0.5F)});
    if (form == 1) y = b.Op("Mul", {b.Op("Mul", {x, b.Scalar(0.5F)}), sum});
    if (form == 2) y = b.Op("Mul", {x, b.Op("Mul", {sum, b.Scalar(0.5F)})});
    if (form == 3) y = b.Op("Div", {b.Op("Mul", {sum, x}), b.Scalar(2.0F)});
    b.Output(y);
    EXPECT_THAT(Checked("fuse_gelu", b.Build()), HasOps({"Gelu"}));
  }
}

TEST(FuseGelu, KnowsTheTanhForm) {
  for (const bool cube_by_pow : {true, false}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {3, 4});
    const ValueId cube =
        cube_by_pow ? b.Op("Pow", {x, b.Scalar(3.0F)}) : b.Op("Mul", {b.Op("Mul", {x, x}), x});
    const ValueId inner = b.Op("Add", {x, b.Op("Mul", {cube, b.Scalar(0.044715F)})});
    const ValueId tanh = b.Op("Tanh", {b.Op("Mul", {inner, b.Scalar(0.79788456F)})});
    b.Output(b.Op("Mul", {b.Op("Mul", {x, b.Scalar(0.5F)}), b.Op("Add", {tanh, b.Scalar(1.0F)})}));
    const Graph after = Checked("fuse_gelu", b.Build());
    EXPECT_THAT(after, HasOps({"Gelu"}));
    EXPECT_EQ(*TheOnly(after, "Gelu").attributes.String("approximate", ""), "tanh");
  }
}

TEST(Factorize, VisitsNoMoreThanAProductHas) {
  GraphBuilder b;
  ValueId power = b.Scalar(1.0F);
  for (int i = 0; i < 14; ++i) power = b.Op("Pow", {power, b.Scalar(3.0F)});
  ValueId y = b.Input("x", {1});
  for (int i = 0; i < 1000; ++i) y = b.Op("Mul", {y, power});
  b.Output(y);
  const Graph graph = b.Build();
  // 3^14 visits would have found the constant below.
  EXPECT_FALSE(Factorize(graph, power).factors.empty());
  EXPECT_THAT(AfterPass("fuse_gelu", graph), HasExactly(1000, "Mul"));
}

TEST(FuseGelu, LeavesOtherConstantsAlone) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 4});
  const ValueId sum =
      b.Op("Add", {b.Op("Erf", {b.Op("Div", {x, b.Scalar(1.5F)})}), b.Scalar(1.0F)});
  b.Output(b.Op("Mul", {b.Op("Mul", {x, sum}), b.Scalar(0.5F)}));
  EXPECT_THAT(AfterPass("fuse_gelu", b.Build()), HasNo("Gelu"));
}

TEST(FuseHardSwish, KnowsClipAndHardSigmoidForms) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 4});
  const ValueId clip =
      b.Op("Clip", {b.Op("Add", {x, b.Scalar(3.0F)}), b.Scalar(0.0F), b.Scalar(6.0F)});
  b.Output(b.Op("Div", {b.Op("Mul", {x, clip}), b.Scalar(6.0F)}));
  b.Output(b.Op("Mul", {b.Op("HardSigmoid", {x}, {{"alpha", 1.0F / 6}, {"beta", 0.5F}}), x}));
  EXPECT_THAT(Checked("fuse_hard_swish", b.Build()), HasOps({"HardSwish", "HardSwish"}));
}

TEST(FuseHardSwish, MakesAHardSigmoidOfAGate) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 4});
  const ValueId clip =
      b.Op("Clip", {b.Op("Add", {x, b.Scalar(3.0F)}), b.Scalar(0.0F), b.Scalar(6.0F)});
  b.Output(b.Op("Div", {clip, b.Scalar(6.0F)}));
  EXPECT_THAT(Checked("fuse_hard_swish", b.Build()), HasOps({"HardSigmoid"}));
}

TEST(FuseHardSwish, AsksForBothBoundsOfAClip) {
  for (const bool gate : {false, true}) {
    for (const bool bounded : {true, false}) {
      GraphBuilder b(10);
      const ValueId x = b.Input("x", {3, 4});
      GraphBuilder::Attrs bounds = {{"max", 6.0F}};
      if (bounded) bounds.emplace("min", 0.0F);
      const ValueId clip = b.Op("Clip", {b.Op("Add", {x, b.Scalar(3.0F)})}, bounds);
      b.Output(b.Op("Div", {gate ? clip : b.Op("Mul", {x, clip}), b.Scalar(6.0F)}));
      EXPECT_THAT(Checked("fuse_hard_swish", b.Build()), HasExactly(bounded ? 0 : 1, "Clip"));
    }
  }
}

TEST(FuseSwish, BecomesAPostOpOfTheConvolution) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
  b.Output(b.Op("Mul", {c, b.Op("Sigmoid", {c})}));
  const Graph after = Checked("fuse_swish", b.Build());
  EXPECT_THAT(after, HasOps({"Conv"}));
  ASSERT_EQ(TheOnly(after, "Conv").post_ops.size(), 1U);
  EXPECT_EQ(TheOnly(after, "Conv").post_ops[0], (PostOp{PostOp::Kind::kSwish, 1.0F}));
}

TEST(FuseSwish, StaysWhenSomebodyElseReadsTheConvolution) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
  b.Output(b.Op("Mul", {c, b.Op("Sigmoid", {c})}));
  b.Output(b.Op("Relu", {c}));
  EXPECT_THAT(AfterPass("fuse_swish", b.Build()), HasOps({"Conv", "Sigmoid", "Mul", "Relu"}));
}

TEST(FuseSwish, StaysWhenSomebodyElseReadsTheScaledConvolution) {
  for (const bool relu : {false, true}) {
    GraphBuilder b;
    const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
    const ValueId scaled = b.Op("Mul", {c, b.Scalar(1.702F)});
    b.Output(b.Op("Mul", {c, b.Op("Sigmoid", {scaled})}));
    b.Output(relu ? b.Op("Relu", {scaled}) : scaled);
    const Graph graph = b.Build();
    EXPECT_THAT(Checked("fuse_swish", graph), HasExactly(1, "Sigmoid"));
    EXPECT_TRUE(SameAnswers(graph, Optimised(graph)));
  }
}

TEST(FuseSwish, TakesTheFactorOfTheSigmoid) {
  GraphBuilder b;
  const ValueId c = b.Op("Conv", {b.Input("x", {1, 3, 4, 4}), b.Random({5, 3, 1, 1})});
  const ValueId scaled = b.Op("Div", {b.Op("Mul", {b.Scalar(3.404F), c}), b.Scalar(2.0F)});
  b.Output(b.Op("Mul", {c, b.Op("Sigmoid", {scaled})}));
  const Graph after = Checked("fuse_swish", b.Build());
  EXPECT_THAT(after, HasOps({"Conv"}));
  EXPECT_EQ(TheOnly(after, "Conv").post_ops[0], (PostOp{PostOp::Kind::kSwish, 1.702F}));
}

struct LayerNormForm {
  bool pow = false;
  bool reciprocal = false;
  bool affine = true;
};

Graph WrittenOutLayerNorm(const LayerNormForm& form) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 8});
  const auto mean = [&](ValueId v) {
    return b.Op("ReduceMean", {v}, {{"axes", Ints{-1}}, {"keepdims", int64_t{1}}});
  };
  const ValueId d = b.Op("Sub", {x, mean(x)});
  const ValueId square = form.pow ? b.Op("Pow", {d, b.Scalar(2.0F)}) : b.Op("Mul", {d, d});
  const ValueId root = b.Op("Sqrt", {b.Op("Add", {mean(square), b.Scalar(1e-5F)})});
  ValueId y =
      form.reciprocal ? b.Op("Mul", {d, b.Op("Reciprocal", {root})}) : b.Op("Div", {d, root});
  if (form.affine) y = b.Op("Add", {b.Op("Mul", {y, b.Random({8})}), b.Random({8})});
  b.Output(y);
  return b.Build();
}

TEST(FuseLayerNorm, KnowsTheFormsOfItsParts) {
  EXPECT_THAT(Checked("fuse_layer_norm", WrittenOutLayerNorm({.pow = true})),
              HasOps({"LayerNormalization"}));
  EXPECT_THAT(Checked("fuse_layer_norm", WrittenOutLayerNorm({.reciprocal = true})),
              HasOps({"LayerNormalization"}));
  EXPECT_THAT(Checked("fuse_layer_norm", WrittenOutLayerNorm({.affine = false})),
              HasOps({"LayerNormalization"}));
}

TEST(FuseLayerNorm, LeavesAMeanOverAnotherAxis) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 8});
  const auto mean = [&](ValueId v) {
    return b.Op("ReduceMean", {v}, {{"axes", Ints{1}}, {"keepdims", int64_t{1}}});
  };
  const ValueId d = b.Op("Sub", {x, mean(x)});
  const ValueId root = b.Op("Sqrt", {b.Op("Add", {mean(b.Op("Mul", {d, d})), b.Scalar(1e-5F)})});
  b.Output(b.Op("Div", {d, root}));
  EXPECT_THAT(AfterPass("fuse_layer_norm", b.Build()), HasNo("LayerNormalization"));
}

// A pattern whose constants may be written with more axes than x has: its result has these axes, too, then.
struct Pattern {
  std::string_view pass;
  std::string_view makes;
  ValueId (*build)(GraphBuilder& b, const Shape& one);
};

ValueId ErfForm(GraphBuilder& b, const Shape& one) {
  const auto c = [&](float value) { return b.Constant<float>(one, {value}); };
  const ValueId x = b.Input("x", {2, 3});
  const ValueId erf = b.Op("Erf", {b.Op("Div", {x, c(1.41421356F)})});
  return b.Op("Mul", {b.Op("Mul", {x, b.Op("Add", {erf, c(1)})}), c(0.5F)});
}

ValueId ClipForm(GraphBuilder& b, const Shape& one) {
  const auto c = [&](float value) { return b.Constant<float>(one, {value}); };
  const ValueId x = b.Input("x", {2, 3});
  const ValueId clip = b.Op("Clip", {b.Op("Add", {x, c(3)}), b.Scalar(0.0F), b.Scalar(6.0F)});
  return b.Op("Div", {b.Op("Mul", {x, clip}), c(6)});
}

ValueId GateForm(GraphBuilder& b, const Shape& one) {
  const auto c = [&](float value) { return b.Constant<float>(one, {value}); };
  const ValueId sum = b.Op("Add", {b.Input("x", {2, 3}), c(3)});
  return b.Op("Div", {b.Op("Clip", {sum, b.Scalar(0.0F), b.Scalar(6.0F)}), c(6)});
}

ValueId LayerNormOfEpsilon(GraphBuilder& b, const Shape& one) {
  const ValueId x = b.Input("x", {2, 3});
  const auto mean = [&](ValueId v) { return b.Op("ReduceMean", {v}, {{"axes", Ints{-1}}}); };
  const ValueId d = b.Op("Sub", {x, mean(x)});
  const ValueId epsilon = b.Constant<float>(one, {1e-5F});
  return b.Op("Div", {d, b.Op("Sqrt", {b.Op("Add", {mean(b.Op("Mul", {d, d})), epsilon})})});
}

ValueId SwishOfProduct(GraphBuilder& b, const Shape& one) {
  const ValueId c = b.Op("octet:MatMul", {b.Input("x", {2, 3}), b.Random({3, 4})});
  const ValueId scaled = b.Op("Mul", {c, b.Constant<float>(one, {1.702F})});
  return b.Op("Mul", {c, b.Op("Sigmoid", {scaled})});
}

ValueId DynamicProduct(GraphBuilder& b, const Shape& one) {
  const auto q = b.Ops("DynamicQuantizeLinear", {b.Input("x", {2, 3})}, 3);
  const ValueId w = b.RandomInts(DType::kI8, {3, 4}, -127, 127);
  const ValueId sums = b.Op("MatMulInteger", {q[0], w, q[2], b.Scalar<int8_t>(0)});
  const ValueId reals = b.Op("Cast", {sums}, {{"to", int64_t{1}}});
  return b.Op("Mul", {reals, b.Op("Mul", {q[1], b.Constant<float>(one, {0.01F})})});
}

TEST(PatternTest, KeepsTheAxesThatAConstantAdds) {
  const Pattern patterns[] = {{"fuse_gelu", "Gelu", ErfForm},
                              {"fuse_hard_swish", "HardSwish", ClipForm},
                              {"fuse_hard_swish", "HardSigmoid", GateForm},
                              {"fuse_layer_norm", "LayerNormalization", LayerNormOfEpsilon},
                              {"fuse_swish", "octet:MatMul", SwishOfProduct},
                              {"import_dynamic_quant", "octet:MatMul", DynamicProduct}};
  for (const Pattern& pattern : patterns) {
    SCOPED_TRACE(pattern.makes);
    for (const Shape& one : {Shape{}, Shape{1, 1}, Shape{1, 1, 1}}) {
      GraphBuilder b;
      const ValueId y = pattern.build(b, one);
      b.Output(y);
      const Graph graph = b.Build();
      const bool fuses = one.rank() <= 2;
      const Graph after = Checked(pattern.pass, graph);
      EXPECT_EQ(after.value(after.outputs[0]).shape->rank(), fuses ? 2 : 3);
      if (fuses) {
        EXPECT_THAT(after, HasOps({std::string(pattern.makes).c_str()}));
      } else {
        EXPECT_EQ(OpNames(after), OpNames(graph));
      }
      EXPECT_TRUE(SameAnswers(graph, Optimised(graph), {.rtol = 1e-3F, .atol = 1e-4F}));
    }
  }
}

}  // namespace pattern_test
}  // namespace octet
