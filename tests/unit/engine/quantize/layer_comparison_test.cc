// Inner values of a variant beside the fp32 model's: which are compared, what their noise is, and that looking changes nothing.
#include "engine/quantize/layer_comparison.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/engine.h"
#include "engine/tensor/quantize.h"
#include "tests/support/graph_builder.h"
#include "tests/support/real_twin.h"

namespace octet {
namespace layer_comparison_test {

using ::testing::ElementsAre;

constexpr int64_t kSamples = 5;
constexpr int64_t kChannels = 3;

Tensor Normal(Shape shape, uint32_t seed) {
  std::mt19937 random(TestSeed() + seed);
  std::normal_distribution<float> normal;
  Tensor tensor(DType::kF32, std::move(shape));
  for (float& x : tensor.mutable_span<float>()) x = normal(random);
  return tensor;
}

std::vector<float> Elements(const Tensor& tensor) {
  return {tensor.span<float>().begin(), tensor.span<float>().end()};
}

// x -> Conv 1x1 (w1) -> Relu "inner" -> Conv 1x1 (w2) -> "y". With scales, both inputs are rounded to 8 bits.
struct TwoConvs {
  Tensor w1 = Normal({kChannels, 2, 1, 1}, 1);
  Tensor w2 = Normal({2, kChannels, 1, 1}, 2);
  float x_scale = 0;
  float inner_scale = 0;

  Graph Build() const {
    GraphBuilder b;
    const auto rounded = [&](ValueId id, float scale, uint8_t zero) {
      return scale > 0 ? b.FakeQuantize(id, scale, zero) : id;
    };
    const ValueId x = b.Input("x", {kUnknownDim, 2, 4, 4});
    const ValueId c1 = b.Op("Conv", {rounded(x, x_scale, 128), Weights(b, w1)});
    const ValueId inner = b.Op("Relu", {c1});
    b.Output(b.Op("Conv", {rounded(inner, inner_scale, 0), Weights(b, w2)}), "y");
    Graph graph = b.Build();
    graph.mutable_value(inner).name = "inner";
    return graph;
  }

  static ValueId Weights(GraphBuilder& b, const Tensor& w) {
    return b.Constant<float>(w.shape(), Elements(w));
  }
};

const CalibrationSet& Set() {
  static const auto* set = new CalibrationSet{{"x", Normal({kSamples, 2, 4, 4}, 3)}};
  return *set;
}

LayerComparison Compare(const Graph& fp32, const Graph& variant) {
  auto comparison = CompareLayers(fp32, variant, Set(), {});
  EXPECT_TRUE(comparison.ok()) << comparison.status();
  return comparison.ok() ? *std::move(comparison) : LayerComparison{};
}

std::vector<std::string> Names(const LayerComparison& comparison) {
  std::vector<std::string> names;
  for (const ComparedValue& value : comparison.values) names.push_back(value.name);
  return names;
}

std::vector<float> Answer(const Graph& graph) {
  ConfigureWorkerThread(1);
  const auto model = Model::FromGraph(graph, {});
  EXPECT_TRUE(model.ok()) << model.status();
  const auto plan = (*model)->PlanForBatch(kSamples);
  EXPECT_TRUE(plan.ok()) << plan.status();
  Tensor y(DType::kF32, (*plan)->outputs()[0].shape);
  Workspace workspace;
  const void* in[] = {Set().at("x").data()};
  void* out[] = {y.mutable_data()};
  EXPECT_TRUE((*plan)->Run(workspace, in, out).ok());
  return Elements(y);
}

TEST(CompareLayers, FindsNothingBetweenEqualModels) {
  const Graph fp32 = TwoConvs().Build();
  const LayerComparison comparison = Compare(fp32, fp32);
  EXPECT_THAT(Names(comparison), ElementsAre("x", "inner", "y"));
  EXPECT_EQ(comparison.samples, kSamples);
  for (const ComparedValue& value : comparison.values) {
    EXPECT_EQ(value.noise.noise, 0) << value.name;
    EXPECT_GT(value.noise.signal, 0) << value.name;
    EXPECT_EQ(value.dtype, DType::kUndefined) << value.name;
  }
  EXPECT_EQ(comparison.values[0].op, "");
  EXPECT_EQ(comparison.values[1].op, "Relu");
  EXPECT_TRUE(comparison.unmatched.empty());
  EXPECT_TRUE(comparison.weights.empty());
}

TEST(CompareLayers, LooksIntoModelsOfOtherReals) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF64}) {
    const Graph model = testing::TwinOf(TwoConvs().Build(), dtype);
    auto variant = Quantize(model, {.method = RangeMethod::kMinMax}, Set(), {});
    ASSERT_TRUE(variant.ok()) << variant.status();
    const LayerComparison comparison = Compare(model, variant->graph);
    EXPECT_THAT(Names(comparison), ElementsAre("x", "inner", "y"));
    EXPECT_TRUE(comparison.unmatched.empty());
    for (const ComparedValue& value : comparison.values) {
      EXPECT_GT(value.noise.noise, 0) << value.name;
      EXPECT_GT(value.noise.SqnrDb(), 25) << value.name;
    }
  }
}

// 127 steps of such a scale are beyond the largest float.
TEST(CompareLayers, CountsEveryValueOfAScaleBeyondTheFloats) {
  TwoConvs model;
  const Graph fp32 = model.Build();
  model.x_scale = 3e38F;
  const LayerComparison comparison = Compare(fp32, model.Build());
  ASSERT_THAT(Names(comparison), ElementsAre("x", "inner", "y"));
  const ComparedValue& x = comparison.values[0];
  constexpr float kLargest = std::numeric_limits<float>::max();
  EXPECT_EQ(x.range, (Range{-kLargest, kLargest}));
  EXPECT_EQ(std::accumulate(x.values.counts.begin(), x.values.counts.end(), uint64_t{0}),
            static_cast<uint64_t>(Set().at("x").elements()));
  EXPECT_EQ(x.values.counts[0], 0U) << "all of them lie around zero";
}

TEST(CompareLayers, TellsTheNoiseOfRoundingAndWhatIsCutOff) {
  TwoConvs model;
  const Graph fp32 = model.Build();
  model.x_scale = 1.0F / 128;  // reaches from -1 to 127/128: a third of the samples is outside
  model.inner_scale = 0.05F;
  const LayerComparison comparison = Compare(fp32, model.Build());
  ASSERT_THAT(Names(comparison), ElementsAre("x", "inner", "y"));
  const ComparedValue& x = comparison.values[0];
  EXPECT_EQ(x.dtype, DType::kU8);
  EXPECT_EQ(x.params, QuantParams::PerTensor(model.x_scale, 128));
  EXPECT_EQ(x.range, (Range{-1, 127.0F / 128}));

  NoiseSums expected;
  int outside = 0;
  for (const float exact : Set().at("x").span<float>()) {
    const float got =
        model.x_scale *
        static_cast<float>(QuantizeOne(exact, model.x_scale, 128, RangeOf(DType::kU8)) - 128);
    expected.Add({&got, 1}, {&exact, 1});
    outside += exact < -1 - model.x_scale / 2 || exact > x.range.max + model.x_scale / 2 ? 1 : 0;
  }
  EXPECT_NEAR(x.noise.SqnrDb(), expected.SqnrDb(), 1e-3);
  EXPECT_NEAR(x.noise.max_abs, expected.max_abs, 1e-5);
  const auto count = static_cast<double>(Set().at("x").elements());
  EXPECT_GT(outside, 0);
  EXPECT_DOUBLE_EQ(x.cut_off, outside / count);
  EXPECT_EQ(std::accumulate(x.values.counts.begin(), x.values.counts.end(), uint64_t{0}),
            static_cast<uint64_t>(count));
  EXPECT_LT(x.values.range.min, -1);
  EXPECT_GT(x.values.range.max, 1);
}

TEST(CompareLayers, ReadsValuesAsTheVariantRuns) {
  TwoConvs model;
  const Graph fp32 = model.Build();
  model.x_scale = 0.03F;
  model.inner_scale = 0.05F;
  const Graph variant = model.Build();
  NoiseSums expected;
  expected.Add(Answer(variant), Answer(fp32));
  const LayerComparison comparison = Compare(fp32, variant);
  const ComparedValue& y = comparison.values.back();
  EXPECT_EQ(y.name, "y");
  EXPECT_NEAR(y.noise.noise, expected.noise, 1e-9 * expected.noise);
  EXPECT_EQ(y.noise.max_abs, expected.max_abs);
}

// Channel 1 is eight times as large in the variant, and the weights behind it take that back.
TEST(CompareLayers, TakesOutTheFactorOfAnEqualizedChannel) {
  TwoConvs model;
  const Graph fp32 = model.Build();
  for (size_t i = 0; i < 2; ++i) model.w1.mutable_span<float>()[2 + i] *= 8;
  for (int o = 0; o < 2; ++o)
    model.w2.mutable_span<float>()[static_cast<size_t>(o * kChannels + 1)] /= 8;
  model.x_scale = 0.03F;
  model.inner_scale = 0.1F;
  const LayerComparison comparison = Compare(fp32, model.Build());
  const ComparedValue& inner = comparison.values.at(1);
  EXPECT_EQ(inner.name, "inner");
  EXPECT_GE(inner.rescaled_channels, 1);
  EXPECT_LT(inner.rescaled_channels, kChannels);
  EXPECT_GT(inner.noise.SqnrDb(), 20);
  EXPECT_EQ(comparison.values.back().rescaled_channels, 0) << "outputs are what they are";
}

TEST(CompareLayers, NamesWhatHasNoCounterpart) {
  TwoConvs model;
  const Graph fp32 = model.Build();
  Graph renamed = fp32;
  renamed.mutable_value(renamed.FindValue("inner")).name = "another";
  const LayerComparison comparison = Compare(fp32, renamed);
  EXPECT_THAT(Names(comparison), ElementsAre("x", "y"));
  EXPECT_THAT(comparison.unmatched, ElementsAre("another"));
}

// A chain of four convolutions, "v0" to "v2" between them.
Graph Chain(const std::vector<std::string>& names) {
  GraphBuilder b;
  const Tensor w = Normal({2, 2, 1, 1}, 4);
  ValueId at = b.Input("x", {kUnknownDim, 2, 4, 4});
  std::vector<ValueId> between;
  for (size_t i = 0; i <= names.size(); ++i) {
    at = b.Op("Conv", {at, TwoConvs::Weights(b, w)});
    if (i < names.size()) between.push_back(at);
  }
  b.Output(at, "y");
  Graph graph = b.Build();
  for (size_t i = 0; i < names.size(); ++i) graph.mutable_value(between[i]).name = names[i];
  return graph;
}

TEST(CompareLayers, TakesEqualNamesForCoincidenceWhereMostDiffer) {
  const Graph fp32 = Chain({"v0", "v1", "v2"});
  EXPECT_THAT(Names(Compare(fp32, Chain({"v0", "v1", "other"}))),
              ElementsAre("x", "v0", "v1", "y"));
  const LayerComparison comparison = Compare(fp32, Chain({"v1", "another", "other"}));
  EXPECT_THAT(Names(comparison), ElementsAre("x", "y"));
  EXPECT_THAT(comparison.unmatched, ElementsAre("another", "other", "v1"));
}

TEST(CompareLayers, KnowsTheNamesThatDynamicQuantizationGives) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2, 8});
  const ValueId first = b.Op("MatMul", {x, b.Random({8, 16})});
  b.Output(b.Op("MatMul", {first, b.Random({16, 16})}), "y");
  Graph fp32 = b.Build();
  fp32.mutable_value(first).name = "first";
  const auto dynamic = Quantize(fp32, {.to = Precision::kInt8Dynamic}, {}, {});
  ASSERT_TRUE(dynamic.ok()) << dynamic.status();
  const auto comparison =
      CompareLayers(fp32, dynamic->graph, {{"x", Normal({kSamples, 2, 8}, 5)}}, {});
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_THAT(Names(*comparison), ElementsAre("x", "first", "y"));
  EXPECT_GT(comparison->values[1].noise.SqnrDb(), 25);
  EXPECT_THAT(comparison->unmatched, ElementsAre());
  ASSERT_EQ(comparison->weights.size(), 2U);
  EXPECT_EQ(comparison->weights[0].op, "MatMulInteger");
}

TEST(CompareLayers, CountsTheStepsOfQuantizedWeights) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {kUnknownDim, 2, 4, 4}), 0.03F, 128);
  const ValueId integers = b.Constant<int8_t>({2, 2, 1, 1}, {127, -127, 0, 2});
  const ValueId w =
      b.Op("DequantizeLinear",
           {integers, b.Constant<float>({2}, {0.5F, 0.25F}), b.Constant<int8_t>({2}, {0, 0})},
           {{"axis", int64_t{0}}});
  b.Output(b.Op("Conv", {x, w}), "y");
  const Graph variant = b.Build();
  const LayerComparison comparison = Compare(variant, variant);
  ASSERT_EQ(comparison.weights.size(), 1U);
  const QuantizedConstantUse& use = comparison.weights[0];
  EXPECT_EQ(use.op, "Conv");
  EXPECT_EQ(use.dtype, DType::kI8);
  EXPECT_EQ(use.scales, 2);
  EXPECT_EQ(use.least_scale, 0.25F);
  EXPECT_EQ(use.largest_scale, 0.5F);
  EXPECT_EQ(use.steps.counts.front(), 1U);
  EXPECT_EQ(use.steps.counts.back(), 1U);
  EXPECT_EQ(use.steps.counts[use.steps.counts.size() / 2], 2U);
  EXPECT_NEAR(use.rounding_sqnr_db, 10 * std::log10(12 * (2 * 127 * 127 + 4) / 4.0), 1e-9);
}

TEST(CompareLayers, CountsWhatIsNoNumberAndLeavesItOutOfTheHistogram) {
  const auto logarithm = [](bool rounded) {
    GraphBuilder b;
    const ValueId inner = b.Op("Log", {b.Input("x", {kUnknownDim, 2, 4, 4})});
    const ValueId read = rounded ? b.FakeQuantize(inner, 0.02F, 128) : inner;
    b.Output(b.Op("Conv", {read, TwoConvs::Weights(b, Normal({2, 2, 1, 1}, 6))}), "y");
    Graph graph = b.Build();
    graph.mutable_value(inner).name = "inner";
    return graph;
  };
  Tensor x = Normal({kSamples, 2, 4, 4}, 7);
  for (float& element : x.mutable_span<float>()) element = std::abs(element) + 0.1F;
  x.mutable_span<float>()[5] = 0;
  const auto comparison = CompareLayers(logarithm(false), logarithm(true), {{"x", x}}, {});
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  ASSERT_EQ(comparison->values[0].name, "inner");
  const ComparedValue& inner = comparison->values[0];
  EXPECT_EQ(inner.noise.non_finite, 1);
  EXPECT_GT(inner.noise.SqnrDb(), 20);
  EXPECT_TRUE(std::isfinite(inner.values.range.min));
  EXPECT_EQ(std::accumulate(inner.values.counts.begin(), inner.values.counts.end(), uint64_t{0}),
            static_cast<uint64_t>(x.elements() - 1));
  const auto same = CompareLayers(logarithm(false), logarithm(false), {{"x", x}}, {});
  ASSERT_TRUE(same.ok()) << same.status();
  ASSERT_EQ(same->values[0].name, "inner");
  EXPECT_EQ(same->values[0].noise.non_finite, 0) << "equal infinities are no difference";
}

TEST(CompareLayers, RefusesSamplesOfAnotherModel) {
  const Graph fp32 = TwoConvs().Build();
  const auto comparison = CompareLayers(fp32, fp32, {{"x", Normal({kSamples, 3, 4, 4}, 3)}}, {});
  EXPECT_EQ(comparison.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace layer_comparison_test
}  // namespace octet
