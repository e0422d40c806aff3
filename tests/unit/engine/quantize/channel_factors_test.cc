// Factors of channels that leave the outputs less noise.
#include "engine/quantize/channel_factors.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "engine/quantize/equalize.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace channel_factors_test {

// Two channels, of which the second reaches a tenth as far, between two layers.
struct TwoChannels {
  explicit TwoChannels(const std::vector<float>& readers = {1, 1}, float clip = 0) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {kUnknownDim, 2});
    const ValueId first =
        b.Op("Gemm", {x, b.Constant<float>({2, 2}, {1, 0, 0, 0.1F})}, {{"transB", int64_t{1}}});
    hidden =
        clip > 0 ? b.Op("Clip", {first, b.Scalar(0.0F), b.Scalar(clip)}) : b.Op("Relu", {first});
    b.Output(b.Op("Gemm", {hidden, b.Constant<float>({1, 2}, readers)}, {{"transB", int64_t{1}}}));
    graph = b.Build();
    const auto gathered = GatherStatistics(graph, Samples(), {});
    EXPECT_TRUE(gathered.ok()) << gathered.status();
    statistics = *gathered;
  }

  static CalibrationSet Samples() {
    return {
        {"x", Tensor::From<float>(Shape{4, 2}, std::vector<float>{1, 1, 0.5F, 1, 1, 0, 0, 0.2F})}};
  }

  OutputGains Gains(double of_first, double of_second, double of_reader) const {
    OutputGains gains;
    const std::vector<double> hidden_gains = {of_first, of_second};
    gains.values[graph.value(hidden).name] = {hidden_gains, hidden_gains};
    gains.weights[graph.value(graph.outputs[0]).name] = {of_reader, of_reader};
    return gains;
  }

  // The second channel's factor over the first one's; `left` of the noise.
  double Ratio(const OutputGains& gains, double& left) const {
    const ChannelLinks links(graph);
    std::vector<double> factors(static_cast<size_t>(links.classes()), 1.0);
    left = MinimizeOutputNoise(graph, {}, statistics, links, links.components(), gains, factors);
    const auto of = [&](size_t c) {
      return factors[static_cast<size_t>(links.ClassOf(hidden, c))];
    };
    return of(1) / of(0);
  }

  Graph graph;
  ValueId hidden;
  Statistics statistics;
};

TEST(MinimizeOutputNoise, LetsChannelsReachAsFarAsEachOther) {
  const TwoChannels of;
  double left = 1;
  EXPECT_NEAR(of.Ratio(of.Gains(1, 1, 0), left), 10, 1.5);
  // From step^2 (1 + 1) to step^2 (1 + 1/100).
  EXPECT_NEAR(left, 0.505, 0.03);
}

TEST(MinimizeOutputNoise, CutsNoChannelForOneThatDoesNotMatter) {
  const TwoChannels of;
  double left = 1;
  // What is finer for the second channel costs the first one nothing until both reach as far.
  EXPECT_LT(of.Ratio(of.Gains(1, 1e-6, 0), left), 12);
  EXPECT_GT(left, 0.9);
}

TEST(MinimizeOutputNoise, MindsTheWeightsThatTakeTheFactorsBack) {
  const TwoChannels of;
  double left = 1;
  // Both reader's weights are on the largest integer; to let one reach further makes the other's steps coarser.
  EXPECT_NEAR(of.Ratio(of.Gains(1e-6, 1e-6, 1), left), 1, 0.3);
  // A reader that takes little of the second channel has room for it.
  const TwoChannels room({0.1F, 1});
  EXPECT_LT(room.Ratio(room.Gains(1e-6, 1e-6, 1), left), 20);
  EXPECT_GT(room.Ratio(room.Gains(1e-6, 1e-6, 1), left), 5);
}

TEST(MinimizeOutputNoise, StaysInsideAClip) {
  // The second channel reaches 0.1: up to half of the clip is 1.5 times of it.
  const TwoChannels of({1, 1}, 0.3F);
  double left = 1;
  EXPECT_LE(of.Ratio(of.Gains(1, 1, 0), left), 1.5 + 1e-6);
}

TEST(MinimizeOutputNoise, LeavesFactorsThatNothingBetters) {
  const TwoChannels of;
  double left = 0;
  EXPECT_EQ(of.Ratio({}, left), 1);
  EXPECT_EQ(left, 1);
}

TEST(EqualizeChannels, LeavesTheAnswersWithGains) {
  const TwoChannels of;
  const OutputGains gains = of.Gains(1, 1, 1e-3);
  Graph equalized = of.graph;
  Statistics statistics = of.statistics;
  const auto records = EqualizeChannels(equalized, {}, statistics, nullptr, &gains);
  ASSERT_FALSE(records.empty());
  EXPECT_EQ(records.back().name, "factors of all channels");
  const std::vector<Tensor> inputs = {TwoChannels::Samples().at("x")};
  EXPECT_TRUE(
      SameAnswers(WithUnknownExtents(of.graph, 4), WithUnknownExtents(equalized, 4), inputs));
}

TEST(ChannelFactors, AreSoughtInFewerStepsAmongManyPairs) {
  EXPECT_EQ(SearchSteps(0), 300);
  EXPECT_EQ(SearchSteps(4'000'000), 300);
  EXPECT_EQ(SearchSteps(8'000'000), 150);
  EXPECT_EQ(SearchSteps(1'000'000'000), 60);
}

}  // namespace channel_factors_test
}  // namespace octet
