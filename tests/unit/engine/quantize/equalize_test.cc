// Channels evened out: the same answers in fp32, finer ones in int8.
#include "engine/quantize/equalize.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/reference_step.h"
#include "engine/quantize/channel_links.h"
#include "engine/quantize/input_grids.h"
#include "engine/quantize/ranges.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace equalize_test {

using Attrs = GraphBuilder::Attrs;

CalibrationSet Samples(int64_t channels, int64_t extent) {
  Tensor samples(DType::kF32, Shape{8, channels, extent, extent});
  float phase = 0;
  for (float& f : samples.mutable_span<float>()) f = 2 * std::sin(phase += 0.37F);
  return {{"x", std::move(samples)}};
}

// A pointwise convolution whose results differ a hundredfold between channels, an activation, and a depthwise convolution that
// asks for every channel alike.
struct Separable {
  explicit Separable(const std::string& activation) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 4, 6, 6});
    std::vector<float> spread;
    for (int o = 0; o < 4; ++o) {
      for (int i = 0; i < 4; ++i)
        spread.push_back((i == o ? 1.0F : 0.25F) * std::pow(0.1F, static_cast<float>(o) / 1.5F));
    }
    first = b.Op("Conv", {x, b.Constant<float>({4, 4, 1, 1}, spread), b.Random({4}, 0, 0.01F)});
    const ValueId active = activation == "Clip"
                               ? b.Op("Clip", {first, b.Scalar(0.0F), b.Scalar(6.0F)})
                               : b.Op(activation, {first});
    const ValueId depthwise = b.Op(
        "Conv",
        {active, b.Constant<float>({4, 1, 1, 1}, {1, 4.6F, 21.5F, 100}), b.Random({4}, 0, 0.01F)},
        {{"group", int64_t{4}}});
    const ValueId again = b.Op("Relu", {depthwise});
    b.Output(b.Op("Conv", {again, b.Constant<float>({1, 4, 1, 1}, {1, 1, 1, 1}), b.Random({1})}));
    graph = b.Build();
  }
  Graph graph;
  ValueId first;
};

Graph Equalized(const Graph& graph, size_t changed) {
  Graph copy = graph;
  auto statistics = GatherStatistics(copy, Samples(4, 6), {});
  EXPECT_TRUE(statistics.ok()) << statistics.status();
  EXPECT_EQ(EqualizeChannels(copy, {}, *statistics).size(), changed);
  EXPECT_TRUE(Verify(copy).ok()) << Verify(copy);
  return copy;
}

double Noise(const Graph& fp32, const CalibrationSet& set, const QuantizeRecipe& recipe) {
  const auto made = Quantize(fp32, recipe, set, {});
  EXPECT_TRUE(made.ok()) << made.status();
  const std::vector<Tensor> inputs = {set.at("x")};
  const int64_t count = inputs[0].shape()[0];
  const auto want = Evaluate(WithUnknownExtents(fp32, count), inputs);
  const auto got = Evaluate(WithUnknownExtents(made->graph, count), inputs);
  EXPECT_TRUE(want.ok() && got.ok()) << want.status() << got.status();
  double noise = 0;
  for (int64_t i = 0; i < want->front().elements(); ++i) {
    const double off = want->front().span<float>()[i] - got->front().span<float>()[i];
    noise += off * off;
  }
  return noise;
}

double Noise(const Graph& fp32, bool equalize) {
  return Noise(fp32, Samples(4, 6), {.to = Precision::kInt8, .equalize = equalize});
}

TEST(EqualizeChannels, LeavesTheAnswersOfFp32) {
  for (const std::string activation : {"Relu", "LeakyRelu", "Clip"}) {
    const Graph fp32 = Separable(activation).graph;
    const Graph equalized = Equalized(fp32, 1);
    const std::vector<Tensor> inputs = {Samples(4, 6).at("x")};
    EXPECT_TRUE(SameAnswers(WithUnknownExtents(fp32, 8), WithUnknownExtents(equalized, 8), inputs))
        << activation;
  }
}

TEST(EqualizeChannels, LeavesWeightsThatAreAnswersThemselves) {
  Graph fp32 = Separable("Relu").graph;
  const ValueId weights = fp32.node(fp32.order().front()).inputs[1];
  fp32.outputs.push_back(weights);
  const Graph equalized = Equalized(fp32, 1);
  EXPECT_TRUE(std::ranges::equal(fp32.value(weights).constant.span<float>(),
                                 equalized.value(equalized.outputs[1]).constant.span<float>()));
  const NodeId first = equalized.order().front();
  EXPECT_NE(equalized.node(first).inputs[1], equalized.outputs[1]);
}

// Constants could shrink the widest channel, whose weights are small, and then the Clip would let through what it cuts.
TEST(EqualizeChannels, CutsWhatAClipCutsBehindAMul) {
  GraphBuilder b;
  const ValueId conv =
      b.Op("Conv", {b.Input("x", {kUnknownDim, 4, 6, 6}), b.Random({4, 4, 1, 1}), b.Random({4})});
  const ValueId scaled =
      b.Op("Mul", {conv, b.Constant<float>({1, 4, 1, 1}, {2, 0.1F, 0.02F, 0.5F})});
  const ValueId cut = b.Op("Clip", {scaled, b.Scalar(0.0F), b.Scalar(6.0F)});
  const ValueId weights = b.Constant<float>({1, 4, 1, 1}, {0.01F, 1, 1, 0.5F});
  b.Output(b.Op("Conv", {cut, weights, b.Random({1})}));
  const Graph fp32 = b.Build();
  Graph equalized = fp32;
  auto statistics = GatherStatistics(equalized, Samples(4, 6), {});
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  EqualizeChannels(equalized, {}, *statistics);
  Tensor wide = Samples(4, 6).at("x");
  for (float& x : wide.mutable_span<float>()) x *= 20;
  const std::vector<Tensor> inputs = {wide};
  EXPECT_TRUE(SameAnswers(WithUnknownExtents(fp32, 8), WithUnknownExtents(equalized, 8), inputs));
}

TEST(EqualizeChannels, LeavesASensorsIntegersAsTheyAre) {
  Tensor samples(DType::kF32, Shape{40, 3, 6, 6});
  std::mt19937 random(TestSeed());
  for (size_t i = 0; i < samples.span<float>().size(); ++i) {
    const size_t c = i / 36 % 3;
    const auto q = static_cast<float>(i < 108 ? (i % 2 == 0 ? 0 : 255) : random() % 256);
    samples.mutable_span<float>()[i] =
        (0.017F + 0.001F * static_cast<float>(c)) * (q - 100.3F - 10.7F * static_cast<float>(c));
  }
  const CalibrationSet set = {{"x", samples}};
  GraphBuilder b;
  const ValueId weights = b.Constant<float>({2, 3, 1, 1}, {1, 0.01F, 0.1F, -0.9F, 0.02F, 0.08F});
  b.Output(b.Op("Relu", {b.Op("Conv", {b.Input("x", {kUnknownDim, 3, 6, 6}), weights})}));
  Graph graph = b.Build();
  ASSERT_EQ(SeparateInputGrids(graph, set).value_or(0), 1);
  ASSERT_TRUE(InferShapes(graph).ok());
  const auto constants = [&graph] {
    std::vector<const void*> found;
    for (const char* op : {"Mul", "Add"})
      found.push_back(graph.value(TheOnly(graph, op).inputs[1]).constant.data());
    return found;
  };
  const auto before = constants();
  auto statistics = GatherStatistics(graph, set, {});
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  EqualizeChannels(graph, {}, *statistics);
  EXPECT_EQ(constants(), before);
  const ValueId read = TheOnly(graph, "Conv").inputs[0];
  const RangeTable ranges = RangesOf(graph, {}, statistics->histograms);
  EXPECT_EQ(ParamsFor(ranges.at(read).range, {}).scales[0], 1) << "no integer is rounded";
}

TEST(EqualizeChannels, MakesInt8Finer) {
  for (const std::string activation : {"Relu", "Clip"}) {
    const Graph fp32 = Separable(activation).graph;
    EXPECT_LT(Noise(fp32, true), 0.5 * Noise(fp32, false)) << activation;
  }
}

TEST(EqualizeChannels, LeavesWhatFactorsDoNotPass) {
  const Graph fp32 = Separable("Sigmoid").graph;
  const Graph equalized = Equalized(fp32, 1);  // what the second Relu gives
  const Node& conv = fp32.node(fp32.order()[0]);
  ASSERT_EQ(conv.op, "Conv");
  EXPECT_EQ(equalized.value(equalized.node(equalized.order()[0]).inputs[1]).constant.data(),
            fp32.value(conv.inputs[1]).constant.data());
}

TEST(ChannelLinks, FollowsSumsAndConcatenations) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  const ValueId a = b.Op("Conv", {x, b.Random({2, 3, 1, 1})});
  const ValueId c = b.Op("Conv", {x, b.Random({2, 3, 1, 1})});
  const ValueId sum = b.Op("Add", {a, c});
  const ValueId d = b.Op("Conv", {x, b.Random({1, 3, 1, 1})});
  const ValueId all = b.Op("Concat", {d, sum}, {{"axis", int64_t{1}}});
  const ValueId flat = b.Op("Flatten", {b.Op("GlobalAveragePool", {all})});
  b.Output(b.Op("Gemm", {flat, b.Random({3, 5})}));
  const ChannelLinks links(b.Build());
  ASSERT_EQ(links.components().size(), 1U);
  EXPECT_EQ(links.components()[0].writers.size(), 3U);
  EXPECT_EQ(links.components()[0].readers.size(), 1U);
  EXPECT_EQ(links.ClassOf(a, 1), links.ClassOf(c, 1));
  EXPECT_EQ(links.ClassOf(a, 1), links.ClassOf(flat, 2));
  EXPECT_EQ(links.ClassOf(d, 0), links.ClassOf(flat, 0));
  EXPECT_NE(links.ClassOf(a, 0), links.ClassOf(a, 1));
}

// A residual block that halves the extents and doubles the channels, as ResNets for CIFAR have it, behind channels that differ a
// hundredfold.
struct WideningBlock {
  explicit WideningBlock(float padding = 0) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 4, 6, 6});
    std::vector<float> spread;
    for (int row = 0; row < 4; ++row)
      for (int column = 0; column < 4; ++column)
        spread.push_back((row == column ? 1.0F : 0.25F) *
                         std::pow(0.1F, static_cast<float>(row) / 1.5F));
    stem = b.Op("Relu", {b.Op("Conv", {x, b.Constant<float>({4, 4, 1, 1}, spread)})});
    std::vector<float> branch(std::size_t{8} * 4);
    for (size_t i = 0; i < branch.size(); ++i)
      branch[i] =
          0.1F * std::sin(static_cast<float>(i)) / std::pow(0.1F, static_cast<float>(i % 4) / 1.5F);
    const ValueId inner =
        b.Op("Conv", {stem, b.Constant<float>({8, 4, 1, 1}, branch)}, {{"strides", Ints{2, 2}}});
    sliced = b.Op("Slice", {stem, b.IntList({0, 0}), b.IntList({6, 6}), b.IntList({2, 3}),
                            b.IntList({2, 2})});
    padded = b.Op("Pad", {sliced, b.IntList({0, 2, 0, 0, 0, 2, 0, 0}), b.Scalar(padding)});
    sum = b.Op("Relu", {b.Op("Add", {inner, padded})});
    std::vector<float> last;
    for (int c = 0; c < 8; ++c)
      last.push_back(c < 2 || c > 5 ? 1 : std::pow(10.0F, static_cast<float>(c - 2) / 1.5F));
    b.Output(b.Op("Conv", {sum, b.Constant<float>({1, 8, 1, 1}, last)}));
    graph = b.Build();
  }
  Graph graph;
  ValueId stem;
  ValueId sliced;
  ValueId padded;
  ValueId sum;
};

TEST(ChannelLinks, FollowsShortcutsIntoWiderStages) {
  const WideningBlock block;
  const ChannelLinks links(block.graph);
  ASSERT_EQ(links.components().size(), 1U);
  EXPECT_EQ(links.components()[0].writers.size(), 2U);
  EXPECT_EQ(links.components()[0].readers.size(), 2U);
  for (size_t c = 0; c < 4; ++c) {
    EXPECT_EQ(links.ClassOf(block.stem, c), links.ClassOf(block.sliced, c));
    EXPECT_EQ(links.ClassOf(block.stem, c), links.ClassOf(block.padded, c + 2));
    EXPECT_EQ(links.ClassOf(block.stem, c), links.ClassOf(block.sum, c + 2));
  }
  EXPECT_NE(links.ClassOf(block.sum, 0), links.ClassOf(block.sum, 7));
  EXPECT_TRUE(ChannelLinks(WideningBlock(0.5F).graph).components().empty());
}

TEST(ChannelLinks, FollowsNeighboursThatASliceTakes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  const ValueId all = b.Op("Conv", {x, b.Random({6, 3, 1, 1})});
  const auto taken = [&](const Ints& from, const Ints& to, const Ints& step) {
    return b.Op("Slice", {all, b.IntList(from), b.IntList(to), b.IntList({-3}), b.IntList(step)});
  };
  const ValueId last = taken({-2}, {6}, {1});
  b.Output(b.Op("Conv", {last, b.Random({1, 2, 1, 1})}));
  EXPECT_EQ(ChannelLinks(b.Build()).ClassOf(last, 1), ChannelLinks(b.Build()).ClassOf(all, 5));
  // In another order, or with others between them.
  b.Output(b.Op("Conv", {taken({5}, {0}, {-1}), b.Random({1, 5, 1, 1})}));
  EXPECT_TRUE(ChannelLinks(b.Build()).components().empty());
}

// Only who knows what the outputs follow evens them out.
TEST(EqualizeChannels, PassesShortcutsIntoWiderStagesWithGains) {
  const WideningBlock block;
  Equalized(block.graph, 0);
  OutputGains gains;
  for (const auto& [id, channels] : {std::pair(block.stem, 4), std::pair(block.sum, 8)}) {
    // As the readers' weights are.
    std::vector<double> own;
    for (int c = 0; c < channels; ++c) {
      const int of_stem = id == block.stem ? c : c - 2;
      own.push_back(of_stem < 0 || of_stem > 3 ? 1 : std::pow(10.0, of_stem / 0.75));
    }
    gains.values[block.graph.value(id).name] = {own, own};
  }
  Graph equalized = block.graph;
  auto statistics = GatherStatistics(equalized, Samples(4, 6), {});
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  ASSERT_EQ(EqualizeChannels(equalized, {}, *statistics, nullptr, &gains).size(), 1U);
  const std::vector<Tensor> inputs = {Samples(4, 6).at("x")};
  EXPECT_TRUE(
      SameAnswers(WithUnknownExtents(block.graph, 8), WithUnknownExtents(equalized, 8), inputs));
  const QuantizeRecipe recipe{.to = Precision::kInt8, .equalize = false};
  EXPECT_LT(Noise(equalized, Samples(4, 6), recipe),
            0.5 * Noise(block.graph, Samples(4, 6), recipe));
}

// A layer of a transformer whose normalizations let two of 16 channels reach far, as trained ones do; the weights behind them
// take little of these. Attention of four heads, then two products around a Relu.
struct TransformerLayer {
  explicit TransformerLayer(bool decomposed = false) : b(17) {
    const ValueId x = b.Input("x", {kUnknownDim, 6, 16});
    first = Normalized(x, decomposed);
    const ValueId q = Heads(b.Op("MatMul", {first, Weights(16)}));
    const ValueId k = Heads(b.Op("MatMul", {first, Weights(16)}));
    value = b.Op("MatMul", {first, Weights(16)});
    const ValueId scores =
        b.Op("MatMul", {q, b.Op("Transpose", {k}, {{"perm", Ints{0, 1, 3, 2}}})});
    const ValueId shares = b.Op("Softmax", {b.Op("Mul", {scores, b.Scalar(0.5F)})});
    const ValueId heads = b.Op("MatMul", {shares, Heads(value)});
    context = b.Op("Reshape", {b.Op("Transpose",
                                    {
                                        heads,
                                    },
                                    {{"perm", Ints{0, 2, 1, 3}}}),
                               b.IntList({0, 6, 16})});
    const ValueId attended = b.Op("Add", {x, b.Op("MatMul", {context, b.Random({16, 16})})});
    second = Normalized(attended, decomposed);
    const ValueId wide = b.Op("Add", {b.Op("MatMul", {second, Weights(32)}), b.Random({32})});
    b.Output(b.Op("MatMul", {b.Op("Relu", {wide}), b.Random({32, 16})}));
    graph = b.Build();
  }

  // By one node, or by what opsets before 17 make it of.
  ValueId Normalized(ValueId x, bool decomposed) {
    const ValueId scale = b.Constant<float>({16}, Spread(80));
    const ValueId bias = b.Random({16});
    if (!decomposed) return b.Op("LayerNormalization", {x, scale, bias});
    const ValueId off = b.Op("Sub", {x, b.Op("ReduceMean", {x}, {{"axes", Ints{-1}}})});
    const ValueId square = b.Op("ReduceMean", {b.Op("Mul", {off, off})}, {{"axes", Ints{-1}}});
    const ValueId unit = b.Op("Div", {off, b.Op("Sqrt", {b.Op("Add", {square, b.Scalar(1e-5F)})})});
    return b.Op("Add", {b.Op("Mul", {unit, scale}), bias});
  }
  ValueId Heads(ValueId x) {
    return b.Op("Transpose", {b.Op("Reshape", {x, b.IntList({0, 6, 4, 4})})},
                {{"perm", Ints{0, 2, 1, 3}}});
  }
  // From 16 channels, little from those that reach far.
  ValueId Weights(int64_t outputs) {
    const std::vector<float> rows = Spread(1.0F / 80);
    std::vector<float> weights;
    for (const float row : rows) {
      for (int64_t o = 0; o < outputs; ++o)
        weights.push_back(row * std::sin(static_cast<float>(weights.size() * weights.size() + 1)));
    }
    return b.Constant<float>({16, outputs}, weights);
  }
  static std::vector<float> Spread(float far) {
    std::vector<float> spread(16, 1);
    spread[3] = spread[10] = far;
    return spread;
  }

  GraphBuilder b;
  ValueId first;
  ValueId second;
  ValueId value;
  ValueId context;
  Graph graph;
};

CalibrationSet Sequences() {
  Tensor samples(DType::kF32, Shape{32, 6, 16});
  float phase = 0;
  for (float& f : samples.mutable_span<float>()) f = 2 * std::sin(phase += 0.37F + phase / 4096);
  return {{"x", std::move(samples)}};
}

TEST(ChannelLinks, FollowsTheLastAxisThroughATransformer) {
  for (const bool decomposed : {false, true}) {
    const TransformerLayer layer(decomposed);
    const ChannelLinks links(layer.graph);
    EXPECT_EQ(links.components().size(),
              4U);  // Two normalizations, the values of the heads, the Relu.
    for (const ValueId normalized : {layer.first, layer.second}) {
      EXPECT_EQ(links.AxisOf(normalized), -1);
      EXPECT_EQ(links.ChannelsOf(normalized), 16);
      const auto of = std::ranges::find_if(links.components(), [&](const ChannelComponent& c) {
        return std::ranges::contains(c.values, normalized);
      });
      ASSERT_NE(of, links.components().end());
      EXPECT_TRUE(of->scaled_by_constants);
      EXPECT_EQ(of->constants.size(), 2U);
      EXPECT_EQ(of->readers.size(), normalized == layer.first ? 3U : 1U);
    }
    // The same channel of every head is one index of what the heads' product reads.
    EXPECT_EQ(links.ClassOf(layer.value, 2), links.ClassOf(layer.context, 2));
    EXPECT_EQ(links.ClassOf(layer.value, 2), links.ClassOf(layer.context, 14));
    EXPECT_NE(links.ClassOf(layer.value, 2), links.ClassOf(layer.value, 3));
  }
}

TEST(EqualizeChannels, LeavesTheAnswersOfATransformer) {
  for (const bool decomposed : {false, true}) {
    const TransformerLayer layer(decomposed);
    Graph copy = layer.graph;
    auto statistics = GatherStatistics(copy, Sequences(), {});
    ASSERT_TRUE(statistics.ok()) << statistics.status();
    EXPECT_GE(EqualizeChannels(copy, {}, *statistics).size(), 2U);
    ASSERT_TRUE(Verify(copy).ok()) << Verify(copy);
    const std::vector<Tensor> inputs = {Sequences().at("x")};
    EXPECT_TRUE(SameAnswers(WithUnknownExtents(layer.graph, 32), WithUnknownExtents(copy, 32),
                            inputs, {.rtol = 1e-3F, .atol = 1e-3F}));
  }
}

TEST(EqualizeChannels, MovesTheReachOfNormalizedChannelsIntoTheWeights) {
  const TransformerLayer layer;
  for (const RangeMethod method : {RangeMethod::kAuto, RangeMethod::kMinMax}) {
    const auto recipe = [&](bool smooth) {
      return QuantizeRecipe{.to = Precision::kInt8,
                            .method = method,
                            .smooth = smooth,
                            .floor = {AccuracyFloor::Kind::kAllInt8}};
    };
    // 10 dB.
    EXPECT_LT(Noise(layer.graph, Sequences(), recipe(true)),
              0.1 * Noise(layer.graph, Sequences(), recipe(false)))
        << RangeMethodName(method);
  }
}

TEST(EqualizeJudged, SaysWhatTheOutputsSaid) {
  const auto made =
      Quantize(TransformerLayer().graph,
               {.to = Precision::kInt8, .floor = {AccuracyFloor::Kind::kAllInt8}}, Sequences(), {});
  ASSERT_TRUE(made.ok()) << made.status();
  const auto tried =
      std::ranges::find(made->records, "reach of channels into the weights", &QuantizeRecord::name);
  ASSERT_NE(tried, made->records.end());
  EXPECT_THAT(tried->detail, ::testing::HasSubstr("outputs' noise over signal"));
  EXPECT_THAT(tried->detail, ::testing::Not(::testing::HasSubstr("not kept")));
}

// What is read beside the products keeps its channels: a residual sum behind the normalization.
TEST(ChannelLinks, LeavesANormalizationThatOthersRead) {
  GraphBuilder b(17);
  const ValueId x = b.Input("x", {kUnknownDim, 6, 16});
  const ValueId normalized = b.Op("LayerNormalization", {x, b.Random({16}), b.Random({16})});
  const ValueId product = b.Op("MatMul", {normalized, b.Random({16, 16})});
  b.Output(b.Op("Softmax", {b.Op("Add", {normalized, product})}));
  EXPECT_TRUE(ChannelLinks(b.Build()).components().empty());
}

TEST(ChannelLinks, LeavesOutWhatElseIsRead) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 6, 6});
  const ValueId a = b.Op("Conv", {x, b.Random({2, 3, 1, 1})});
  b.Output(b.Op("Conv", {a, b.Random({2, 2, 1, 1})}));
  b.Output(b.Op("Tanh", {a}));
  EXPECT_TRUE(ChannelLinks(b.Build()).components().empty());
}

}  // namespace equalize_test
}  // namespace octet
