// Channels evened out: the same answers in fp32, finer ones in int8.
#include "engine/quantize/equalize.h"

#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/reference_step.h"
#include "engine/quantize/channel_links.h"
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

double Noise(const Graph& fp32, bool equalize) {
  const CalibrationSet set = Samples(4, 6);
  const auto made = Quantize(fp32, {.to = Precision::kInt8, .equalize = equalize}, set, {});
  EXPECT_TRUE(made.ok()) << made.status();
  const std::vector<Tensor> inputs = {set.at("x")};
  const auto want = Evaluate(WithUnknownExtents(fp32, 8), inputs);
  const auto got = Evaluate(WithUnknownExtents(made->graph, 8), inputs);
  EXPECT_TRUE(want.ok() && got.ok()) << want.status() << got.status();
  double noise = 0;
  for (int64_t i = 0; i < want->front().elements(); ++i) {
    const double off = want->front().span<float>()[i] - got->front().span<float>()[i];
    noise += off * off;
  }
  return noise;
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
