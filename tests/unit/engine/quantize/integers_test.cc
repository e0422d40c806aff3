// Static and dynamic int8: what the written graphs look like, and that they answer like the original.
#include <algorithm>
#include <cmath>
#include <format>
#include <limits>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/onnx/onnx_file.h"
#include "engine/ops/reference_step.h"
#include "engine/quantize/quantizer.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace integers_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

CalibrationSet SamplesFor(const Graph& graph, int64_t count) {
  CalibrationSet set;
  for (const ValueId id : graph.inputs) {
    const Value& value = graph.value(id);
    Shape shape = *value.shape;
    shape[0] = count;
    Tensor samples(DType::kF32, shape);
    float phase = 0;
    for (float& f : samples.mutable_span<float>()) f = 2 * std::sin(phase += 0.37F);
    set.emplace(value.name, std::move(samples));
  }
  return set;
}

QuantizeResult Quantized(const Graph& graph, const QuantizeRecipe& recipe) {
  auto result = Quantize(graph, recipe, SamplesFor(graph, 16), {});
  if (!result.ok()) {
    ADD_FAILURE() << result.status();
    return {};
  }
  EXPECT_TRUE(Verify(result->graph).ok());
  return *std::move(result);
}

// Signal to quantization noise of the first output, in decibels, on the calibration samples.
double Sqnr(const Graph& fp32, const Graph& quantized, int64_t count = 16) {
  std::vector<Tensor> inputs;
  for (auto& [name, tensor] : SamplesFor(fp32, count)) inputs.push_back(tensor);
  const auto expected = Evaluate(WithUnknownExtents(fp32, count), inputs);
  const auto got = Evaluate(WithUnknownExtents(quantized, count), inputs);
  EXPECT_TRUE(expected.ok()) << expected.status();
  EXPECT_TRUE(got.ok()) << got.status();
  if (!expected.ok() || !got.ok()) return 0;
  double signal = 0;
  double noise = 1e-30;
  const auto want = expected->front().span<float>();
  const auto have = got->front().span<float>();
  for (size_t i = 0; i < want.size(); ++i) {
    signal += static_cast<double>(want[i]) * want[i];
    noise += (static_cast<double>(want[i]) - have[i]) * (static_cast<double>(want[i]) - have[i]);
  }
  return 10 * std::log10(signal / noise);
}

// What a file goes through between the quantizer and the engine.
Graph Reread(const Graph& graph) {
  const auto bytes = WriteOnnxBytes(graph);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  if (!bytes.ok()) return {};
  auto read = ReadOnnxBytes(std::as_bytes(std::span(*bytes)), "written");
  EXPECT_TRUE(read.ok()) << read.status();
  return read.ok() ? *std::move(read) : Graph{};
}

Graph ConvRelu() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  const ValueId c =
      b.Op("Conv", {x, b.Random({4, 3, 3, 3}), b.Random({4})}, {{"pads", Ints{1, 1, 1, 1}}});
  b.Output(b.Op("Relu", {c}), "y");
  return b.Build();
}

// x -> Conv -> Relu -> (Conv -> +) -> Relu -> GlobalAveragePool -> Flatten -> Gemm
// `adds`: the operator that does.
Graph Residual(const std::string& adds = "Add") {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  const GraphBuilder::Attrs same = {{"pads", Ints{1, 1, 1, 1}}};
  const ValueId a = b.Op("Relu", {b.Op("Conv", {x, b.Random({8, 3, 3, 3}), b.Random({8})}, same)});
  const ValueId c = b.Op("Conv", {a, b.Random({8, 8, 3, 3}), b.Random({8})}, same);
  const ValueId sum = b.Op("Relu", {b.Op(adds, {c, a})});
  const ValueId flat = b.Op("Flatten", {b.Op("GlobalAveragePool", {sum})});
  b.Output(b.Op("Gemm", {flat, b.Random({16, 8}), b.Random({1, 16})}, {{"transB", int64_t{1}}}),
           "y");
  return b.Build();
}

TEST(StaticInt8, PutsPairsAroundAConvolution) {
  const QuantizeResult result = Quantized(ConvRelu(), {.to = Precision::kInt8});
  EXPECT_THAT(result.graph,
              HasOps({"QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv", "Relu"}));
  const Node& conv = TheOnly(result.graph, "Conv");
  const Graph& graph = result.graph;
  const auto source = [&](ValueId id, size_t slot) {
    return graph.value(graph.node(graph.producer(id)).inputs[slot]);
  };
  const float x_scale = source(conv.inputs[0], 1).constant.span<float>()[0];
  const Value weights = source(conv.inputs[1], 0);
  EXPECT_EQ(weights.dtype, DType::kI8);
  const auto w_scales = source(conv.inputs[1], 1).constant.span<float>();
  ASSERT_EQ(w_scales.size(), 4U);
  EXPECT_EQ(graph.node(graph.producer(conv.inputs[1])).attributes.IntOr("axis", -1), 0);
  const auto bias = graph.value(conv.inputs[2]).constant.span<float>();
  for (size_t c = 0; c < 4; ++c) {
    const double steps = static_cast<double>(bias[c]) / (x_scale * w_scales[c]);
    EXPECT_NEAR(steps, std::nearbyint(steps), 1e-6 * std::abs(steps)) << "an integer of the sums";
  }
  EXPECT_EQ(graph.value(graph.outputs[0]).name, "y") << "the model's interface stays";
  EXPECT_EQ(graph.value(graph.outputs[0]).dtype, DType::kF32);
}

// What a channel costs beside its weights: a scale and a bias. Only a matrix has zero points, too, for ONNX Runtime's sake.
TEST(StaticInt8, StoresNoZerosAndNoNamesLongerThanTheirUse) {
  const Graph fp32 = Residual();
  const QuantizeResult result = Quantized(fp32, {.to = Precision::kInt8});
  const Graph& graph = result.graph;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (!node.is("DequantizeLinear") || !graph.value(node.inputs[0]).is_constant()) continue;
    const Node& reader = graph.node(graph.consumers(node.outputs[0])[0]);
    EXPECT_EQ(node.input(2) != kNone, reader.is("Gemm")) << Describe(reader);
    EXPECT_NE(fp32.FindValue(graph.value(node.inputs[0]).name), kNone)
        << "integers bear the name of the weights that they stand for";
  }
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const std::string& name = graph.value(id).name;
    EXPECT_TRUE(name.size() <= 3 || fp32.FindValue(name) != kNone) << name;
  }
  EXPECT_GT(Sqnr(fp32, Reread(graph)), 30);
}

// Two layers of one set of weights round it by themselves.
TEST(StaticInt8, SharedWeightsAreNamedApart) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 16});
  const ValueId w = b.Random({16, 16});
  const ValueId bias = b.Random({16});
  b.Output(b.Op("Gemm", {b.Op("Gemm", {x, w, bias}), w, bias}));
  const Graph fp32 = b.Build();
  for (const Precision to : {Precision::kInt8, Precision::kInt8Dynamic})
    EXPECT_GT(Sqnr(fp32, Reread(Quantized(fp32, {.to = to}).graph), 1), 25) << PrecisionName(to);
}

TEST(StaticInt8, AnswersLikeFp32) {
  for (const Graph& fp32 : {ConvRelu(), Residual()}) {
    for (const std::string_view name : {"u8", "u8-symmetric", "s8", "s8-asymmetric"}) {
      const QuantizeResult result =
          Quantized(fp32, {.to = Precision::kInt8, .activation = *ParseActivationGrid(name)});
      EXPECT_GT(Sqnr(fp32, Reread(result.graph)), 30) << name;
      EXPECT_EQ(result.graph.metadata.at("octet.recipe"),
                Format("static auto activations={} weights=per-channel", name));
    }
  }
}

// Its outputs choose among ranges of blocks on few samples, which are no fewer than it takes at once.
TEST(StaticInt8, ChoosesRangesForAModelWithALargeBatchOfItsOwn) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {40, 8});
  const ValueId hidden = b.Op("Relu", {b.Op("MatMul", {x, b.Random({8, 16})})});
  b.Output(b.Op("MatMul", {hidden, b.Random({16, 4})}), "y");
  const Graph graph = b.Build();
  const auto made = Quantize(graph, {.to = Precision::kInt8}, SamplesFor(graph, 80), {});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_THAT(made->graph, HasExactly(2, "QuantizeLinear"));
}

TEST(StaticInt8, KeepsAResidualSumInIntegers) {
  for (const char* adds : {"Add", "Sum"}) {
    const QuantizeResult result = Quantized(Residual(adds), {.to = Precision::kInt8});
    const Graph& graph = result.graph;
    const Node& add = TheOnly(graph, "Add");
    EXPECT_TRUE(graph.node(graph.producer(add.inputs[0])).is("Conv"))
        << "the later convolution adds the other side itself" << Dump(graph);
    EXPECT_TRUE(graph.node(graph.producer(add.inputs[1])).is("DequantizeLinear")) << Dump(graph);
    EXPECT_THAT(graph, HasExactly(5, "QuantizeLinear"))
        << "x, one branch, the sum behind its Relu, the pool, what Flatten makes of it";
  }
}

TEST(StaticInt8, AddsRealsInAResidualSum) {
  const Graph fp32 = Residual();
  const QuantizeResult result = Quantized(fp32, {.to = Precision::kInt8, .fewer_roundings = true});
  const Graph& graph = result.graph;
  const Node& add = TheOnly(graph, "Add");
  EXPECT_TRUE(graph.node(graph.producer(add.inputs[1])).is("Relu")) << Dump(graph);
  EXPECT_THAT(graph, HasExactly(2, "Conv"));
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (!node.is("Conv")) continue;
    EXPECT_TRUE(graph.node(graph.producer(node.inputs[0])).is("DequantizeLinear"));
  }
  EXPECT_GT(Sqnr(fp32, Reread(graph)), 30);
  EXPECT_TRUE(graph.metadata.at("octet.recipe").ends_with(" fewer-roundings"));
}

// As Caffe2 writes a normalization behind a convolution: its scale and its shift are nodes of their own.
TEST(StaticInt8, ScalesAndShiftsBehindAConvolutionAreItsOwn) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  std::vector<ValueId> branches;
  for (int i = 0; i < 2; ++i) {
    const ValueId conv = b.Op("Conv", {x, b.Random({2, 3, 1, 1})});
    const ValueId scaled = b.Op("Mul", {conv, b.Random({2, 1, 1}, 0.5F, 2)});
    branches.push_back(b.Op("Relu", {b.Op("Add", {scaled, b.Random({2, 1, 1})})}));
  }
  const ValueId both = b.Op("Concat", branches, {{"axis", int64_t{1}}});
  b.Output(b.Op("Conv", {both, b.Random({2, 4, 1, 1})}));
  const Graph graph = Quantized(b.Build(), {.to = Precision::kInt8}).graph;
  EXPECT_EQ(CountOps(graph, "Mul") + CountOps(graph, "Add"), 0) << Dump(graph);
  const Node& concat = TheOnly(graph, "Concat");
  for (const ValueId in : concat.inputs)
    EXPECT_TRUE(graph.node(graph.producer(in)).is("DequantizeLinear")) << Dump(graph);
}

TEST(StaticInt8, GivesAConcatAndItsInputsOneRange) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  const ValueId small = b.Op("Conv", {x, b.Random({2, 3, 1, 1}, -0.01F, 0.01F)});
  const ValueId large = b.Op("Conv", {x, b.Random({2, 3, 1, 1}, -1, 1)});
  const ValueId both = b.Op("Concat", {small, large}, {{"axis", int64_t{1}}});
  b.Output(b.Op("Conv", {both, b.Random({2, 4, 1, 1})}));
  const QuantizeResult result = Quantized(b.Build(), {.to = Precision::kInt8});
  const Graph& graph = result.graph;
  const auto scale_of = [&](ValueId id) {
    return graph.value(graph.node(graph.producer(id)).inputs[1]).constant.span<float>()[0];
  };
  const Node& concat = TheOnly(graph, "Concat");
  EXPECT_EQ(scale_of(concat.inputs[0]), scale_of(concat.inputs[1]));
}

TEST(StaticInt8, RecordsWhatItDid) {
  const QuantizeResult result =
      Quantized(ConvRelu(), {.to = Precision::kInt8, .method = RangeMethod::kMinMax});
  ASSERT_EQ(result.records.size(), 2U);
  EXPECT_EQ(result.records[0].name, "x");
  EXPECT_EQ(result.records[0].what, "activation");
  EXPECT_THAT(result.records[0].detail, HasSubstr("range ["));
  EXPECT_EQ(result.records[1].what, "weights");
  EXPECT_EQ(result.graph.metadata.at("octet.precision"), "int8");
  EXPECT_THAT(result.graph.metadata.at("octet.recipe"), HasSubstr("activations=u8 "));
}

TEST(StaticInt8, KeepsABroadcastGemmBiasAndScaledGemmsInFloat) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 4});
  const ValueId first = b.Op("Gemm", {x, b.Random({4, 6}), b.Random({1})});
  const ValueId second = b.Op("Gemm", {first, b.Random({6, 6}), b.Random({6})}, {{"alpha", 0.5F}});
  b.Output(b.Op("Gemm", {second, b.Random({6, 2}), b.Random({2})}));
  const Graph fp32 = b.Build();
  const QuantizeResult result = Quantized(fp32, {.to = Precision::kInt8});
  EXPECT_THAT(result.graph, HasExactly(1, "QuantizeLinear"));
  EXPECT_GT(Sqnr(fp32, result.graph), 30);
}

// C [M, 1] of a batch of M = N rows has as many elements as there are columns, and is no bias of theirs.
TEST(Quantize, AddsABiasOfRowsBehindItsGemm) {
  constexpr int64_t kRows = 16;
  GraphBuilder b;
  const ValueId x = b.Input("x", {kRows, 6});
  const ValueId first = b.Op("Gemm", {x, b.Random({6, kRows}), b.Random({kRows, 1}, -4, 4)});
  b.Output(b.Op("Gemm", {first, b.Random({kRows, kRows}), b.Random({1, kRows})}), "y");
  const Graph fp32 = b.Build();
  for (const Precision to : {Precision::kInt8, Precision::kInt8Dynamic}) {
    const QuantizeResult result = Quantized(fp32, {.to = to});
    EXPECT_EQ(std::ranges::count(result.records, "weights", &QuantizeRecord::what), 2)
        << PrecisionName(to);
    EXPECT_GT(Sqnr(fp32, Reread(result.graph), kRows), 30) << PrecisionName(to);
  }
}

TEST(DynamicInt8, WritesIntegerOperatorsThatOnnxRuntimeRuns) {
  const Graph fp32 = Residual();
  const QuantizeResult result = Quantized(fp32, {.to = Precision::kInt8Dynamic});
  EXPECT_THAT(result.graph, HasExactly(2, "ConvInteger"));
  EXPECT_THAT(result.graph, HasExactly(1, "MatMulInteger"));
  EXPECT_THAT(result.graph, HasExactly(3, "DynamicQuantizeLinear"));
  EXPECT_THAT(result.graph, HasNo("Gemm"));
  for (const NodeId id : result.graph.order()) {
    const Node& node = result.graph.node(id);
    if (!node.is("ConvInteger")) continue;
    EXPECT_EQ(result.graph.value(node.inputs[1]).dtype, DType::kU8);
    EXPECT_EQ(result.graph.value(node.inputs[3]).constant.span<uint8_t>()[0], 128);
  }
  EXPECT_GT(Sqnr(fp32, Reread(result.graph), 1), 30);
}

// Products multiply integers however narrow they are.
TEST(DynamicInt8, QuantizesASharedActivationOnce) {
  for (const int count : {1, 2}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 4});
    for (int i = 0; i < count; ++i) b.Output(b.Op("MatMul", {x, b.Random({4, 2})}));
    const Graph graph = Quantized(b.Build(), {.to = Precision::kInt8Dynamic}).graph;
    EXPECT_THAT(graph, HasExactly(1, "DynamicQuantizeLinear"));
    EXPECT_THAT(graph, HasExactly(count, "MatMulInteger"));
  }
}

// A depthwise convolution, and a pointwise one.
Graph Separable() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 64, 6, 6});
  const ValueId spread = b.Op("Conv", {x, b.Random({64, 1, 3, 3}), b.Random({64})},
                              {{"group", int64_t{64}}, {"pads", Ints{1, 1, 1, 1}}});
  b.Output(b.Op("Conv", {b.Op("Relu", {spread}), b.Random({64, 64, 1, 1})}), "y");
  return b.Build();
}

TEST(DynamicInt8, LeavesInFloatWhatWouldBeSlower) {
  const Graph fp32 = Separable();
  const QuantizeResult result = Quantized(fp32, {.to = Precision::kInt8Dynamic});
  const Graph& graph = result.graph;
  EXPECT_THAT(graph, HasExactly(1, "ConvInteger"));
  EXPECT_THAT(graph, HasExactly(1, "DynamicQuantizeLinear"));
  const Node& conv = TheOnly(graph, "Conv");
  const Node& stored = graph.node(graph.producer(conv.inputs[1]));
  ASSERT_TRUE(stored.is("DequantizeLinear")) << Dump(graph);
  EXPECT_EQ(graph.value(stored.inputs[0]).dtype, DType::kI8) << "the file stays as small";
  EXPECT_EQ(result.records[0].what, "kept");
  EXPECT_THAT(result.records[0].detail, HasSubstr("1 at a time"));
  EXPECT_EQ(std::ranges::count(result.records, "stored", &QuantizeRecord::what), 1);
  EXPECT_EQ(graph.metadata.at("octet.recipe"), "dynamic weights=per-channel float-layers=1");
  EXPECT_GT(Sqnr(fp32, Reread(graph), 1), 30);
  PassContext context;
  context.precision = Precision::kInt8Dynamic;
  const Graph typed = Optimised(Reread(graph), context);
  int dynamic = 0;
  for (const NodeId id : typed.order()) {
    const Node& node = typed.node(id);
    if (!node.is("Conv")) continue;
    const bool integers = node.attributes.IntOr("dynamic_quant", 0) == 1;
    dynamic += integers ? 1 : 0;
    EXPECT_EQ(typed.value(node.inputs[1]).dtype, integers ? DType::kI8 : DType::kF32);
  }
  EXPECT_EQ(dynamic, 1);
}

TEST(DynamicInt8, KeepsRealWeightsOfFloatLayersWhereAskedTo) {
  const QuantizeResult result =
      Quantized(Separable(), {.to = Precision::kInt8Dynamic, .byte_constants = false});
  const Node& conv = TheOnly(result.graph, "Conv");
  EXPECT_EQ(result.graph.value(conv.inputs[1]).constant.dtype(), DType::kF32);
}

TEST(DynamicInt8, LetsRecurrentLayersReadIntegers) {
  for (const bool per_channel : {true, false}) {
    SCOPED_TRACE(per_channel);
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 2, 4});
    const ValueId y =
        b.Op("LSTM", {x, b.Random({2, 24, 4}), b.Random({2, 24, 6})},
             {{"hidden_size", int64_t{6}}, {"direction", std::string("bidirectional")}});
    b.Output(b.Op(
        "GRU",
        {b.Op("Reshape", {y, b.IntList({0, 2, 12})}), b.Random({1, 9, 12}), b.Random({1, 9, 3})},
        {{"hidden_size", int64_t{3}}}));
    const Graph fp32 = b.Build();
    const QuantizeResult result =
        Quantized(fp32, {.to = Precision::kInt8Dynamic, .per_channel = per_channel});
    EXPECT_THAT(result.graph, HasExactly(2, "DynamicQuantizeLinear"));
    EXPECT_THAT(result.graph, HasExactly(6, "DequantizeLinear"));
    EXPECT_EQ(result.records.size(), 4U);
    EXPECT_GT(Sqnr(fp32, Reread(result.graph), 5), 30);
    PassContext context;
    context.precision = Precision::kInt8Dynamic;
    const Graph typed = Optimised(Reread(result.graph), context);
    for (const char* op : {"LSTM", "GRU"}) {
      EXPECT_EQ(TheOnly(typed, op).attributes.IntOr("dynamic_quant", 0), 1) << op;
      EXPECT_EQ(typed.value(TheOnly(typed, op).input(2)).dtype, DType::kI8) << op;
    }
  }
}

// A mean error of the rounded weights times the mean of the input shifts every output alike.
TEST(StaticInt8, TakesTheMeanErrorOfRoundedWeightsOutOfTheBias) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 4});
  // One large weight sets the scale (1/127); the others lie half a step off.
  const ValueId w = b.Constant<float>({4, 1}, {1, 0.4F / 127, 0.4F / 127, 0.4F / 127});
  b.Output(b.Op("Gemm", {x, w, b.Constant<float>({1}, {0.5F})}));
  const Graph fp32 = b.Build();
  const CalibrationSet ones = {{"x", Tensor::From<float>(Shape{1, 4}, {1, 1, 1, 1})}};
  const auto answer = [&](bool correct_bias) {
    const auto result =
        Quantize(fp32, {.to = Precision::kInt8, .compensate = false, .correct_bias = correct_bias},
                 ones, {});
    EXPECT_TRUE(result.ok()) << result.status();
    return Evaluate(WithUnknownExtents(result->graph, 1), std::vector{ones.at("x")})
        ->front()
        .span<float>()[0];
  };
  const float exact = 1.5F + 1.2F / 127;
  EXPECT_NEAR(answer(true), exact, 1e-4);
  EXPECT_NEAR(answer(false), 1.5F, 1e-4);
}

// Errors.

std::string Refusal(const Graph& graph, const QuantizeRecipe& recipe,
                    absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  const auto result = Quantize(graph, recipe, SamplesFor(graph, 2), {});
  EXPECT_EQ(result.status().code(), code) << result.status();
  return std::string(Message(result.status()));
}

constexpr Precision kTargets[] = {Precision::kFp16, Precision::kBf16, Precision::kInt8,
                                  Precision::kInt8Dynamic};

TEST(Quantize, RefusesWhatIsQuantizedAlready) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {kUnknownDim, 4}), 0.1F, 128);
  b.Output(b.Op("MatMul", {x, b.Random({4, 2})}));
  const Graph qdq = b.Build();
  const Graph dynamic = Quantized(Residual(), {.to = Precision::kInt8Dynamic}).graph;
  for (const Precision to : kTargets) {
    EXPECT_THAT(Refusal(qdq, {.to = to}),
                AllOf(HasSubstr("quantized already"), HasSubstr("QuantizeLinear")));
    EXPECT_THAT(Refusal(dynamic, {.to = to}), HasSubstr("quantized already"));
  }
}

TEST(Quantize, RefusesWhatIsQuantizedInABody) {
  GraphBuilder inner;
  inner.Output(inner.FakeQuantize(inner.Input("x", {kUnknownDim, 4}), 0.1F, 128));
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 4});
  b.Output(b.Op("MatMul", {x, b.Random({4, 2})}));
  Graph graph = b.Build();
  graph.mutable_node(graph.order()[0])
      .attributes.Set("body", std::make_shared<const Graph>(inner.Build()));
  for (const Precision to : kTargets)
    EXPECT_THAT(Refusal(graph, {.to = to}),
                AllOf(HasSubstr("quantized already"), HasSubstr("QuantizeLinear")));
}

TEST(Quantize, RefusesAModelWithoutWeights) {
  GraphBuilder b;
  b.Output(b.Op("Relu", {b.Input("x", {kUnknownDim, 4})}));
  const Graph graph = b.Build();
  EXPECT_THAT(Refusal(graph, {.to = Precision::kInt8}), HasSubstr("nothing to quantize"));
  EXPECT_THAT(Refusal(graph, {.to = Precision::kInt8Dynamic}), HasSubstr("nothing to quantize"));
  EXPECT_THAT(Refusal(graph, {.to = Precision::kFp16}), HasSubstr("no fp32 weights"));
  EXPECT_THAT(Refusal(graph, {.to = Precision::kBf16}), HasSubstr("no fp32 weights"));
}

TEST(Quantize, NamesAPassThatDoesNotExist) {
  const auto result =
      Quantize(ConvRelu(), {.to = Precision::kFp16}, {}, {.disabled_passes = {"no_such_pass"}});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Message(result.status())), HasSubstr("no_such_pass"));
}

TEST(Quantize, RefusesFp32AsATarget) {
  EXPECT_THAT(Refusal(ConvRelu(), {.to = Precision::kFp32}), HasSubstr("fp32"));
}

TEST(Quantize, NamesWeightsThatAreNotFinite) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  const ValueId w = b.Constant<float>({2, 2}, {1, std::nanf(""), 2, 3});
  b.Output(b.Op("MatMul", {x, w}));
  Graph graph = b.Build();
  graph.mutable_value(w).name = "weird";
  for (const Precision to : {Precision::kInt8, Precision::kInt8Dynamic})
    EXPECT_THAT(Refusal(graph, {.to = to}), AllOf(HasSubstr("'weird'"), HasSubstr("NaN")));
}

TEST(Quantize, NamesRecurrentWeightsThatAreNotFinite) {
  for (const size_t slot : {1, 2}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 2, 4});
    std::vector<ValueId> inputs = {x, b.Random({1, 3, 4}), b.Random({1, 3, 3})};
    const ValueId w = inputs[slot];
    b.Output(b.Op("RNN", inputs, {{"hidden_size", int64_t{3}}}));
    Graph graph = b.Build();
    graph.mutable_value(w).name = "weird";
    Tensor weights(DType::kF32, graph.value(w).constant.shape());
    std::ranges::fill(weights.mutable_span<float>(), std::numeric_limits<float>::infinity());
    graph.mutable_value(w).constant = std::move(weights);
    EXPECT_THAT(Refusal(graph, {.to = Precision::kInt8Dynamic}),
                AllOf(HasSubstr("weights 'weird' of RNN"), HasSubstr("NaN or infinity")));
  }
}

}  // namespace integers_test
}  // namespace octet
