// The search for layers that stay in float: what it finds, and what it says where there is nothing to find.
#include "engine/quantize/mixed_precision.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/quantize/held_back.h"
#include "engine/quantize/quantizer.h"
#include "engine/tensor/output_agreement.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace mixed_precision_test {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
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

CalibrationSet SamplesOf(int64_t count) {
  Tensor samples(DType::kF32, Shape{count, kFeatures});
  float phase = 0;
  for (float& f : samples.mutable_span<float>()) f = std::sin(phase += 0.37F);
  return {{"x", std::move(samples)}};
}

QuantizeRecipe With(AccuracyFloor floor, uint64_t seed = 0) {
  return {.to = Precision::kInt8, .floor = floor, .seed = seed};
}

QuantizeResult Quantized(const Graph& graph, const QuantizeRecipe& recipe,
                         std::vector<int64_t> labels = {}) {
  auto made = Quantize(graph, recipe, SamplesOf(64), {.labels = std::move(labels)});
  if (!made.ok()) {
    ADD_FAILURE() << made.status();
    return {};
  }
  return *std::move(made);
}

std::vector<bool> InInt8(const QuantizeResult& made) {
  std::vector<bool> int8;
  if (!made.mixed) return int8;
  for (const LayerDecision& layer : made.mixed->layers) int8.push_back(layer.int8);
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
  const QuantizeResult by_labels = Quantized(graph, With({Kind::kMaxDrop, 4}), labels);
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

TEST(MixedPrecision, ShowsAFrontOfAccuracyAgainstInt8) {
  const QuantizeResult made = Quantized(PowersAndLogarithm(), With({Kind::kMinSqnr, 25}));
  ASSERT_TRUE(made.mixed);
  EXPECT_GE(made.mixed->points.size(), 4U);
  double last = std::numeric_limits<double>::infinity();
  for (const MixedPoint& point : made.mixed->points) {
    if (!point.on_front) continue;
    EXPECT_LT(point.sqnr_db, last)
        << "more int8 costs accuracy, or the point before is none of the front";
    last = point.sqnr_db;
  }
  EXPECT_EQ(made.mixed->points.back().int8_share, 1);
}

std::string Refusal(const QuantizeRecipe& recipe, absl::StatusCode code,
                    const CalibrationRun& run = {}) {
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

TEST(MixedPrecision, StopsWhenProgressSaysSo) {
  int calls = 0;
  const auto made = Quantize(PowersAndLogarithm(), With({Kind::kMinSqnr, 25}), SamplesOf(64),
                             {.progress = [&](int64_t, int64_t) { return ++calls < 40; }});
  EXPECT_TRUE(absl::IsCancelled(made.status())) << made.status();
}

CalibrationSet Counted(int64_t count) {
  Tensor samples(DType::kF32, Shape{count, 1});
  for (int64_t i = 0; i < count; ++i)
    samples.mutable_span<float>()[static_cast<size_t>(i)] = static_cast<float>(i);
  return {{"x", std::move(samples)}};
}

TEST(HoldBack, CutsTheSetInTwo) {
  std::vector<int64_t> labels(10);
  for (size_t i = 0; i < 10; ++i) labels[i] = static_cast<int64_t>(100 + i);
  const auto split = HoldBack(Counted(10), labels, 4, 3);
  ASSERT_TRUE(split.ok()) << split.status();
  std::vector<float> all;
  for (const auto* part : {&split->ranges, &split->held_back})
    std::ranges::copy(part->at("x").span<float>(), std::back_inserter(all));
  EXPECT_EQ(split->held_back.at("x").shape(), (Shape{4, 1}));
  for (size_t i = 0; i < 4; ++i)
    EXPECT_EQ(split->labels[i],
              100 + static_cast<int64_t>(split->held_back.at("x").span<float>()[i]));
  std::ranges::sort(all);
  EXPECT_THAT(all, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST(HoldBack, TakesHalfAtMost) {
  const auto split = HoldBack(Counted(9), {}, 100, 0);
  ASSERT_TRUE(split.ok());
  EXPECT_EQ(split->held_back.at("x").shape()[0], 4);
  EXPECT_THAT(split->labels, IsEmpty());
  EXPECT_THAT(FirstSamples(split->ranges, 3).at("x").span<float>(), SizeIs(3));
}

TEST(HoldBack, RefusesASingleSample) {
  EXPECT_EQ(HoldBack(Counted(1), {}, 100, 0).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace mixed_precision_test
}  // namespace octet
