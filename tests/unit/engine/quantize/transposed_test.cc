// Transposed convolutions in int8: which are, what the files look like, that they answer like the original, and run in integers.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/engine.h"
#include "engine/onnx/onnx_file.h"
#include "engine/ops/reference_step.h"
#include "engine/quantize/calibration_file.h"
#include "engine/quantize/channel_links.h"
#include "engine/quantize/compensated_rounding.h"
#include "engine/quantize/dynamic_layers.h"
#include "engine/quantize/patch_moments.h"
#include "engine/quantize/quantizer.h"
#include "engine/quantize/selection.h"
#include "engine/quantize/weights.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace transposed_test {

using Attrs = GraphBuilder::Attrs;

constexpr int64_t kNoise = 12;
const Ints kTwo = {2, 2};

// Noise [N, 12, 1, 1] -> 4 x 4 -> 8 x 8 -> 16 x 16, each with a BatchNormalization and a Relu but the last, which ends in a Tanh.
Graph Generator(int64_t group = 1) {
  GraphBuilder b;
  ValueId y = b.Input("x", {kUnknownDim, kNoise, 1, 1});
  const auto up = [&](int64_t in, int64_t out, const Attrs& attributes) {
    Attrs with = attributes;
    with["group"] = group;
    return b.Op("ConvTranspose", {y, b.Random({in, out / group, 4, 4}, -0.3F, 0.3F)}, with);
  };
  const auto normalized = [&](ValueId x, int64_t channels) {
    return b.Op("Relu", {b.Op("BatchNormalization",
                              {x, b.Random({channels}, 0.5F, 2), b.Random({channels}),
                               b.Random({channels}), b.Random({channels}, 0.2F, 1)})});
  };
  const Attrs twice = {{"strides", kTwo}, {"pads", Ints{1, 1, 1, 1}}};
  y = normalized(up(kNoise, 16, {}), 16);
  y = normalized(up(16, 8, twice), 8);
  b.Output(b.Op("Tanh", {up(8, 4, twice)}), "image");
  return b.Build();
}

Tensor Noise(int64_t count) {
  Tensor samples(DType::kF32, Shape{count, kNoise, 1, 1});
  float phase = 0;
  for (float& f : samples.mutable_span<float>()) f = 2 * std::sin(phase += 0.37F);
  return samples;
}

QuantizeResult Quantized(const Graph& graph, const QuantizeRecipe& recipe) {
  auto made = Quantize(graph, recipe, CalibrationData({{"x", Noise(32)}}), {});
  if (!made.ok()) {
    ADD_FAILURE() << made.status();
    return {};
  }
  return *std::move(made);
}

double SqnrDb(ConstTensorView want, ConstTensorView got) {
  double signal = 0;
  double noise = 1e-30;
  for (int64_t i = 0; i < want.elements(); ++i) {
    const double exact = want.as<float>()[i];
    signal += exact * exact;
    noise += (got.as<float>()[i] - exact) * (got.as<float>()[i] - exact);
  }
  return 10 * std::log10(signal / noise);
}

// By the reference evaluator.
double SqnrDb(const Graph& fp32, const Graph& quantized) {
  const std::vector<Tensor> inputs = {Noise(8)};
  const auto want = Evaluate(WithUnknownExtents(fp32, 8), inputs);
  const auto got = Evaluate(WithUnknownExtents(quantized, 8), inputs);
  EXPECT_TRUE(want.ok() && got.ok()) << want.status() << got.status();
  return want.ok() && got.ok() ? SqnrDb(want->front().view(), got->front().view()) : 0;
}

// A file made of the graph, as the engine runs it.
struct Ran {
  std::vector<LayerRecord> layers;
  double sqnr_db = 0;  ///< Against the reference evaluator's answer.
};
Ran RunAs(const Graph& graph, Precision precision) {
  const auto bytes = WriteOnnxBytes(graph);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  auto read = ReadOnnxBytes(std::as_bytes(std::span(*bytes)), "written");
  EXPECT_TRUE(read.ok()) << read.status();
  LoadOptions options;
  options.precision = precision;
  const auto model = Model::FromGraph(*read, options);
  EXPECT_TRUE(model.ok()) << model.status();
  const std::vector<Tensor> inputs = {Noise(8)};
  const std::vector<Shape> shapes = {inputs[0].shape()};
  const auto plan = (*model)->PlanFor(shapes);
  EXPECT_TRUE(plan.ok()) << plan.status();
  Tensor output((*plan)->outputs()[0].dtype, (*plan)->outputs()[0].shape);
  Workspace workspace;
  const std::vector<const void*> in = {inputs[0].data()};
  const std::vector<void*> out = {output.mutable_data()};
  EXPECT_TRUE((*plan)->Run(workspace, in, out).ok());
  const auto want = Evaluate(WithUnknownExtents(*read, 8), inputs);
  EXPECT_TRUE(want.ok()) << want.status();
  return {(*plan)->certificate().layers, SqnrDb(want->front().view(), output.view())};
}

std::vector<std::string> PrecisionsOf(const Ran& ran) {
  std::vector<std::string> precisions;
  for (const LayerRecord& layer : ran.layers) {
    if (layer.macs > 0) precisions.emplace_back(layer.runs);
  }
  return precisions;
}

TEST(TransposedInt8, AreWrittenWithScalesAlongAxis1) {
  const Graph fp32 = Generator();
  const QuantizeResult made = Quantized(fp32, {.to = Precision::kInt8});
  const Graph& graph = made.graph;
  EXPECT_THAT(graph, HasExactly(3, "ConvTranspose"));
  EXPECT_THAT(graph, HasExactly(3, "QuantizeLinear")) << "what each of them reads";
  EXPECT_THAT(graph, HasNo("BatchNormalization"));
  EXPECT_THAT(graph, HasNo("Mul")) << "a normalization goes into the weights";
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (!node.is("ConvTranspose")) continue;
    const Node& weights = graph.node(graph.producer(node.inputs[1]));
    ASSERT_TRUE(weights.is("DequantizeLinear"));
    EXPECT_EQ(weights.attributes.IntOr("axis", 0), 1);
    const Tensor& integers = graph.value(weights.inputs[0]).constant;
    EXPECT_EQ(integers.dtype(), DType::kI8);
    EXPECT_EQ(graph.value(weights.inputs[1]).constant.elements(), integers.shape()[1]);
  }
  EXPECT_GT(SqnrDb(fp32, graph), 30);
}

TEST(TransposedInt8, RunInIntegers) {
  for (const int64_t group : {1, 2, 4}) {
    SCOPED_TRACE(group);
    const Graph fp32 = Generator(group);
    const QuantizeResult made =
        Quantized(fp32, {.to = Precision::kInt8, .floor = {AccuracyFloor::Kind::kAllInt8}});
    EXPECT_GT(SqnrDb(fp32, made.graph), 25);
    const Ran ran = RunAs(made.graph, Precision::kInt8);
    EXPECT_THAT(PrecisionsOf(ran), ::testing::ElementsAre("int8", "int8", "int8"));
    EXPECT_GT(ran.sqnr_db, 35) << "but for ties that round the other way";
  }
}

TEST(TransposedInt8, RunInIntegersWithRangesTakenAtRunTime) {
  const Graph fp32 = Generator();
  const QuantizeResult made = Quantized(fp32, {.to = Precision::kInt8Dynamic});
  EXPECT_THAT(made.graph, HasExactly(3, "DynamicQuantizeLinear"));
  EXPECT_THAT(made.graph, HasExactly(3, "ConvTranspose"));
  EXPECT_GT(SqnrDb(fp32, made.graph), 25);
  const Ran ran = RunAs(made.graph, Precision::kInt8Dynamic);
  EXPECT_THAT(PrecisionsOf(ran), ::testing::ElementsAre("int8", "int8", "int8"));
  EXPECT_GT(ran.sqnr_db, 35);
}

TEST(TransposedInt8, HaveWeightsOf4Bits) {
  const QuantizeResult made = Quantized(
      Generator(),
      {.to = Precision::kInt8, .weight_bits = 4, .floor = {AccuracyFloor::Kind::kAllInt8}});
  int within = 0;
  for (const NodeId id : made.graph.order()) {
    const Node& node = made.graph.node(id);
    if (!node.is("ConvTranspose")) continue;
    const NodeId weights = made.graph.producer(node.inputs[1]);
    const auto integers =
        made.graph.value(made.graph.node(weights).inputs[0]).constant.span<int8_t>();
    within += std::ranges::all_of(integers, [](int8_t q) { return q >= -7 && q <= 7; }) ? 1 : 0;
  }
  EXPECT_EQ(within, 1) << "the one between the first and the last";
}

// One with both, one of whose last results no tap reaches, one whose weights are computed.
TEST(TransposedInt8, AreRealWhereNoKernelTakesIntegers) {
  const auto is_weighted = [](const Attrs& attributes) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {1, 4, 5, 5});
    b.Output(b.Op("ConvTranspose", {x, b.Random({4, 6, 3, 3})}, attributes));
    const Graph graph = b.Build();
    return AsWeighted(graph, graph.order()[0]).has_value();
  };
  EXPECT_TRUE(is_weighted({}));
  EXPECT_TRUE(is_weighted({{"strides", kTwo}}));
  EXPECT_TRUE(is_weighted({{"dilations", kTwo}}));
  EXPECT_TRUE(is_weighted({{"strides", kTwo}, {"auto_pad", std::string("SAME_UPPER")}}));
  EXPECT_FALSE(is_weighted({{"strides", kTwo}, {"dilations", kTwo}}));
  const Attrs common = {
      {"strides", kTwo}, {"pads", Ints{1, 1, 1, 1}}, {"output_padding", Ints{1, 1}}};
  EXPECT_TRUE(is_weighted(common)) << "the pads make room for it";
  EXPECT_FALSE(is_weighted({{"strides", kTwo}, {"output_padding", Ints{1, 1}}}));
}

// A tap gives each input to one of the four results beside each other.
TEST(TransposedInt8, HavePatchesOfTheTapsThatMeetAnInput) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2, 1, 1});
  b.Output(b.Op("ConvTranspose", {x, b.Random({2, 3, 2, 2})}, {{"strides", kTwo}}));
  const Graph graph = b.Build();
  const WeightedNode weighted = *AsWeighted(graph, graph.order()[0]);
  auto moments = PatchMoments::For(graph, weighted, 1);
  ASSERT_TRUE(moments);
  EXPECT_EQ(moments->length(), 8);
  ASSERT_TRUE(moments->Observe(Tensor::From<float>(Shape{1, 2, 1, 1}, {3, 5}).view()).ok());
  float seen = 0;
  for (size_t tap = 0; tap < 4; ++tap) {
    EXPECT_FLOAT_EQ(moments->sums(0)[4 + tap], moments->sums(0)[tap] * 5 / 3);
    EXPECT_FLOAT_EQ(moments->products(0)[tap * 8 + tap], 3 * moments->sums(0)[tap]);
    EXPECT_FLOAT_EQ(moments->products(0)[tap * 8 + tap + 4], 5 * moments->sums(0)[tap]);
    seen += moments->sums(0)[tap] / 3;
    for (size_t other = tap + 1; other < 4; ++other)
      EXPECT_EQ(moments->products(0)[tap * 8 + other], 0) << "of one result";
  }
  EXPECT_FLOAT_EQ(seen, static_cast<float>(moments->count()));
}

// With one kernel of ones, the sum of a patch is the result at its position.
TEST(TransposedInt8, HavePatchesThatAddUpToTheResults) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 1, 3, 4});
  b.Output(b.Op("ConvTranspose", {x, b.Constant<float>({1, 1, 3, 2}, std::vector<float>(6, 1.0F))},
                {{"strides", Ints{2, 1}}, {"pads", Ints{1, 0, 1, 0}}, {"dilations", Ints{1, 1}}}));
  const Graph graph = b.Build();
  Tensor image(DType::kF32, Shape{1, 1, 3, 4});
  for (size_t i = 0; i < 12; ++i) image.mutable_span<float>()[i] = static_cast<float>(i + 1);
  const auto results = Evaluate(graph, std::vector<Tensor>{image});
  ASSERT_TRUE(results.ok()) << results.status();
  double mean = 0;
  for (const float y : results->front().span<float>()) mean += y;
  mean /= static_cast<double>(results->front().elements());
  // One position drawn from each of so many samples, of which each is as likely.
  constexpr int64_t kSamples = 40000;
  auto moments = PatchMoments::For(graph, *AsWeighted(graph, graph.order()[0]), kSamples);
  for (int64_t i = 0; i < kSamples; ++i) ASSERT_TRUE(moments->Observe(image.view()).ok());
  double sum = 0;
  for (const float of_tap : moments->sums(0)) sum += of_tap;
  EXPECT_NEAR(sum / static_cast<double>(moments->count()), mean, 0.02 * mean);
}

TEST(TransposedInt8, TakeTheMeanErrorOfARoundedTapOverTheStrides) {
  // Weights of one channel that all round up by as much: its bias has to make up for a fourth of what they add.
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 1, 8, 8});
  const float large = 127;
  b.Output(b.Op("ConvTranspose",
                {x, b.Constant<float>({1, 1, 2, 2}, {large, 0.75F, 0.75F, 0.75F}),
                 b.Constant<float>({1}, {0})},
                {{"strides", kTwo}}),
           "y");
  Tensor ones(DType::kF32, Shape{4, 1, 8, 8});
  std::ranges::fill(ones.mutable_span<float>(), 1.0F);
  const auto made = Quantize(b.Build(),
                             {.to = Precision::kInt8,
                              .method = RangeMethod::kMinMax,
                              .equalize = false,
                              .compensate = false},
                             CalibrationData({{"x", ones}}), {});
  ASSERT_TRUE(made.ok()) << made.status();
  const Node& node = TheOnly(made->graph, "ConvTranspose");
  EXPECT_NEAR(made->graph.value(node.inputs[2]).constant.span<float>()[0], -0.75F / 4, 0.01);
}

TEST(TransposedInt8, ReadWeightsThroughTheirGroups) {
  // [IC, OC / groups, 1, 2 taps]: the first three outputs read inputs 0 and 1, the others 2 and 3.
  const WeightLayout layout{1, 2};
  const Shape shape{4, 3, 1, 2};
  EXPECT_EQ(layout.Outputs(shape), 6);
  EXPECT_EQ(layout.Inputs(shape), 4);
  const WeightIndex index(shape, layout);
  std::vector<bool> seen(24);
  for (int64_t out = 0; out < 6; ++out) {
    for (int64_t k = 0; k < 4; ++k) {
      const int64_t at = index.PositionOf(out, k);
      ASSERT_LT(at, 24);
      EXPECT_FALSE(seen[static_cast<size_t>(at)]);
      seen[static_cast<size_t>(at)] = true;
      EXPECT_EQ(index(at).out, static_cast<size_t>(out));
      EXPECT_EQ(index(at).in, static_cast<size_t>(out / 3 * 2 + k / 2));
    }
  }
}

TEST(TransposedInt8, PassFactorsOfChannels) {
  for (const int64_t group : {1, 2}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 4, 3, 3});
    const ValueId first = b.Op("ConvTranspose", {x, b.Random({4, 4 / group, 2, 2})},
                               {{"strides", kTwo}, {"group", group}});
    b.Output(
        b.Op("ConvTranspose", {b.Op("Relu", {first}), b.Random({4, 2, 2, 2})}, {{"group", group}}));
    const Graph graph = b.Build();
    const ChannelLinks links(graph);
    ASSERT_EQ(links.components().size(), 1U);
    EXPECT_EQ(links.components()[0].writers.size(), 1U);
    EXPECT_EQ(links.components()[0].readers.size(), 1U);
    EXPECT_EQ(links.ChannelsOf(first), 4);
  }
}

TEST(TransposedInt8, AreInFloatWhereFewReadWhatWouldBeQuantized) {
  const auto is_slower = [](const Shape& weights, int64_t group) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, weights[0], 6, 6});
    b.Output(b.Op("ConvTranspose", {x, b.Random(weights)}, {{"strides", kTwo}, {"group", group}}));
    return !LayersSlowerInDynamicInt8(b.Build()).empty();
  };
  EXPECT_FALSE(is_slower({64, 4, 2, 2}, 1)) << "each input has a part in 16 results";
  EXPECT_TRUE(is_slower({64, 3, 2, 2}, 1));
  EXPECT_TRUE(is_slower({64, 1, 4, 4}, 64)) << "depthwise";
}

}  // namespace transposed_test
}  // namespace octet
