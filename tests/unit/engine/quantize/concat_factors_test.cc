// Concatenations of what reaches far and what does not.
#include "engine/quantize/concat_factors.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/ops/reference_step.h"
#include "engine/quantize/insert_integers.h"
#include "engine/quantize/judged.h"
#include "engine/quantize/quantizer.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace concat_factors_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

// A gate's shares beside coordinates, which a later layer reads at equal weight: no factor passes the Sigmoid.
struct Head {
  explicit Head(std::string_view gate = "Sigmoid", float reach = 60) {
    GraphBuilder b(14);
    const ValueId x = b.Input("x", {kUnknownDim, 3, 8, 8});
    shares = b.Op(gate, {b.Op("Conv", {x, b.Random({4, 3, 1, 1}), b.Random({4})})});
    coordinates = b.Op("Conv", {x, b.Random({4, 3, 1, 1}, -reach, reach), b.Random({4})});
    joined = b.Op("Concat", {shares, coordinates}, {{"axis", int64_t{1}}});
    std::vector<float> weights;
    for (int o = 0; o < 6; ++o) {
      for (int i = 0; i < 8; ++i) {
        const float w = std::sin(static_cast<float>(1 + o * 8 + i));
        weights.push_back(i < 4 ? w : w / 60);
      }
    }
    reader = b.Op("Conv", {joined, b.Constant<float>({6, 8, 1, 1}, weights), b.Random({6})});
    b.Output(reader);
    graph = b.Build();
  }

  ConcatFactors Factors(const RangeTable& ranges) const {
    return FindConcatFactors(graph, SelectQuantized(graph), ranges);
  }

  Graph graph;
  ValueId shares = kNone;
  ValueId coordinates = kNone;
  ValueId joined = kNone;
  ValueId reader = kNone;
};

CalibrationSet Samples() {
  Tensor samples(DType::kF32, Shape{32, 3, 8, 8});
  float phase = 0;
  for (float& f : samples.mutable_span<float>()) {
    phase += 0.37F;
    f = std::sin(phase) + std::sin(phase / 7);
  }
  return {{"x", std::move(samples)}};
}

QuantizeResult Quantized(const Graph& graph, bool scale_concats,
                         RangeMethod method = RangeMethod::kAuto) {
  const QuantizeRecipe recipe{.to = Precision::kInt8,
                              .method = method,
                              .scale_concats = scale_concats,
                              .floor = {AccuracyFloor::Kind::kAllInt8}};
  auto result = Quantize(graph, recipe, Samples(), {});
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : QuantizeResult{};
}

double Noise(const Graph& fp32, const Graph& int8) {
  const CalibrationSet samples = Samples();
  KeptOutputs outputs(fp32);
  EXPECT_TRUE(Calibrate(fp32, outputs.Observations(), samples, {}).ok());
  const auto noise = outputs.NoiseOf(int8, samples, {});
  EXPECT_TRUE(noise.ok()) << noise.status();
  return noise.value_or(0);
}

TEST(ConcatFactors, HalveTheDistanceInPowersOfTwo) {
  const Head head;
  const RangeTable ranges = {{head.shares, {{0, 1}, ""}},
                             {head.coordinates, {{-256, 100}, ""}},
                             {head.joined, {{-256, 100}, ""}}};
  const ConcatFactors factors = head.Factors(ranges);
  EXPECT_THAT(factors.exponents, ElementsAre(Pair(head.shares, 4)));
  EXPECT_THAT(factors.ranges, ElementsAre(Pair(head.joined, Range{-256, 100})));
  const NodeId conv = head.graph.producer(head.reader);
  EXPECT_THAT(factors.readers, ElementsAre(Pair(conv, ElementsAre(16, 16, 16, 16, 1, 1, 1, 1))));
}

TEST(ConcatFactors, WidenTheWholeByWhatTheyScale) {
  const Head head("HardSwish");
  const RangeTable ranges = {{head.shares, {{-0.375F, 1}, ""}},
                             {head.coordinates, {{-0.375F, 64}, ""}},
                             {head.joined, {{-0.375F, 64}, ""}}};
  const ConcatFactors factors = head.Factors(ranges);
  EXPECT_THAT(factors.exponents, ElementsAre(Pair(head.shares, 3)));
  EXPECT_THAT(factors.ranges, ElementsAre(Pair(head.joined, Range{-3, 64})));
}

TEST(ConcatFactors, LeaveLikeRangesAlone) {
  const Head head;
  const RangeTable ranges = {{head.shares, {{0, 1}, ""}},
                             {head.coordinates, {{-1.9F, 1}, ""}},
                             {head.joined, {{-1.9F, 1}, ""}}};
  EXPECT_TRUE(head.Factors(ranges).exponents.empty());
}

TEST(ConcatFactors, NeedReadersThatTakeThemBack) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 8, 8});
  const ValueId near = b.Op("Sigmoid", {b.Op("Conv", {x, b.Random({4, 3, 1, 1})})});
  const ValueId far = b.Op("Conv", {x, b.Random({4, 3, 1, 1})});
  const ValueId joined = b.Op("Concat", {near, far}, {{"axis", int64_t{1}}});
  b.Output(b.Op("Conv", {joined, b.Random({2, 8, 1, 1})}));
  b.Output(b.Op("Conv", {b.Op("Sigmoid", {joined}), b.Random({2, 8, 1, 1})}));
  const Graph graph = b.Build();
  const RangeTable ranges = {
      {near, {{0, 1}, ""}}, {far, {{-256, 100}, ""}}, {joined, {{-256, 100}, ""}}};
  EXPECT_TRUE(FindConcatFactors(graph, SelectQuantized(graph), ranges).exponents.empty());
}

// Where an input stays in float, the Concat moves reals, and nobody multiplies them.
TEST(ConcatFactors, AreOfIntegersAlone) {
  const Head head;
  const RangeTable ranges = {{head.shares, {{0, 1}, ""}},
                             {head.coordinates, {{-256, 100}, ""}},
                             {head.joined, {{-256, 100}, ""}}};
  const Selection mixture = SelectQuantized(head.graph, {head.graph.producer(head.coordinates)});
  EXPECT_TRUE(std::ranges::contains(mixture.quantized, head.joined));
  EXPECT_TRUE(FindConcatFactors(head.graph, mixture, ranges).readers.empty());
}

TEST(ConcatFactors, AreNotOfWhatIsJoinedItself) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {1, 3, 8, 8});
  const auto conv = [&] { return b.Op("Conv", {x, b.Random({2, 3, 1, 1})}); };
  const ValueId first = conv();
  const ValueId second = conv();
  const ValueId far = conv();
  const ValueId near = b.Op("Concat", {first, second}, {{"axis", int64_t{1}}});
  const ValueId joined = b.Op("Concat", {near, far}, {{"axis", int64_t{1}}});
  b.Output(b.Op("Conv", {joined, b.Random({2, 6, 1, 1})}));
  const Graph graph = b.Build();
  RangeTable ranges;
  for (const ValueId id : {first, second, near}) ranges[id] = {{0, 1}, ""};
  for (const ValueId id : {far, joined}) ranges[id] = {{0, 256}, ""};
  EXPECT_TRUE(FindConcatFactors(graph, SelectQuantized(graph), ranges).exponents.empty());
}

TEST(ConcatFactors, KeepTheWeightsThatWereRoundedWithThem) {
  const Head head;
  Graph graph = head.graph;
  const auto statistics = GatherStatistics(graph, Samples(), {});
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  const QuantizeRecipe recipe{.to = Precision::kInt8, .method = RangeMethod::kMinMax};
  RoundedWeights rounded;
  const auto make = [&] {
    return InsertIntegers(graph, recipe, *statistics, statistics->selection,
                          RangesOf(graph, recipe, statistics->histograms), rounded);
  };
  const auto first = make();
  ASSERT_TRUE(first.ok()) << first.status();
  CompensatedWeights& kept = rounded.at(graph.producer(head.reader));
  EXPECT_GT(kept.factors[0], 1);
  // What is kept is taken, not made again.
  for (int8_t& q : kept.weights.values.mutable_span<int8_t>()) q = 1;
  const auto again = make();
  ASSERT_TRUE(again.ok()) << again.status();
  const NodeId conv = again->graph.producer(again->graph.outputs[0]);
  const NodeId weights = again->graph.producer(again->graph.node(conv).inputs[1]);
  EXPECT_EQ(again->graph.value(again->graph.node(weights).inputs[0]).constant.span<int8_t>()[0], 1);
}

TEST(ConcatFactors, KeepWhatOneRangeWouldDrown) {
  const Head head;
  const QuantizeResult with = Quantized(head.graph, true);
  const QuantizeResult without = Quantized(head.graph, false);
  EXPECT_LT(Noise(head.graph, with.graph), Noise(head.graph, without.graph) / 100);
  EXPECT_THAT(with.graph, HasExactly(1, "Mul"));
  EXPECT_THAT(without.graph, HasNo("Mul"));
  const auto tried = std::ranges::find_if(with.records, [](const QuantizeRecord& record) {
    return record.name == "finer steps for 1 inputs of 1 concatenations";
  });
  ASSERT_NE(tried, with.records.end());
  EXPECT_THAT(tried->detail, HasSubstr("without"));
}

TEST(ConcatFactors, AreLeftOutWhereNobodyLooksAtTheOutputs) {
  const Head head;
  EXPECT_THAT(Quantized(head.graph, true, RangeMethod::kMinMax).graph, HasNo("Mul"));
}

// What a detector joins behind its last layers is read by none: each value keeps its own range, and the answer is real.
TEST(ConcatFactors, AreNotNeededWhereOutputsAreJoined) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 3, 8, 8});
  const ValueId boxes = b.Op("Mul", {b.Op("Conv", {x, b.Random({4, 3, 1, 1})}), b.Scalar(640.0F)});
  const ValueId scores = b.Op("Sigmoid", {b.Op("Conv", {x, b.Random({5, 3, 1, 1})})});
  b.Output(b.Op("Concat", {boxes, scores}, {{"axis", int64_t{1}}}));
  const QuantizeResult result = Quantized(b.Build(), true);
  EXPECT_THAT(result.graph, HasExactly(1, "QuantizeLinear")) << "the input's";
}

}  // namespace concat_factors_test
}  // namespace octet
