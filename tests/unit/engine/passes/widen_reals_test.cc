// Models of FLOAT16 and BFLOAT16 are F32 inside, and answer in the type that they declare.
#include <cmath>

#include "gtest/gtest.h"

#include "engine/ops/reference_step.h"
#include "engine/tensor/quantize.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace widen_reals_test {

constexpr int64_t kOnnxHalf = 10;
constexpr int64_t kOnnxBFloat = 16;
// Of what F16 rounds between two operators.
constexpr Tolerance kHalfRounds{.rtol = 0.01F, .atol = 0.02F};
constexpr Tolerance kBFloatRounds{.rtol = 0.1F, .atol = 0.15F};

template <typename T>
ValueId RandomConstant(GraphBuilder& b, Shape shape, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<T> elements(static_cast<size_t>(shape.elements()));
  for (T& e : elements) {
    if constexpr (std::is_same_v<T, Half>) {
      e = ToHalf(uniform(random));
    } else {
      e = ToBFloat16(uniform(random));
    }
  }
  return b.Constant<T>(std::move(shape), std::move(elements));
}

// Conv, BatchNormalization, Relu, MaxPool, Gemm, Softmax: all of T.
template <typename T>
Graph Network() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 3, 8, 8}, DTypeOf<T>);
  ValueId v =
      b.Op("Conv", {x, RandomConstant<T>(b, {4, 3, 3, 3}, 1), RandomConstant<T>(b, {4}, 2)});
  v = b.Op("Mul", {v, RandomConstant<T>(b, {4, 1, 1}, 3)});
  v = b.Op("MaxPool", {b.Op("Relu", {v})}, {{"kernel_shape", Ints{2, 2}}});
  v = b.Op("Gemm",
           {b.Op("Flatten", {v}), RandomConstant<T>(b, {100, 5}, 4), RandomConstant<T>(b, {5}, 5)});
  b.Output(b.Op("Softmax", {v}), "y");
  return b.Build();
}

// Values inside that are not F32: between graph inputs, constants, outputs and the Converts behind and before them.
std::vector<std::string> NarrowInside(const Graph& graph) {
  std::vector<std::string> names;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.is("Convert", kOctetDomain)) continue;
    for (const auto& list : {node.inputs, node.outputs}) {
      for (const ValueId v : list) {
        const DType dtype = v == kNone ? DType::kF32 : graph.value(v).dtype;
        if (dtype == DType::kF16 || dtype == DType::kBF16) names.push_back(graph.value(v).name);
      }
    }
  }
  return names;
}

Graph WidenedAlike(const Graph& graph, const Tolerance& tolerance = kHalfRounds) {
  Graph after = AfterPass("widen_reals", graph);
  EXPECT_THAT(NarrowInside(after), ::testing::IsEmpty()) << Dump(after);
  EXPECT_TRUE(SameAnswers(graph, after, tolerance));
  EXPECT_EQ(Dump(AfterPass("widen_reals", after)), Dump(after)) << "a second run changes something";
  EXPECT_TRUE(SameAnswers(graph, Optimised(graph), tolerance));
  return after;
}

TEST(WidenReals, KeepsTheTypesOfInputsAndOutputsAlone) {
  const Graph half = WidenedAlike(Network<Half>());
  EXPECT_EQ(half.value(half.inputs[0]).dtype, DType::kF16);
  EXPECT_EQ(half.value(half.outputs[0]).dtype, DType::kF16);
  EXPECT_EQ(half.value(half.outputs[0]).name, "y");
  EXPECT_THAT(half, HasExactly(2, "octet:Convert"));
  const Graph brain = WidenedAlike(Network<BFloat16>(), kBFloatRounds);
  EXPECT_EQ(brain.value(brain.inputs[0]).dtype, DType::kBF16);
  EXPECT_EQ(brain.value(brain.outputs[0]).dtype, DType::kBF16);
}

TEST(WidenReals, LetsTheOtherPassesFuse) {
  EXPECT_THAT(Optimised(Network<Half>()),
              HasOps({"Transpose", "octet:Convert", "Conv", "MaxPool", "Reshape", "octet:MatMul",
                      "Softmax", "octet:Convert"}));
}

TEST(WidenReals, MultipliesInBf16WhereThatIsAskedFor) {
  PassContext context;
  context.target.bf16 = true;
  for (const Precision precision : {Precision::kFp16, Precision::kBf16}) {
    context.precision = precision;
    const Graph after = Optimised(Network<Half>(), context);
    EXPECT_TRUE(SameAnswers(Network<Half>(), after, kBFloatRounds));
    for (const char* op : {"Conv", "octet:MatMul"}) {
      const Node& mac = TheOnly(after, op);
      EXPECT_EQ(after.value(mac.input(0)).dtype, DType::kBF16) << Dump(after);
      EXPECT_EQ(after.value(mac.input(1)).dtype, DType::kBF16) << Dump(after);
    }
    // What lower_bf16 stores in 16 bits is no declared type.
    EXPECT_EQ(Dump(Optimised(after, context)), Dump(after)) << "a second run changes something";
  }
}

// As converters leave a model whose inputs and outputs stay FLOAT.
TEST(WidenReals, DropsCastsBetweenReals) {
  GraphBuilder b;
  const ValueId x = b.Op("Cast", {b.Input("x", {1, 3, 6, 6})}, {{"to", kOnnxHalf}});
  const ValueId c = b.Op("Conv", {x, RandomConstant<Half>(b, {4, 3, 3, 3}, 1)});
  const ValueId wide = b.Op("Exp", {b.Op("Cast", {c}, {{"to", int64_t{1}}})});
  const ValueId like = b.Opset(15).Op("CastLike", {wide, c});
  b.Output(b.Op("Cast", {b.Op("Relu", {like})}, {{"to", int64_t{1}}}));
  EXPECT_THAT(WidenedAlike(b.Build()), HasOps({"Conv", "Exp", "Relu"}));
}

TEST(WidenReals, KeepsCastsFromAndToIntegers) {
  GraphBuilder b;
  const ValueId x = b.Op("Cast", {b.Input("x", {4}, DType::kI64)}, {{"to", kOnnxHalf}});
  const ValueId y = b.Op("Mul", {x, b.Scalar(ToHalf(3))});
  b.Output(b.Op("Cast", {y}, {{"to", int64_t{7}}}));
  b.Output(b.Op("Cast", {y}, {{"to", kOnnxBFloat}}));
  EXPECT_THAT(WidenedAlike(b.Build()), HasOps({"Cast", "Mul", "octet:Convert", "Cast"}));
}

TEST(WidenReals, KnowsOperatorsWhoseTypeIsAnAttribute) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 3}, DType::kF16);
  const Tensor two = Tensor::Scalar(ToHalf(2));
  const Tensor three = Tensor::From<Half>(Shape{1}, std::vector<Half>{ToHalf(3)});
  const ValueId shape = b.IntList({3, 3});
  const ValueId filled = b.Op("ConstantOfShape", {shape}, {{"value", three}});
  const ValueId eye = b.Op("EyeLike", {x}, {{"dtype", kOnnxHalf}});
  const ValueId constant = b.Op("Constant", {}, {{"value", two}});
  const ValueId window =
      b.Opset(17).Op("HannWindow", {b.Scalar<int64_t>(3)}, {{"output_datatype", kOnnxHalf}});
  b.Output(b.Op("Sum", {x, filled, eye, constant, window}));
  WidenedAlike(b.Build());
}

TEST(WidenReals, ReadsWhatTheGraphAnswersBeforeItIsRounded) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 4}, DType::kF16);
  const ValueId y = b.Op("MatMul", {x, RandomConstant<Half>(b, {4, 4}, 1)});
  b.Output(y, "y");
  b.Output(b.Op("Relu", {y}), "z");
  b.Output(x, "x");
  const Graph after = WidenedAlike(b.Build());
  EXPECT_EQ(after.node(after.producer(TheOnly(after, "Relu").input(0))).op, "MatMul");
}

TEST(WidenReals, TakesTwoOutputsAndAbsentSlots) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 6}, DType::kF16);
  const auto top = b.Ops("TopK", {x, b.IntList({2})}, 2);
  const auto clipped = b.Op("Clip", {top[0], kNone, b.Scalar(ToHalf(1))});
  b.Output(clipped);
  b.Output(top[1]);
  WidenedAlike(b.Build());
}

TEST(WidenReals, WhatOverflowsInsideStaysFinite) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2}, DType::kF16);
  const ValueId large = b.Op("Mul", {x, b.Scalar(ToHalf(60000))});
  b.Output(b.Op("Div", {large, b.Scalar(ToHalf(60000))}));
  b.Output(large);
  const Graph after = AfterPass("widen_reals", b.Build());
  const std::vector<Half> two = {ToHalf(2), ToHalf(-2)};
  const auto answers = Evaluate(after, std::vector<Tensor>{Tensor::From<Half>(Shape{2}, two)});
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_EQ(ToFloat((*answers)[0].span<Half>()[0]), 2);
  EXPECT_TRUE(std::isinf(ToFloat((*answers)[1].span<Half>()[1])))
      << "what is stored in F16 overflows";
}

TEST(WidenReals, ScalesOfIntegersAreRealsToo) {
  GraphBuilder b(19);
  const ValueId x = b.Input("x", {2, 4}, DType::kF16);
  const ValueId scale = b.Scalar(ToHalf(0.03125F));
  const ValueId zero = b.Scalar<uint8_t>(128);
  const auto fake = [&](ValueId v) {
    return b.Op("DequantizeLinear", {b.Op("QuantizeLinear", {v, scale, zero}), scale, zero});
  };
  const ValueId w = b.Op("DequantizeLinear", {b.RandomInts(DType::kI8, {4, 5}, -127, 127),
                                              b.Scalar(ToHalf(0.0078125F))});
  b.Output(fake(b.Op("MatMul", {fake(x), w})));
  const Graph graph = b.Build();
  PassContext context;
  context.precision = Precision::kInt8;
  const Graph after = Optimised(graph, context);
  const Node& mac = TheOnly(after, "octet:MatMul");
  EXPECT_EQ(after.value(mac.input(0)).dtype, DType::kU8) << Dump(after);
  EXPECT_EQ(after.value(mac.input(1)).dtype, DType::kI8) << Dump(after);
  EXPECT_EQ(after.value(mac.output(0)).dtype, DType::kU8) << Dump(after);
  EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 0, .atol = 0.0313F}));
}

}  // namespace widen_reals_test
}  // namespace octet
