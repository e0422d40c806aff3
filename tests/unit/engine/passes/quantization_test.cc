// Integers in a model's operators become typed values, and the answers stay.
#include <array>
#include <limits>
#include <random>

#include "gtest/gtest.h"

#include "engine/ops/reference_step.h"
#include "engine/passes/match.h"
#include "tests/support/graph_builder.h"
#include "tests/unit/engine/passes/typed_graph.h"

namespace octet {
namespace quantization_test {

using testing::IsTyped;
using testing::kOneStep;
using testing::kToTyped;
using testing::Typed;

TEST(ImportQdq, MakesAnInt8ConvolutionOfAGroup) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {1, 3, 6, 6}), 0.02F, 100);
  const ValueId bias =
      b.Op("DequantizeLinear", {b.RandomInts(DType::kI32, {4}, -900, 900), b.Scalar(0.0001F)});
  const ValueId c =
      b.Op("Conv", {x, b.QuantizedWeights({4, 3, 3, 3}, 0), bias}, {{"pads", Ints{1, 1, 1, 1}}});
  b.Output(b.FakeQuantize(b.Op("Relu", {c}), 0.05F, 0));
  const Graph after = Typed(b.Build());
  EXPECT_THAT(after, HasOps({"octet:Convert", "Conv", "octet:Convert"}));
  const Node& conv = TheOnly(after, "Conv");
  EXPECT_TRUE(IsTyped(after, conv.input(0), DType::kU8, 0.02F, 100)) << Dump(after);
  EXPECT_TRUE(IsTyped(after, conv.output(0), DType::kU8, 0.05F, 0)) << Dump(after);
  EXPECT_TRUE(conv.post_ops.empty()) << "storing with zero point 0 is a Relu already";
  const Value& weights = after.value(conv.input(1));
  EXPECT_EQ(weights.dtype, DType::kI8);
  EXPECT_EQ(weights.quant->axis, 0);
  EXPECT_EQ(after.value(conv.input(2)).dtype, DType::kF32);
}

TEST(ImportQdq, ShiftsUnsignedWeights) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, 4}), 0.02F, 128);
  const ValueId w = b.Dequantize(b.RandomInts(DType::kU8, {4, 5}, 0, 255), 0.01F, 128);
  b.Output(b.FakeQuantize(b.Op("MatMul", {x, w}), 0.05F, 128));
  const Graph after = Typed(b.Build());
  EXPECT_THAT(after, HasOps({"octet:Convert", "octet:MatMul", "octet:Convert"}));
  EXPECT_TRUE(IsTyped(after, TheOnly(after, "octet:MatMul").input(1), DType::kI8, 0.01F, 0));
}

TEST(ImportQdq, MultipliesTwoTypedActivations) {
  GraphBuilder b;
  const ValueId q = b.FakeQuantize(b.Input("q", {2, 3, 4}), 0.02F, 120);
  const ValueId k = b.FakeQuantize(b.Input("k", {2, 4, 5}), 0.02F, 130);
  b.Output(b.FakeQuantize(b.Op("MatMul", {q, k}), 0.05F, 128));
  const Graph after = Typed(b.Build());
  EXPECT_THAT(after, HasExactly(3, "octet:Convert"));
  EXPECT_TRUE(IsTyped(after, TheOnly(after, "octet:MatMul").input(1), DType::kU8, 0.02F, 130));
}

TEST(ImportQdq, TypesIntegersThatOnlyMove) {
  GraphBuilder b;
  const ValueId q = b.Quantize(b.Input("x", {1, 4, 6, 6}), 0.02F, 7);
  const auto halves =
      b.Ops("Split",
            {b.Op("MaxPool", {q}, {{"kernel_shape", Ints{2, 2}}, {"strides", Ints{2, 2}}}),
             b.IntList({2, 2})},
            2, {{"axis", int64_t{1}}});
  b.Output(b.Dequantize(halves[0], 0.02F, 7));
  b.Output(halves[1]);
  const Graph after = Typed(b.Build());
  EXPECT_THAT(after, HasOps({"octet:Convert", "MaxPool", "Split", "octet:Convert"}));
  EXPECT_TRUE(IsTyped(after, after.outputs[1], DType::kU8, 0.02F, 7));
}

TEST(ImportQdq, LeavesIntegersThatSomebodyCountsWith) {
  GraphBuilder b;
  const ValueId q = b.Quantize(b.Input("x", {4}), 0.02F, 7);
  b.Output(b.Op("Cast", {q}, {{"to", int64_t{6}}}));
  b.Output(b.Dequantize(q, 0.02F, 7));
  EXPECT_THAT(Typed(b.Build()), HasOps({"QuantizeLinear", "Cast", "DequantizeLinear"}));
}

TEST(ImportQdq, LeavesIntegersThatMeanTwoThings) {
  GraphBuilder b;
  const ValueId q = b.Quantize(b.Input("x", {4}), 0.02F, 7);
  b.Output(b.Dequantize(q, 0.03F, 7));
  EXPECT_THAT(Typed(b.Build()), HasOps({"QuantizeLinear", "DequantizeLinear"}));
}

TEST(ImportQdq, FoldsWeightsThatFloatOperatorsRead) {
  GraphBuilder b;
  b.Output(b.Op("Add", {b.Input("x", {2, 4}), b.QuantizedWeights({4}, 0)}));
  EXPECT_THAT(Typed(b.Build()), HasOps({"Add"}));
}

TEST(FoldConstants, MakesRealsOfWeightsInBlocks) {
  GraphBuilder b(21);
  const ValueId w = b.RandomInts(DType::kI8, {6, 5}, -8, 7);
  const ValueId reals = b.Op("DequantizeLinear", {w, b.Random({2, 5}, 0.1F, 0.5F)},
                             {{"axis", int64_t{0}}, {"block_size", int64_t{4}}});
  b.Output(b.Op("MatMul", {b.Input("x", {3, 6}), reals}));
  // A table larger than what may be made of any constants: no layer multiplies by it.
  const ValueId table = b.RandomInts(DType::kU8, {4096, 160}, 0, 15);
  const ValueId rows = b.Op("DequantizeLinear", {table, b.Random({4096, 5}, 0.1F, 0.5F)},
                            {{"axis", int64_t{1}}, {"block_size", int64_t{32}}});
  b.Output(b.Op("Gather", {rows, b.Input("i", {3}, DType::kI64)}));
  const Graph graph = b.Build();
  const Graph after = AfterPass("fold_constants", graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  EXPECT_THAT(after, HasOps({"MatMul", "Gather"}));
}

TEST(ImportQLinear, KnowsConvolution) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 4, 5, 5}, DType::kU8);
  const ValueId w = b.RandomInts(DType::kI8, {6, 2, 3, 3}, -127, 127);
  const ValueId y =
      b.Op("QLinearConv",
           {x, b.Scalar(0.02F), b.Scalar<uint8_t>(114), w, b.Random({6}, 0.002F, 0.01F),
            b.RandomInts(DType::kI8, {6}, 0, 0), b.Scalar(0.05F), b.Scalar<uint8_t>(120),
            b.RandomInts(DType::kI32, {6}, -500, 500)},
           {{"group", int64_t{2}}, {"pads", Ints{1, 1, 1, 1}}});
  b.Output(y);
  EXPECT_THAT(Typed(b.Build()), HasOps({"Conv"}));
}

TEST(ImportQLinear, KnowsMatrixProducts) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 4}, DType::kU8);
  const ValueId y =
      b.Op("QLinearMatMul",
           {x, b.Scalar(0.02F), b.Scalar<uint8_t>(3), b.RandomInts(DType::kI8, {4, 5}, -127, 127),
            b.Scalar(0.01F), b.Scalar<int8_t>(0), b.Scalar(0.05F), b.Scalar<uint8_t>(7)});
  b.Output(
      b.Op("com.microsoft:QGemm",
           {y, b.Scalar(0.05F), b.Scalar<uint8_t>(7), b.RandomInts(DType::kI8, {6, 5}, -127, 127),
            b.Random({6}, 0.002F, 0.01F), b.RandomInts(DType::kI8, {6}, 0, 0),
            b.RandomInts(DType::kI32, {6}, -99, 99), b.Scalar(0.05F), b.Scalar<uint8_t>(128)},
           {{"transB", int64_t{1}}}));
  EXPECT_THAT(Typed(b.Build()), HasOps({"octet:MatMul", "octet:MatMul"}));
}

// u8 [m, 4] x i8 [4, 5] of one scale, with scales and zero points of A's in this shape.
Graph ProductOfScaledRows(int64_t m, const Shape& scales) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {m, 4}, DType::kU8);
  b.Output(b.Op("QLinearMatMul",
                {x, b.Random(scales, 0.002F, 0.05F), b.RandomInts(DType::kU8, scales, 0, 255),
                 b.RandomInts(DType::kI8, {4, 5}, -127, 127), b.Scalar(0.01F), b.Scalar<int8_t>(0),
                 b.Scalar(0.05F), b.Scalar<uint8_t>(128)}));
  return b.Build();
}

TEST(ImportQLinear, ScalesEveryRowOfTheLeftSide) {
  for (const int64_t m : {3, 4})
    EXPECT_THAT(Typed(ProductOfScaledRows(m, {m})), HasNo("QLinearMatMul"));
  GraphBuilder b;
  const ValueId identity = b.Constant<int8_t>({2, 2}, {1, 0, 0, 1});
  b.Output(b.Op("QLinearMatMul", {b.Input("x", {2, 2}, DType::kU8), b.Constant<float>({2}, {1, 10}),
                                  b.Constant<uint8_t>({2}, {0, 0}), identity, b.Scalar(1.0F),
                                  b.Scalar<int8_t>(0), b.Scalar(1.0F), b.Scalar<uint8_t>(0)}));
  const Tensor ones = Tensor::From<uint8_t>({2, 2}, {1, 1, 1, 1});
  const auto y = Evaluate(AfterPasses(kToTyped, b.Build()), std::vector<Tensor>{ones});
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_THAT(y->front().span<uint8_t>(), ::testing::ElementsAre(1, 1, 10, 10));
}

TEST(ImportQLinear, LeavesScalesThatDequantizeLinearDoesNotTake) {
  EXPECT_THAT(Typed(ProductOfScaledRows(3, {3, 1})), HasOps({"QLinearMatMul"}));
  EXPECT_THAT(AfterPasses(kToTyped, ProductOfScaledRows(3, {2})), HasOps({"QLinearMatMul"}));
  EXPECT_THAT(Typed(ProductOfScaledRows(3, {1, 1})), HasOps({"QLinearMatMul"}));
}

TEST(ImportQLinear, RepeatsAScaleOrAZeroPointThatIsOneForAll) {
  for (const bool one_zero : {true, false}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {1, 3, 4, 4}, DType::kU8);
    const Shape one = {};
    const Shape all = {5};
    b.Output(b.Op("QLinearConv", {x, b.Scalar(0.02F), b.Scalar<uint8_t>(114),
                                  b.RandomInts(DType::kI8, {5, 3, 1, 1}, -127, 127),
                                  b.Random(one_zero ? all : one, 0.002F, 0.01F),
                                  b.RandomInts(DType::kI8, one_zero ? one : all, 0, 0),
                                  b.Scalar(0.05F), b.Scalar<uint8_t>(120)}));
    EXPECT_THAT(Typed(b.Build()), HasOps({"Conv"}));
  }
}

TEST(ImportQLinear, LeavesABiasThatColumnScalesDoNotRunAlong) {
  for (const bool row : {true, false}) {
    GraphBuilder b;
    const ValueId c = b.RandomInts(DType::kI32, row ? Shape{1, 3} : Shape{3, 1}, -20000, 20000);
    b.Output(b.Op(
        "com.microsoft:QGemm",
        {b.Input("x", {3, 4}, DType::kU8), b.Scalar(0.02F), b.Scalar<uint8_t>(128),
         b.RandomInts(DType::kI8, {4, 3}, -127, 127), b.Constant<float>({3}, {0.01F, 0.02F, 0.04F}),
         b.RandomInts(DType::kI8, {3}, 0, 0), c, b.Scalar(0.5F), b.Scalar<uint8_t>(128)}));
    EXPECT_THAT(Typed(b.Build()), HasExactly(row ? 0 : 1, "com.microsoft:QGemm"));
  }
}

TEST(ImportQLinear, AsksForTheRankThatScalesOfColumnsCountFrom) {
  for (const bool known : {false, true}) {
    GraphBuilder b;
    const ValueId w = b.Input("w", {4, 5}, DType::kI8);
    b.Output(b.Op("QLinearMatMul",
                  {b.Input("x", {3, 4}, DType::kU8), b.Scalar(0.02F), b.Scalar<uint8_t>(3), w,
                   b.Random({5}, 0.002F, 0.01F), b.RandomInts(DType::kI8, {5}, 0, 0),
                   b.Scalar(0.05F), b.Scalar<uint8_t>(7)}));
    Graph graph = b.Build();
    if (!known) graph.mutable_value(w).shape.reset();
    EXPECT_THAT(AfterPasses(kToTyped, graph), HasExactly(known ? 0 : 1, "QLinearMatMul"));
    EXPECT_TRUE(!known || SameAnswers(graph, AfterPasses(kToTyped, graph), kOneStep));
  }
}

TEST(ImportQLinear, KnowsTheElementwiseOperators) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 4, 5, 5}, DType::kU8);
  const ValueId s = b.Scalar(0.02F);
  const ValueId z = b.Scalar<uint8_t>(100);
  const ValueId t = b.Scalar(0.03F);
  ValueId y = b.Op("com.microsoft:QLinearAdd", {x, s, z, x, s, z, t, z});
  y = b.Op("com.microsoft:QLinearMul", {y, t, z, x, s, z, s, z});
  y = b.Op("com.microsoft:QLinearLeakyRelu", {y, s, z, t, z}, {{"alpha", 0.1F}});
  y = b.Op("com.microsoft:QLinearSigmoid", {y, t, z, s, z});
  y = b.Op("com.microsoft:QLinearConcat", {t, z, y, s, z, x, s, z}, {{"axis", int64_t{1}}});
  b.Output(b.Op("com.microsoft:QLinearGlobalAveragePool", {y, t, z, s, z}));
  b.Output(
      b.Op("com.microsoft:QLinearAveragePool", {y, t, z, s, z}, {{"kernel_shape", Ints{2, 2}}}));
  EXPECT_THAT(
      Typed(b.Build(), {.steps = 2}),
      HasOps({"Add", "Mul", "LeakyRelu", "Sigmoid", "Concat", "GlobalAveragePool", "AveragePool"}));
}

TEST(ImportQLinear, KeepsSignedResultsSignedWithoutZeroPoint) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 4, 5, 5}, DType::kI8);
  const ValueId s = b.Scalar(0.02F);
  b.Output(b.Op("com.microsoft:QLinearSigmoid", {x, s, b.Scalar<int8_t>(3), s}));
  EXPECT_THAT(Typed(b.Build(), {.steps = 1}), HasOps({"Sigmoid"}));
}

// x -> DynamicQuantizeLinear -> integer product -> Cast -> Mul -> Add, as ONNX Runtime's quantizer writes it.
Graph DynamicProduct(bool conv, bool unsigned_weights) {
  GraphBuilder b;
  const ValueId x = b.Input("x", conv ? Shape{1, 3, 5, 5} : Shape{4, 6});
  const auto q = b.Ops("DynamicQuantizeLinear", {x}, 3);
  const Shape shape = conv ? Shape{4, 3, 3, 3} : Shape{6, 4};
  const ValueId w = unsigned_weights ? b.RandomInts(DType::kU8, shape, 1, 255)
                                     : b.RandomInts(DType::kI8, shape, -127, 127);
  const ValueId zero = unsigned_weights ? b.Scalar<uint8_t>(128) : b.Scalar<int8_t>(0);
  const ValueId sums = b.Op(conv ? "ConvInteger" : "MatMulInteger", {q[0], w, q[2], zero});
  const ValueId reals = b.Op("Cast", {sums}, {{"to", int64_t{1}}});
  const ValueId scales = b.Random(conv ? Shape{4, 1, 1} : Shape{4}, 0.002F, 0.01F);
  const ValueId y = b.Op("Mul", {reals, b.Op("Mul", {q[1], scales})});
  b.Output(b.Op("Add", {y, b.Random(conv ? Shape{4, 1, 1} : Shape{4})}));
  return b.Build();
}

TEST(ImportDynamicQuant, MakesOneNodeOfAChain) {
  for (const bool conv : {false, true}) {
    for (const bool unsigned_weights : {false, true}) {
      SCOPED_TRACE(conv);
      const Graph graph = DynamicProduct(conv, unsigned_weights);
      const Graph after =
          AfterPasses({"fold_constants", "import_dynamic_quant", "fuse_bias"}, graph);
      EXPECT_TRUE(SameAnswers(graph, after));
      const char* op = conv ? "Conv" : "octet:MatMul";
      EXPECT_THAT(after, HasOps({op}));
      const Node& mac = TheOnly(after, op);
      EXPECT_EQ(mac.attributes.IntOr("dynamic_quant", 0), 1);
      EXPECT_EQ(after.value(mac.input(1)).dtype, DType::kI8);
      EXPECT_EQ(after.value(mac.input(1)).quant->axis, conv ? 0 : 1);
    }
  }
}

// ---- Zero points of weights

// Integers over the whole range of T in each channel, so that no zero point but the middle fits I8.
template <typename T>
ValueId WideIntegers(GraphBuilder& b, const Shape& shape) {
  constexpr DType kType = DTypeOf<T>;
  std::vector<T> integers(static_cast<size_t>(shape.elements()));
  std::mt19937 random(TestSeed());
  const IntRange range = RangeOf(kType);
  std::uniform_int_distribution<int> uniform(range.min, range.max);
  for (T& q : integers) q = static_cast<T>(uniform(random));
  // Rows and columns alike have both ends.
  const int64_t last = shape.elements(1, shape.rank());
  for (int64_t row = 0; row < shape[0]; ++row) {
    integers[static_cast<size_t>(row * last + row % last)] = static_cast<T>(range.min);
    integers[static_cast<size_t>(row * last + (row + 1) % last)] = static_cast<T>(range.max);
  }
  return b.Constant<T>(shape, std::move(integers));
}

void ExpectInt8Products(const Graph& graph, int count) {
  int found = 0;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (!IsMac(node)) continue;
    ++found;
    const Value& weights = graph.value(node.input(1));
    EXPECT_EQ(weights.dtype, DType::kI8) << Dump(graph);
    EXPECT_TRUE(weights.quant && weights.quant->symmetric()) << Dump(graph);
  }
  EXPECT_EQ(found, count) << Dump(graph);
}

// As a kernel computes it, whatever the layout.
void ExpectSplit(const Graph& graph, int products) {
  ExpectInt8Products(Typed(graph), products);
  const Graph whole = Optimised(graph);
  ExpectInt8Products(whole, products);
  EXPECT_TRUE(SameAnswers(graph, whole, kOneStep));
}

template <typename T>
Graph ProductOfWideIntegers(T zero_point, bool quantized_result, int64_t columns = 5) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {3, 6}), 0.02F, 100);
  const ValueId w = b.Op("DequantizeLinear", {WideIntegers<T>(b, {6, columns}), b.Scalar(0.01F),
                                              b.Scalar<T>(zero_point)});
  const ValueId y = b.Op("Relu", {b.Op("Gemm", {x, w, b.Random({columns})})});
  b.Output(quantized_result ? b.FakeQuantize(y, 0.05F, 3) : y);
  return b.Build();
}

TEST(SplitZeroPoints, OfAProduct) {
  for (const bool quantized : {false, true}) {
    for (const uint8_t zero_point : {0, 1, 100, 129, 255}) {
      SCOPED_TRACE(static_cast<int>(zero_point));
      ExpectSplit(ProductOfWideIntegers<uint8_t>(zero_point, quantized), 2);
    }
    for (const int8_t zero_point : {-128, -1, 3, 127}) {
      SCOPED_TRACE(static_cast<int>(zero_point));
      ExpectSplit(ProductOfWideIntegers<int8_t>(zero_point, quantized), 2);
    }
    ExpectSplit(ProductOfWideIntegers<uint8_t>(128, quantized), 1);
    ExpectSplit(ProductOfWideIntegers<int8_t>(0, quantized), 1);
  }
}

TEST(SplitZeroPoints, OneSumServesManyChannelsAndIsAddedFirst) {
  const Graph graph = ProductOfWideIntegers<uint8_t>(100, true, 20);
  ExpectSplit(graph, 2);
  const Graph after = Typed(graph);
  EXPECT_THAT(after,
              HasOps({"octet:Convert", "octet:MatMul", "Mul", "octet:MatMul", "octet:Convert"}));
  const Node& sums = after.node(after.order()[1]);
  const Node& product = after.node(after.order()[3]);
  EXPECT_EQ(after.value(sums.output(0)).shape, (Shape{3, 1}));
  EXPECT_EQ(sums.input(0), product.input(0));
  ASSERT_EQ(product.post_ops.size(), 2U);
  EXPECT_EQ(product.post_ops[0].kind, PostOp::Kind::kAdd);
  const ValueId operand = product.input(static_cast<size_t>(product.post_ops[0].operand));
  EXPECT_EQ(operand, TheOnly(after, "Mul").output(0));
  // An operand that repeats along the channels has no int8 kernel.
  EXPECT_EQ(after.value(operand).shape, (Shape{3, 20}));
  EXPECT_EQ(product.post_ops[1].kind, PostOp::Kind::kRelu);
}

TEST(SplitZeroPoints, AProductKeepsTheOneThatItsKernelTakes) {
  const Graph graph = ProductOfWideIntegers<uint8_t>(100, true);
  PassContext context;
  context.target.int8_exact = true;
  const Graph after = AfterPasses(kToTyped, graph, context);
  EXPECT_TRUE(IsTyped(after, TheOnly(after, "octet:MatMul").input(1), DType::kI8, 0.01F, -28));
  EXPECT_TRUE(SameAnswers(graph, after, kOneStep));
}

TEST(SplitZeroPoints, TakesOffWhatLeavesIntegersThatFit) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {3, 6}), 0.02F, 100);
  const ValueId w = b.Dequantize(b.RandomInts(DType::kU8, {6, 5}, 0, 200), 0.01F, 80);
  b.Output(b.Op("MatMul", {x, w}));
  ExpectSplit(b.Build(), 1);
}

// Zero points per output channel; the first is that of I8. Pads are zeros: a window beyond the border has a smaller sum.
Graph ConvOfWideIntegers(int64_t groups, int64_t channels_of_group, bool equal,
                         int64_t channels = 4) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {2, groups * channels_of_group, 6, 5}), 0.02F, 37);
  const ValueId integers = WideIntegers<uint8_t>(b, {channels, channels_of_group, 3, 3});
  std::vector<uint8_t> zeros;
  for (int64_t c = 0; c < channels; ++c)
    zeros.push_back(equal ? 90
                          : std::array<uint8_t, 4>{128, 0, 255, 90}[static_cast<size_t>(c % 4)]);
  const ValueId w =
      b.Op("DequantizeLinear",
           {integers, b.Random({channels}, 0.001F, 0.01F), b.Constant<uint8_t>({channels}, zeros)},
           {{"axis", int64_t{0}}});
  const ValueId c = b.Op("Conv", {x, w, b.Random({channels})},
                         {{"pads", Ints{1, 0, 2, 1}}, {"strides", Ints{2, 1}}, {"group", groups}});
  b.Output(b.FakeQuantize(b.Op("Relu", {c}), 0.05F, 0));
  return b.Build();
}

TEST(SplitZeroPoints, OfAConvolution) {
  for (const bool equal : {false, true}) {
    SCOPED_TRACE(equal);
    ExpectSplit(ConvOfWideIntegers(1, 3, equal), 2);
    ExpectSplit(ConvOfWideIntegers(1, 3, equal, 20), 2);
    ExpectSplit(ConvOfWideIntegers(2, 3, equal), 2);
    ExpectSplit(ConvOfWideIntegers(4, 1, equal), 2);
  }
}

// Its output channels lie on axis 1 of the weights in the file; one width is as large as there are channels.
TEST(SplitZeroPoints, OfATransposedConvolution) {
  constexpr int64_t kChannels = 20;
  for (const int64_t width : {int64_t{5}, kChannels - 2}) {
    SCOPED_TRACE(width);
    GraphBuilder b;
    const ValueId x = b.FakeQuantize(b.Input("x", {2, 3, 4, width}), 0.02F, 37);
    std::vector<uint8_t> zeros;
    for (size_t c = 0; c < kChannels; ++c)
      zeros.push_back(std::array<uint8_t, 4>{128, 0, 255, 90}[c % 4]);
    const ValueId w =
        b.Op("DequantizeLinear",
             {WideIntegers<uint8_t>(b, {3, kChannels, 3, 3}), b.Random({kChannels}, 0.001F, 0.01F),
              b.Constant<uint8_t>({kChannels}, zeros)},
             {{"axis", int64_t{1}}});
    b.Output(b.FakeQuantize(b.Op("ConvTranspose", {x, w, b.Random({kChannels})}), 0.05F, 100));
    const Graph graph = b.Build();
    const Graph after = Optimised(graph);
    ExpectInt8Products(after, 2);
    EXPECT_TRUE(SameAnswers(graph, after, kOneStep));
  }
}

TEST(SplitZeroPoints, OfWhatIsQuantizedWhenItRuns) {
  for (const bool conv : {false, true}) {
    for (const bool per_channel : {false, true}) {
      SCOPED_TRACE(conv);
      GraphBuilder b;
      const auto q =
          b.Ops("DynamicQuantizeLinear", {b.Input("x", conv ? Shape{1, 3, 5, 5} : Shape{4, 6})}, 3);
      const ValueId w = WideIntegers<uint8_t>(b, conv ? Shape{4, 3, 3, 3} : Shape{6, 4});
      const ValueId zero =
          per_channel ? b.Constant<uint8_t>({4}, {0, 128, 140, 255}) : b.Scalar<uint8_t>(117);
      const ValueId sums =
          b.Op(conv ? "ConvInteger" : "MatMulInteger", {q[0], w, q[2], zero},
               conv ? GraphBuilder::Attrs{{"pads", Ints{1, 1, 1, 1}}} : GraphBuilder::Attrs{});
      const ValueId reals = b.Op("Cast", {sums}, {{"to", int64_t{1}}});
      const ValueId y = b.Op("Mul", {reals, b.Op("Mul", {q[1], b.Scalar(0.004F)})});
      b.Output(b.Op("Relu", {b.Op("Add", {y, b.Random(conv ? Shape{4, 1, 1} : Shape{4})})}));
      const Graph graph = b.Build();
      const Graph after = Optimised(graph);
      ExpectInt8Products(after, 2);
      for (const NodeId id : after.order()) {
        const Node& node = after.node(id);
        if (node.is("Conv") || node.is("MatMul", kOctetDomain)) {
          EXPECT_EQ(node.attributes.IntOr("dynamic_quant", 0), 1);
        }
      }
      EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 1e-4F, .atol = 1e-4F}));
    }
  }
}

TEST(SplitZeroPoints, RecurrentLayersKeepSuchWeightsInFloat) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 1, 4});
  const auto weights = [&](Shape shape) {
    return b.Dequantize(WideIntegers<uint8_t>(b, shape), 0.01F, 100);
  };
  const auto y =
      b.Ops("RNN", {x, weights({1, 5, 4}), weights({1, 5, 5})}, 1, {{"hidden_size", int64_t{5}}});
  b.Output(y[0]);
  PassContext context;
  context.precision = Precision::kInt8Dynamic;
  const Graph after = Optimised(b.Build(), context);
  EXPECT_EQ(after.value(TheOnly(after, "RNN").input(1)).dtype, DType::kF32) << Dump(after);
}

TEST(ImportDynamicQuant, LeavesFactorsThatAreNoScales) {
  for (const float factor : {-0.002F, 0.0F, std::numeric_limits<float>::infinity()}) {
    GraphBuilder b;
    const auto q = b.Ops("DynamicQuantizeLinear", {b.Input("x", {4, 6})}, 3);
    const ValueId w = b.RandomInts(DType::kI8, {6, 4}, -127, 127);
    const ValueId sums = b.Op("MatMulInteger", {q[0], w, q[2], b.Scalar<int8_t>(0)});
    const ValueId reals = b.Op("Cast", {sums}, {{"to", int64_t{1}}});
    b.Output(b.Op("Mul", {reals, b.Op("Mul", {q[1], b.Scalar(factor)})}));
    EXPECT_THAT(AfterPass("import_dynamic_quant", b.Build()), HasNo("octet:MatMul"));
  }
}

TEST(ImportDynamicQuant, KnowsTheDequantizedForm) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 5, 5});
  const auto q = b.Ops("DynamicQuantizeLinear", {x}, 3);
  const ValueId reals = b.Op("DequantizeLinear", {q[0], q[1], q[2]});
  b.Output(b.Op("Conv", {reals, b.QuantizedWeights({4, 3, 3, 3}, 0), b.Random({4})}));
  const Graph graph = b.Build();
  const Graph after = AfterPass("import_dynamic_quant", graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  EXPECT_THAT(after, HasOps({"Conv"}));
}

TEST(ImportDynamicQuant, LeavesWhatDoesNotFit) {
  GraphBuilder b;
  const auto q = b.Ops("DynamicQuantizeLinear", {b.Input("x", {4, 6})}, 3);
  const ValueId w = b.RandomInts(DType::kU8, {6, 4}, 0, 255);
  b.Output(b.Op("MatMulInteger", {q[0], w, q[2], b.Scalar<uint8_t>(100)}));
  EXPECT_THAT(AfterPass("import_dynamic_quant", b.Build()),
              HasOps({"DynamicQuantizeLinear", "MatMulInteger"}));
}

// As an activation was before extents became known: what cross attention slices out of its weights, quantized with a zero point.
TEST(SplitZeroPoints, MakesI8OfWeightsThatWereAnActivation) {
  GraphBuilder b;
  const ValueId x = b.TypedInput("x", {3, 8}, DType::kU8, QuantParams::PerTensor(0.02F, 90));
  const ValueId w =
      b.Convert(b.Random({8, 4}), DType::kU8, QuantParams::PerTensor(1.0F / 128, 128));
  b.Output(b.Op("octet:MatMul", {x, w}));
  const Graph graph = b.Build();
  const Graph after = AfterPasses({"fold_constants", "split_zero_points"}, graph);
  EXPECT_EQ(after.value(TheOnly(after, "octet:MatMul").input(1)).dtype, DType::kI8) << Dump(after);
  EXPECT_TRUE(SameAnswers(graph, after));
}

}  // namespace quantization_test
}  // namespace octet
