// The search for layers that stay in float: what it finds, and what it says where there is nothing to find.
#include "engine/quantize/mixed_precision.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/engine.h"
#include "engine/quantize/held_back.h"
#include "engine/quantize/latency_meter.h"
#include "engine/quantize/quantizer.h"
#include "engine/tensor/output_agreement.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace mixed_precision_test {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using Kind = AccuracyFloor::Kind;

constexpr int64_t kFeatures = 8;

// x -> MatMul -> Relu -> MatMul -> Exp -> MatMul -> Log -> MatMul -> scores. The third product reads powers from e^-12 to e^12,
// most of which no step of an 8-bit grid tells from zero, and a logarithm behind it looks at them all.
Graph PowersAndLogarithm() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, kFeatures});
  std::vector<float> diagonal(kFeatures * kFeatures);
  for (size_t i = 0; i < kFeatures; ++i) diagonal[i * (kFeatures + 1)] = 12;
  const ValueId hidden = b.Op("Relu", {b.Op("MatMul", {x, b.Random({kFeatures, 32})})});
  const ValueId mixed =
      b.Op("Add", {x, b.Op("MatMul", {hidden, b.Random({32, kFeatures}, -0.01F, 0.01F)})});
  const ValueId exponents = b.Op("Mul", {mixed, b.Scalar(12.0F)});
  const ValueId powers = b.Op("Exp", {exponents});
  const ValueId bands =
      b.Op("MatMul", {powers, b.Constant<float>({kFeatures, kFeatures}, diagonal)});
  const ValueId logs = b.Op("Log", {b.Op("Add", {bands, b.Scalar(1e-6F)})});
  b.Output(b.Op("MatMul", {logs, b.Random({kFeatures, 4})}), "scores");
  return b.Build();
}

Graph TwoProducts() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, kFeatures});
  const ValueId hidden = b.Op("Relu", {b.Op("MatMul", {x, b.Random({kFeatures, 16})})});
  b.Output(b.Op("MatMul", {hidden, b.Random({16, 4})}), "scores");
  return b.Build();
}

// x -> MatMul -> Relu -> four blocks h + MatMul(Relu(MatMul(h))) -> MatMul -> scores.
Graph ResidualBlocks() {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, kFeatures});
  ValueId h = b.Op("Relu", {b.Op("MatMul", {x, b.Random({kFeatures, 16})})});
  for (int block = 0; block < 4; ++block) {
    const ValueId inner = b.Op("Relu", {b.Op("MatMul", {h, b.Random({16, 16}, -0.2F, 0.2F)})});
    h = b.Op("Add", {h, b.Op("MatMul", {inner, b.Random({16, 16}, -0.2F, 0.2F)})});
  }
  b.Output(b.Op("MatMul", {h, b.Random({16, 4})}), "scores");
  return b.Build();
}

CalibrationSet SamplesOf(int64_t count) {
  Tensor samples(DType::kF32, Shape{count, kFeatures});
  float phase = 0;
  for (float& f : samples.mutable_span<float>()) f = std::sin(phase += 0.37F);
  return {{"x", std::move(samples)}};
}

// TimesOf takes a layer whose weights are bytes for one in int8.
QuantizeRecipe With(AccuracyFloor floor, uint64_t seed = 0) {
  return {.to = Precision::kInt8, .byte_constants = false, .floor = floor, .seed = seed};
}

// Seconds of a product in each precision, by its name where it is listed.
struct Costs {
  double int8 = 1;
  double bf16 = 2;
  double f32 = 3;
};
// Of the QuantizeLinear before a product, by the product's name; 0 for others.
using Borders = std::map<std::string, double>;

TimeSource TimesOf(const Costs& costs, const std::map<std::string, Costs>& of = {},
                   const Borders& borders = {}) {
  return [=](const Graph& graph) {
    std::vector<StepTime> steps;
    for (const NodeId id : graph.order()) {
      const Node& node = graph.node(id);
      if (node.is("QuantizeLinear")) {
        const NodeId dequantize = graph.consumers(node.output(0)).front();
        const NodeId reader = graph.consumers(graph.node(dequantize).output(0)).front();
        const auto border = borders.find(graph.node(reader).name);
        steps.push_back({"", false, border == borders.end() ? 0 : border->second});
      }
      if (!node.is("MatMul")) continue;
      const auto own = of.find(node.name);
      const Costs& cost = own == of.end() ? costs : own->second;
      const NodeId weights = graph.producer(node.input(1));
      const bool integers = weights != kNone && graph.node(weights).is("DequantizeLinear");
      steps.push_back({node.name, true,
                       integers       ? cost.int8
                       : node.in_bf16 ? cost.bf16
                                      : cost.f32});
    }
    return steps;
  };
}

QuantizeResult Quantized(const Graph& graph, const QuantizeRecipe& recipe,
                         std::vector<int64_t> labels = {}, TimeSource time = TimesOf({})) {
  auto made = Quantize(graph, recipe, SamplesOf(64),
                       {.labels = std::move(labels), .time = std::move(time)});
  if (!made.ok()) {
    ADD_FAILURE() << made.status();
    return {};
  }
  return *std::move(made);
}

std::vector<LayerPrecision> PrecisionsOf(const QuantizeResult& made) {
  std::vector<LayerPrecision> precisions;
  if (!made.mixed) return precisions;
  for (const LayerDecision& layer : made.mixed->layers) precisions.push_back(layer.precision);
  return precisions;
}

std::vector<bool> InInt8(const QuantizeResult& made) {
  std::vector<bool> int8;
  if (!made.mixed) return int8;
  for (const LayerDecision& layer : made.mixed->layers)
    int8.push_back(layer.precision == LayerPrecision::kInt8);
  return int8;
}

const MixedPoint& Chosen(const MixedPrecision& mixed) {
  return *std::ranges::find(mixed.points, true, &MixedPoint::chosen);
}

struct Classes : Collector {
  absl::Status Observe(ConstTensorView batch) override {
    const auto scores = batch.span<float>();
    for (size_t at = 0; at < scores.size(); at += 4)
      seen.push_back(static_cast<int64_t>(*TopClass(scores.subspan(at, 4))));
    return absl::OkStatus();
  }
  std::vector<int64_t> seen;
};

std::vector<int64_t> LabelsOf(const Graph& graph) {
  Classes classes;
  const Observation observations[] = {{graph.outputs[0], &classes}};
  EXPECT_TRUE(Calibrate(graph, observations, SamplesOf(64), {}).ok());
  return classes.seen;
}

TEST(MixedPrecision, KeepsTheOneHopelessLayerInFloat) {
  const Graph graph = PowersAndLogarithm();
  for (const AccuracyFloor floor : {AccuracyFloor{Kind::kMinSqnr, 25}, AccuracyFloor{}}) {
    const QuantizeResult made = Quantized(graph, With(floor));
    EXPECT_THAT(InInt8(made), ElementsAre(true, true, false, true));
    ASSERT_TRUE(made.mixed);
    EXPECT_TRUE(Chosen(*made.mixed).holds);
    EXPECT_LT(*made.mixed->layers[2].alone_sqnr_db, 10);
    EXPECT_GT(*made.mixed->layers[0].alone_sqnr_db, 25);
    // Three products of constants remain behind DequantizeLinear.
    EXPECT_THAT(made.graph, HasExactly(4, "MatMul"));
    EXPECT_THAT(made.graph, HasExactly(6, "DequantizeLinear"));
  }
}

TEST(MixedPrecision, LeavesAloneWhatHoldsTheFloor) {
  const Graph graph = TwoProducts();
  const QuantizeResult made = Quantized(graph, With({Kind::kMinSqnr, 20}));
  EXPECT_THAT(InInt8(made), ElementsAre(true, true));
  EXPECT_FALSE(made.mixed->layers[0].alone_sqnr_db);
  EXPECT_EQ(made.mixed->held_back, 32);
  EXPECT_EQ(made.mixed->runs, 3);
  EXPECT_EQ(Chosen(*made.mixed).int8_share, 1);
  EXPECT_FALSE(Quantized(graph, With({})).mixed) << "the automatic floor holds without a search";
}

TEST(MixedPrecision, AddsRealsBeforeLayersAreInFloat) {
  const Graph graph = ResidualBlocks();
  const auto alone = [&](bool fewer_roundings) {
    QuantizeRecipe recipe = With({Kind::kMinSqnr, 1});
    recipe.fewer_roundings = fewer_roundings;
    return Chosen(*Quantized(graph, recipe).mixed).sqnr_db;
  };
  const double plain = alone(false);
  const double fewer = alone(true);
  ASSERT_GT(fewer, plain + 0.1) << "else the graph tells nothing";
  const double between = (plain + fewer) / 2;
  const QuantizeResult made = Quantized(graph, With({Kind::kMinSqnr, between}));
  EXPECT_THAT(InInt8(made), Each(true));
  EXPECT_GE(Chosen(*made.mixed).sqnr_db, between);
  EXPECT_THAT(made.records, Contains(Field(&QuantizeRecord::what, "fewer-roundings")));
  EXPECT_THAT(made.graph.metadata.at("octet.recipe"),
              HasSubstr(" fewer-roundings float-layers=0 of 10"));
  const QuantizeResult noisier = Quantized(graph, With({Kind::kMinSqnr, plain - 0.1}));
  EXPECT_THAT(noisier.records, Not(Contains(Field(&QuantizeRecord::what, "fewer-roundings"))));
}

TEST(MixedPrecision, IsNotAskedForByAllInt8) {
  const QuantizeResult made = Quantized(PowersAndLogarithm(), With({Kind::kAllInt8}));
  EXPECT_FALSE(made.mixed);
  EXPECT_THAT(made.graph, HasExactly(8, "DequantizeLinear"));
}

// Nothing would be left in int8: the file that was asked for is made, and its record says what it is worth.
TEST(MixedPrecision, MakesANoisyFileWhereNoMixtureIsLessNoisy) {
  GraphBuilder b;
  const ValueId powers =
      b.Op("Exp", {b.Op("Mul", {b.Input("x", {kUnknownDim, kFeatures}), b.Scalar(12.0F)})});
  std::vector<float> swapped(kFeatures * kFeatures);
  for (size_t i = 0; i < kFeatures; ++i) swapped[i * kFeatures + kFeatures - 1 - i] = 1;
  const ValueId bands =
      b.Op("MatMul", {powers, b.Constant<float>({kFeatures, kFeatures}, swapped)});
  b.Output(b.Op("Log", {b.Op("Add", {bands, b.Scalar(1e-6F)})}), "logs");
  const QuantizeResult made = Quantized(b.Build(), With({}));
  EXPECT_FALSE(made.mixed);
  EXPECT_THAT(made.graph, HasExactly(2, "DequantizeLinear"));
  EXPECT_THAT(made.records,
              Contains(AllOf(Field(&QuantizeRecord::what, "noisy"),
                             Field(&QuantizeRecord::detail, HasSubstr("alone in int8")))));
}

TEST(MixedPrecision, HoldsAFloorOfLabelsAndOfAgreement) {
  const Graph graph = PowersAndLogarithm();
  const std::vector<int64_t> labels = LabelsOf(graph);
  const QuantizeResult by_labels =
      Quantized(graph, With({Kind::kMaxDrop, 4}), labels, TimesOf({.bf16 = 3}));
  ASSERT_TRUE(by_labels.mixed);
  EXPECT_LE(*Chosen(*by_labels.mixed).lost, 4);
  EXPECT_LE(*Chosen(*by_labels.mixed).drop, *Chosen(*by_labels.mixed).lost);
  EXPECT_FALSE(InInt8(by_labels)[2]);
  EXPECT_EQ(by_labels.graph.metadata.at("octet.recipe"),
            "static auto activations=u8 weights=per-channel float-layers=1 of 4");
  const QuantizeResult by_agreement = Quantized(graph, With({Kind::kMinAgreement, 96}));
  ASSERT_TRUE(by_agreement.mixed);
  EXPECT_GE(*Chosen(*by_agreement.mixed).agreement, 96);
  EXPECT_FALSE(Chosen(*by_agreement.mixed).drop) << "there are no labels";
}

// 32 samples cannot show a loss of a third of a point.
TEST(MixedPrecision, DoesNotTrustCountsThatAreTooCoarse) {
  const Graph graph = PowersAndLogarithm();
  const QuantizeResult made = Quantized(graph, With({Kind::kMaxDrop, 0.3}), LabelsOf(graph));
  ASSERT_TRUE(made.mixed);
  EXPECT_EQ(Chosen(*made.mixed).lost, 0);
  EXPECT_GE(Chosen(*made.mixed).sqnr_db, AccuracyFloor::kAutoSqnrDb);
  EXPECT_THAT(made.mixed->floor, HasSubstr("one sample being 3.12 %"));
}

TEST(MixedPrecision, FindsTheSameForTheSameSeed) {
  const Graph graph = PowersAndLogarithm();
  const auto described = [&](uint64_t seed) {
    const QuantizeResult made = Quantized(graph, With({Kind::kMinSqnr, 25}, seed));
    std::string text = Dump(made.graph);
    for (const MixedPoint& point : made.mixed->points) text += Format(" {}", point.sqnr_db);
    return text;
  };
  EXPECT_EQ(described(7), described(7));
  EXPECT_NE(described(7), described(8)) << "other samples are held back";
}

TEST(MixedPrecision, ShowsAFrontOfAccuracyAgainstLatency) {
  const QuantizeResult made = Quantized(PowersAndLogarithm(), With({Kind::kMinSqnr, 25}));
  ASSERT_TRUE(made.mixed);
  EXPECT_GE(made.mixed->points.size(), 4U);
  double last = -std::numeric_limits<double>::infinity();
  for (const MixedPoint& point : made.mixed->points) {
    if (!point.on_front) continue;
    EXPECT_GT(point.sqnr_db, last)
        << "speed costs accuracy, or the point before is none of the front";
    last = point.sqnr_db;
  }
  EXPECT_EQ(made.mixed->points.front().int8_share, 1);
  EXPECT_TRUE(std::ranges::is_sorted(made.mixed->points, {}, &MixedPoint::us_per_sample));
  EXPECT_TRUE(Chosen(*made.mixed).on_front);
}

using enum LayerPrecision;

TEST(MixedPrecision, PutsInBf16WhatIsFasterThereThanInF32) {
  const Graph graph = PowersAndLogarithm();
  const QuantizeResult made = Quantized(graph, With({Kind::kMinSqnr, 25}));
  if (!DetectTarget(1).bf16) {
    EXPECT_THAT(PrecisionsOf(made), ElementsAre(kInt8, kInt8, kF32, kInt8));
    EXPECT_FALSE(made.mixed->layers[2].bf16_us);
    return;
  }
  EXPECT_THAT(PrecisionsOf(made), ElementsAre(kInt8, kInt8, kBf16, kInt8));
  ASSERT_TRUE(made.mixed);
  const MixedPoint& chosen = Chosen(*made.mixed);
  EXPECT_EQ(chosen.bf16_layers, 1);
  EXPECT_NEAR(chosen.us_per_sample, 5e6, 1);
  EXPECT_GT(chosen.bf16_share, 0);
  EXPECT_GE(chosen.sqnr_db, 25);
  EXPECT_NEAR(*made.mixed->layers[2].bf16_us, 1e6, 1);
  EXPECT_NEAR(*made.mixed->layers[2].f32_us, 2e6, 1);
  EXPECT_TRUE(made.graph.node(made.graph.FindNode(made.mixed->layers[2].name)).in_bf16);
  EXPECT_EQ(made.graph.metadata.at("octet.recipe"),
            "static auto activations=u8 weights=per-channel float-layers=1 of 4 bf16-layers=1");
  const QuantizeResult no_gain =
      Quantized(graph, With({Kind::kMinSqnr, 25}), {}, TimesOf({.bf16 = 3}));
  EXPECT_THAT(PrecisionsOf(no_gain), ElementsAre(kInt8, kInt8, kF32, kInt8));
}

// Where bf16 is not accurate enough, f32 is.
TEST(MixedPrecision, HoldsAFloorThatBf16Breaks) {
  const QuantizeResult made = Quantized(PowersAndLogarithm(), With({Kind::kMinSqnr, 70}));
  ASSERT_TRUE(made.mixed);
  EXPECT_EQ(PrecisionsOf(made)[2], kF32);
  EXPECT_GE(Chosen(*made.mixed).sqnr_db, 70);
}

TEST(MixedPrecision, LeavesInFloatWhatIsSlowerInInt8) {
  const Graph graph = TwoProducts();
  const std::string first = graph.node(graph.order().front()).name;
  const TimeSource slower = TimesOf({}, {{first, {.int8 = 4, .bf16 = 5, .f32 = 3}}});
  const QuantizeResult made = Quantized(graph, With({Kind::kMinSqnr, 20}), {}, slower);
  EXPECT_THAT(PrecisionsOf(made), ElementsAre(kF32, kInt8));
  EXPECT_EQ(made.mixed->layers[0].why, "it is slower in int8");
  EXPECT_NEAR(Chosen(*made.mixed).us_per_sample, 4e6, 1);
  // A conversion at its border is a layer's own.
  const TimeSource border = TimesOf({}, {}, {{first, 2.5}});
  EXPECT_THAT(PrecisionsOf(Quantized(graph, With({Kind::kMinSqnr, 20}), {}, border)),
              ElementsAre(DetectTarget(1).bf16 ? kBf16 : kF32, kInt8));
}

// Layers that are compiled when they run: nobody knows their times in advance.
TEST(MixedPrecision, EstimatesWhereLayersCannotBeTimed) {
  for (const std::vector<StepTime>& steps :
       {std::vector<StepTime>{{"", false, 1e-6}}, std::vector<StepTime>()}) {
    const QuantizeResult made = Quantized(PowersAndLogarithm(), With({Kind::kMinSqnr, 60}), {},
                                          [&](const Graph&) { return steps; });
    ASSERT_TRUE(made.mixed);
    EXPECT_FALSE(made.mixed->measured_times);
    for (const LayerDecision& layer : made.mixed->layers) EXPECT_FALSE(layer.f32_us);
    EXPECT_TRUE(std::isfinite(Chosen(*made.mixed).us_per_sample));
    EXPECT_EQ(Chosen(*made.mixed).bf16_layers, 0);
  }
}

TEST(MixedPrecision, TakesNoMarksFromTheModel) {
  Graph graph = TwoProducts();
  for (const NodeId id : graph.OrderSnapshot()) graph.mutable_node(id).in_bf16 = true;
  const QuantizeResult made = Quantized(graph, With({}));
  for (const NodeId id : made.graph.order()) EXPECT_FALSE(made.graph.node(id).in_bf16);
}

TEST(MixedPrecision, IsAllInt8WhereThatIsFasterNowhere) {
  const QuantizeResult made =
      Quantized(TwoProducts(), With({Kind::kMinSqnr, 20}), {}, TimesOf({.int8 = 9}));
  EXPECT_THAT(PrecisionsOf(made), ElementsAre(kInt8, kInt8));
  EXPECT_THAT(made.mixed->layers[0].why, HasSubstr("faster in no layer"));
}

// A seed decides on any machine: without a floor times are reported and nothing else, as long as fp32 is not faster.
TEST(MixedPrecision, LooksAtNoTimesWithoutAFloor) {
  const Graph graph = PowersAndLogarithm();
  const QuantizeResult fast = Quantized(graph, With({}));
  const QuantizeResult slow =
      Quantized(graph, With({}), {}, TimesOf({.int8 = 9, .bf16 = 1, .f32 = 9}));
  EXPECT_EQ(Dump(fast.graph), Dump(slow.graph));
  ASSERT_TRUE(slow.mixed);
  EXPECT_FALSE(slow.mixed->measured_times);
  EXPECT_EQ(Chosen(*slow.mixed).bf16_layers, 0);
  EXPECT_FALSE(slow.mixed->layers[0].f32_us);
  EXPECT_NEAR(Chosen(*slow.mixed).us_per_sample, 36e6, 1);
}

std::string SlowerRecord(const QuantizeResult& made) {
  const auto found = std::ranges::find(made.records, "slower", &QuantizeRecord::what);
  return found == made.records.end() ? "" : found->detail;
}

TEST(SlowerThanFp32, PutsBackWhatGainsNothing) {
  const Graph graph = TwoProducts();
  const std::string first = graph.node(graph.order().front()).name;
  const Costs slower = {.int8 = 9, .bf16 = 5, .f32 = 3};
  const QuantizeResult made = Quantized(graph, With({}), {}, TimesOf({}, {{first, slower}}));
  EXPECT_THAT(PrecisionsOf(made), ElementsAre(kF32, kInt8));
  EXPECT_THAT(SlowerRecord(made), HasSubstr("10000.000 ms in int8, 6000.000 ms in fp32"));
  EXPECT_NEAR(Chosen(*made.mixed).us_per_sample, 4e6, 1);
  EXPECT_TRUE(made.mixed->measured_times);
  // A floor of the user's, or none of any kind, is another recipe.
  const TimeSource times = TimesOf({}, {{first, slower}});
  EXPECT_EQ(SlowerRecord(Quantized(graph, With({Kind::kMinSqnr, 20}), {}, times)), "");
  const QuantizeResult all_int8 = Quantized(graph, With({Kind::kAllInt8}), {}, times);
  EXPECT_EQ(SlowerRecord(all_int8), "");
  EXPECT_THAT(all_int8.graph, HasExactly(2, "QuantizeLinear"));
}

TEST(SlowerThanFp32, IsFp32WhereNothingIsFaster) {
  const QuantizeResult made =
      Quantized(TwoProducts(), With({}), {}, TimesOf({.int8 = 9, .bf16 = 5}));
  EXPECT_THAT(PrecisionsOf(made), ElementsAre(kF32, kF32));
  EXPECT_THAT(made.graph, HasNo("QuantizeLinear"));
  EXPECT_NE(SlowerRecord(made), "");
  EXPECT_EQ(Chosen(*made.mixed).float_layers, 2);
  EXPECT_GT(Chosen(*made.mixed).sqnr_db, 30) << "but its constants are bytes";
}

// Each layer by itself gains by int8, but all of them together convert more than that.
TEST(SlowerThanFp32, TriesFewerLayersWhereConversionsTakeMoreThanTheyGain) {
  GraphBuilder b;
  ValueId x = b.Input("x", {kUnknownDim, kFeatures});
  for (int i = 0; i < 6; ++i) x = b.Op("Relu", {b.Op("MatMul", {x, b.Random({8, 8})})});
  b.Output(b.Op("MatMul", {x, b.Random({kFeatures, 4})}), "scores");
  const Graph graph = b.Build();
  const std::string best = graph.node(graph.order()[4]).name;
  // What a network takes beside its layers grows with how many of them are in int8.
  const TimeSource layers =
      TimesOf({.int8 = 2, .bf16 = 5, .f32 = 3}, {{best, {.int8 = 1, .bf16 = 5, .f32 = 6}}});
  const TimeSource times = [&](const Graph& made) -> absl::StatusOr<std::vector<StepTime>> {
    OCTET_ASSIGN_OR_RETURN(std::vector<StepTime> steps, layers(made));
    const double integers = CountOps(made, "QuantizeLinear");
    steps.insert(steps.begin(), {"", false, integers * integers / 2});
    return steps;
  };
  const QuantizeResult made = Quantized(graph, With({}), {}, times);
  ASSERT_TRUE(made.mixed);
  std::vector<bool> expected(7, false);
  expected[2] = true;
  EXPECT_EQ(InInt8(made), expected);
  EXPECT_THAT(made.mixed->layers[0].why, HasSubstr("int8"));
}

TEST(SlowerThanFp32, IsNotAskedOfWhatHardlyTakesTime) {
  const QuantizeResult made =
      Quantized(TwoProducts(), With({}), {}, TimesOf({.int8 = 4e-4, .bf16 = 3e-4, .f32 = 2e-4}));
  EXPECT_FALSE(made.mixed);
  EXPECT_EQ(SlowerRecord(made), "");
}

TEST(SlowerThanFp32, IsWrittenWhereNoSamplesTellAMixture) {
  const auto made = Quantize(TwoProducts(), With({}), SamplesOf(1), {.time = TimesOf({.int8 = 9})});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_FALSE(made->mixed);
  EXPECT_THAT(SlowerRecord(*made), HasSubstr("at least 2"));
}

TEST(LatencyMeter, ComparesByTheClock) {
  const auto products = [](int count) {
    GraphBuilder b;
    ValueId x = b.Input("x", {kUnknownDim, 128});
    for (int i = 0; i < count; ++i) x = b.Op("MatMul", {x, b.Random({128, 128})});
    b.Output(x, "y");
    return b.Build();
  };
  CalibrationSet sample;
  sample.emplace("x", Tensor(DType::kF32, Shape{1, 128}));
  std::ranges::fill(sample.at("x").mutable_span<float>(), 0.5F);
  LatencyMeter meter(std::move(sample), {});
  const auto first = meter.Compare(products(2), 0);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->ratio, 1);
  EXPECT_GT(meter.reference_seconds(), 0);
  const auto turn = meter.Compare(products(32), 0.05);
  ASSERT_TRUE(turn.ok()) << turn.status();
  EXPECT_GT(turn->ratio, 4);
  EXPECT_EQ(std::ranges::count(turn->graph, true, &StepTime::multiplies), 32);
  EXPECT_EQ(std::ranges::count(turn->reference, true, &StepTime::multiplies), 2);
}

std::string Refusal(const QuantizeRecipe& recipe, absl::StatusCode code, CalibrationRun run = {}) {
  run.time = TimesOf({});
  const auto made = Quantize(TwoProducts(), recipe, SamplesOf(64), run);
  EXPECT_EQ(made.status().code(), code) << made.status();
  return std::string(Message(made.status()));
}

TEST(MixedPrecision, SaysWhatWasReachedWhereNoMixtureHolds) {
  EXPECT_THAT(
      Refusal(With({Kind::kMinSqnr, 200}), absl::StatusCode::kFailedPrecondition),
      AllOf(HasSubstr("SQNR of at least 200 dB"), HasSubstr("alone in int8 there is an SQNR"),
            HasSubstr("with all layers an SQNR of")));
}

TEST(MixedPrecision, NeedsLabelsForALossOfTop1) {
  EXPECT_THAT(Refusal(With({Kind::kMaxDrop, 0.3}), absl::StatusCode::kInvalidArgument),
              AllOf(HasSubstr("0.3 points"), HasSubstr("labels")));
  EXPECT_THAT(Refusal(With({Kind::kMaxDrop, 0.3}), absl::StatusCode::kInvalidArgument,
                      {.labels = {1, 2, 3}}),
              HasSubstr("expected 64 labels"));
}

TEST(MixedPrecision, NeedsScoresForClasses) {
  GraphBuilder b;
  const ValueId y =
      b.Op("MatMul", {b.Input("x", {kUnknownDim, kFeatures}), b.Random({kFeatures, 1})});
  b.Output(y, "y");
  const auto made = Quantize(b.Build(), With({Kind::kMinAgreement, 99}), SamplesOf(64), {});
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(made.status())), HasSubstr("class scores"));
}

TEST(MixedPrecision, NeedsTwiceTheBatchThatAModelHasOfItsOwn) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {40, kFeatures});
  b.Output(b.Op("MatMul", {x, b.Random({kFeatures, 4})}), "y");
  const Graph graph = b.Build();
  const CalibrationRun run{.time = TimesOf({})};
  const auto few = Quantize(graph, With({Kind::kMinSqnr, 10}), SamplesOf(79), run);
  EXPECT_EQ(few.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(few.status())),
              AllOf(HasSubstr("takes 40 at once"), HasSubstr("expected at least 80 samples"),
                    HasSubstr("got 79")));
  const auto enough = Quantize(graph, With({Kind::kMinSqnr, 10}), SamplesOf(80), run);
  EXPECT_TRUE(enough.ok()) << enough.status();
}

TEST(MixedPrecision, StopsWhenProgressSaysSo) {
  int calls = 0;
  const auto made =
      Quantize(PowersAndLogarithm(), With({Kind::kMinSqnr, 25}), SamplesOf(64),
               {.progress = [&](int64_t, int64_t) { return ++calls < 40; }, .time = TimesOf({})});
  EXPECT_TRUE(absl::IsCancelled(made.status())) << made.status();
}

CalibrationSet Counted(int64_t count) {
  Tensor samples(DType::kF32, Shape{count, 1});
  for (int64_t i = 0; i < count; ++i)
    samples.mutable_span<float>()[static_cast<size_t>(i)] = static_cast<float>(i);
  return {{"x", std::move(samples)}};
}

std::vector<float> Values(const CalibrationData& set) {
  std::vector<float> values(static_cast<size_t>(set.count()));
  EXPECT_TRUE(set.Read("x", 0, set.count(), values.data()).ok());
  return values;
}

TEST(HoldBack, CutsTheSetInTwo) {
  std::vector<int64_t> labels(10);
  for (size_t i = 0; i < 10; ++i) labels[i] = static_cast<int64_t>(100 + i);
  const auto split = HoldBack(Counted(10), labels, 4, 3);
  ASSERT_TRUE(split.ok()) << split.status();
  const std::vector<float> held_back = Values(split->held_back);
  EXPECT_THAT(held_back, SizeIs(4));
  for (size_t i = 0; i < held_back.size(); ++i)
    EXPECT_EQ(split->labels[i], 100 + static_cast<int64_t>(held_back[i]));
  std::vector<float> all = Values(split->ranges);
  all.insert(all.end(), held_back.begin(), held_back.end());
  std::ranges::sort(all);
  EXPECT_THAT(all, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST(HoldBack, TakesHalfAtMost) {
  const auto split = HoldBack(Counted(9), {}, 100, 0);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(split->held_back.count(), 4);
  EXPECT_THAT(split->labels, IsEmpty());
  const CalibrationData first = FirstSamples(split->ranges, 3);
  EXPECT_THAT(Values(first), SizeIs(3));
  EXPECT_THAT(Values(first), ElementsAreArray(Values(split->ranges).data(), 3));
}

TEST(HoldBack, RefusesASingleSample) {
  EXPECT_EQ(HoldBack(Counted(1), {}, 100, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace mixed_precision_test
}  // namespace octet
