// Convolutions and products: gradients by the input and by the integers of the weights. Both are linear, so that differences
// over a whole step are exact.
#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "tests/support/gradient_check.h"

namespace octet {
namespace weighted_layer_test {

using testing::LayerUnderTest;
using train::ActivationScale;
using train::LatentBias;
using train::LatentWeights;

void ExpectGradientOf(LayerUnderTest& under_test, train::Layer& layer, train::Parameter& parameter,
                      const std::function<void()>& refresh, const std::vector<float>& steps) {
  const std::vector<float> gradients = parameter.gradients;
  const size_t stride = std::max<size_t>(1, parameter.values.size() / 50);
  for (size_t i = 0; i < parameter.values.size(); i += stride) {
    const float before = parameter.values[i];
    double sums[2];
    for (const int side : {0, 1}) {
      parameter.values[i] = before + (side == 0 ? -steps[i] : steps[i]);
      refresh();
      sums[side] = under_test.Sum(layer);
    }
    parameter.values[i] = before;
    refresh();
    const double difference = (sums[1] - sums[0]) / (2.0 * steps[i]);
    ASSERT_NEAR(gradients[i], difference, 2e-3 * (1 + std::abs(difference)))
        << parameter.name << ", element " << i;
  }
}

// y = op(x, DequantizeLinear(w), bias).
void CheckWeighted(std::string_view op, Shape x_shape, Shape w_shape, int64_t axis, bool has_bias,
                   GraphBuilder::Attrs attributes = {}) {
  SCOPED_TRACE(w_shape.ToString());
  GraphBuilder b;
  const ValueId x = b.Input("x", std::move(x_shape));
  const ValueId w = b.QuantizedWeights(w_shape, axis);
  std::vector<ValueId> inputs = {x, w};
  Graph so_far = b.Build();
  const NodeId weights_node = so_far.producer(w);
  auto weights = LatentWeights::Read(so_far, weights_node);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ActivationScale x_scale("x", 0.5F, 0, DType::kU8, true);
  if (has_bias) {
    std::vector<float> on_grid = weights->params().scales;
    for (size_t c = 0; c < on_grid.size(); ++c)
      on_grid[c] *= x_scale.scale() * (static_cast<float>(c * 379 % 2001) - 1000);
    inputs.push_back(b.Constant<float>({w_shape[static_cast<int>(axis)]}, on_grid));
  }
  b.Output(b.Op(op, inputs, std::move(attributes)));
  const Graph graph = b.Build();
  std::optional<LatentBias> bias;
  if (has_bias) {
    auto read =
        LatentBias::Read(graph, inputs[2], w_shape[static_cast<int>(axis)], *weights, x_scale);
    ASSERT_TRUE(read.ok()) << read.status();
    bias = *std::move(read);
  }
  LayerUnderTest under_test(graph);
  LatentBias* const latent = bias ? &*bias : nullptr;
  auto layer = op == "Conv" ? train::MakeConv(under_test.context(), *weights, latent)
                            : train::MakeProduct(under_test.context(), *weights, latent);
  ASSERT_TRUE(layer.ok()) << layer.status();
  under_test.ExpectReference(**layer);
  under_test.ExpectDifferences(**layer, 0.5F);
  ASSERT_TRUE((*layer)->Forward().ok());
  under_test.RunBackward(**layer);
  weights->PullGradient();
  for (float& value : weights->parameter().values) value = std::clamp(value, -126.0F, 126.0F);
  ExpectGradientOf(
      under_test, **layer, weights->parameter(), [&] { weights->Refresh(); },
      std::vector<float>(weights->parameter().values.size(), 1));
  if (!bias) return;
  bias->PullGradient();
  std::vector<float> steps;  // Sixteen integers of each bias.
  for (const float unit : bias->parameter().units)
    steps.push_back(16 * weights->params().scales[steps.size()] * x_scale.scale() / unit);
  ExpectGradientOf(
      under_test, **layer, bias->parameter(), [&] { bias->Refresh(*weights, x_scale); }, steps);
}

TEST(LatentBias, LiesOnTheGridOfTheSumsInNetworkAndFile) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 5});
  const ValueId w = b.QuantizedWeights({5, 3}, 1);
  const ValueId start = b.Random({3});
  b.Output(b.Op("Gemm", {x, w, start}));
  const Graph graph = b.Build();
  const ActivationScale x_scale("x", 0.5F, 0, DType::kU8, true);
  const auto weights = LatentWeights::Read(graph, graph.producer(w));
  ASSERT_TRUE(weights.ok()) << weights.status();
  auto bias = LatentBias::Read(graph, start, 3, *weights, x_scale);
  ASSERT_TRUE(bias.ok()) << bias.status();
  Graph written = graph;
  bias->WriteTo(written, *weights, x_scale);
  for (size_t c = 0; c < 3; ++c) {
    const double step = static_cast<double>(weights->params().scales[c]) * x_scale.scale();
    const double in_file = written.value(start).constant.span<float>()[c];
    EXPECT_EQ(in_file, bias->reals()[c]);
    EXPECT_NEAR(in_file / step, std::nearbyint(in_file / step), 1e-3);
    EXPECT_NEAR(in_file, graph.value(start).constant.span<float>()[c], 0.501 * step);
  }
  EXPECT_EQ(LatentBias::Read(graph, x, 3, *weights, x_scale).status().code(),
            absl::StatusCode::kUnimplemented);
}

// A tool may give a channel whose weights are all 0 the smallest scale that it knows.
TEST(LatentBias, OfAChannelWithoutWeightsStaysWhatItIs) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 5});
  const ValueId w =
      b.Op("DequantizeLinear",
           {b.RandomInts(DType::kI8, {5, 2}, 0, 0), b.Constant<float>({2}, {1.19e-7F, 0.01F}),
            b.Constant<int8_t>({2}, {0, 0})},
           {{"axis", int64_t{1}}});
  const ValueId start = b.Constant<float>({2}, {1.5F, -0.2F});
  b.Output(b.Op("Gemm", {x, w, start}));
  const Graph graph = b.Build();
  const ActivationScale x_scale("x", 0.003F, 0, DType::kU8, true);
  const auto weights = LatentWeights::Read(graph, graph.producer(w));
  ASSERT_TRUE(weights.ok()) << weights.status();
  auto bias = LatentBias::Read(graph, start, 2, *weights, x_scale);
  ASSERT_TRUE(bias.ok()) << bias.status();
  EXPECT_FLOAT_EQ(bias->reals()[0], 1.5F);
  EXPECT_NEAR(bias->reals()[1], -0.2F, 0.5 * 0.01 * 0.003);
  Graph written = graph;
  bias->WriteTo(written, *weights, x_scale);
  EXPECT_EQ(written.value(start).constant.span<float>()[0], bias->reals()[0]);
}

// The product of the scales is no float where denormals are flushed to zero.
TEST(LatentBias, OfAChannelThatIsNearlyDeadIsANumber) {
  const FlushToZero mode;
  for (const float real : {0.0F, 1.5F, -3e38F}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {2, 5});
    const ValueId w =
        b.Op("DequantizeLinear",
             {b.RandomInts(DType::kI8, {5, 2}, -127, 127), b.Constant<float>({2}, {2e-38F, 0.01F})},
             {{"axis", int64_t{1}}});
    const ValueId start = b.Constant<float>({2}, {real, -0.2F});
    b.Output(b.Op("Gemm", {x, w, start}));
    const Graph graph = b.Build();
    const ActivationScale x_scale("x", 0.003F, 0, DType::kU8, true);
    const auto weights = LatentWeights::Read(graph, graph.producer(w));
    ASSERT_TRUE(weights.ok()) << weights.status();
    auto bias = LatentBias::Read(graph, start, 2, *weights, x_scale);
    ASSERT_TRUE(bias.ok()) << bias.status();
    EXPECT_TRUE(std::isfinite(bias->parameter().values[0])) << real;
    EXPECT_GT(bias->parameter().units[0], 0);
    EXPECT_FLOAT_EQ(bias->reals()[0], real);
    EXPECT_NEAR(bias->reals()[1], -0.2F, 0.5 * 0.01 * 0.003);
  }
}

TEST(LatentWeights, NamesTheConstantThatItCannotTrain) {
  GraphBuilder b;
  const ValueId w =
      b.Op("DequantizeLinear",
           {b.RandomInts(DType::kI8, {5, 2}, 0, 0), b.Constant<float>({2}, {0.0F, 0.01F})},
           {{"axis", int64_t{1}}});
  b.Output(b.Op("Gemm", {b.Input("x", {2, 5}), w}));
  Graph graph = b.Build();
  const NodeId dequantize = graph.producer(w);
  graph.mutable_node(dequantize).name.clear();
  graph.mutable_value(graph.node(dequantize).inputs[0]).name = "head.weight";
  EXPECT_EQ(Message(LatentWeights::Read(graph, dequantize).status()),
            "DequantizeLinear '' (opset 13) of 'head.weight': training needs constant scales per "
            "tensor or along one axis");
}

TEST(ConvLayer, Plain) {
  CheckWeighted("Conv", {2, 3, 7, 6}, {8, 3, 3, 3}, 0, true, {{"pads", Ints{1, 1, 1, 1}}});
  CheckWeighted("Conv", {2, 16, 8, 8}, {32, 16, 3, 3}, 0, false,
                {{"pads", Ints{0, 0, 1, 1}}, {"strides", Ints{2, 2}}});
  CheckWeighted("Conv", {3, 8, 5, 5}, {16, 8, 1, 1}, 0, true);
  CheckWeighted("Conv", {2, 1, 12, 10}, {6, 1, 4, 3}, 0, true,
                {{"auto_pad", std::string("SAME_UPPER")}});
}

TEST(ConvLayer, Groups) {
  CheckWeighted("Conv", {2, 8, 6, 6}, {8, 1, 3, 3}, 0, true,
                {{"group", int64_t{8}}, {"pads", Ints{1, 1, 1, 1}}});
  CheckWeighted("Conv", {2, 6, 6, 6}, {6, 1, 3, 3}, 0, true,
                {{"group", int64_t{6}}, {"pads", Ints{0, 0, 1, 1}}, {"strides", Ints{2, 2}}});
  CheckWeighted("Conv", {2, 8, 6, 6}, {12, 4, 3, 3}, 0, true, {{"group", int64_t{2}}});
}

TEST(ConvLayer, OtherRanksAndDilations) {
  CheckWeighted("Conv", {2, 4, 9}, {5, 4, 3}, 0, true, {{"pads", Ints{1, 1}}});
  CheckWeighted("Conv", {1, 2, 4, 5, 4}, {3, 2, 2, 2, 2}, 0, true);
  CheckWeighted("Conv", {2, 3, 9, 9}, {4, 3, 3, 3}, 0, true, {{"dilations", Ints{2, 2}}});
}

TEST(ProductLayer, GemmAndMatMul) {
  CheckWeighted("Gemm", {5, 7}, {4, 7}, 0, true, {{"transB", int64_t{1}}});
  CheckWeighted("Gemm", {5, 7}, {7, 4}, 1, true);
  CheckWeighted("MatMul", {2, 3, 8}, {8, 5}, 1, false);
}

TEST(ProductLayer, RefusesWhatItDoesNotCompute) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {7, 5});
  const ValueId w = b.QuantizedWeights({7, 4}, 1);
  b.Output(b.Op("Gemm", {x, w}, {{"transA", int64_t{1}}}));
  const Graph graph = b.Build();
  auto weights = LatentWeights::Read(graph, graph.producer(w));
  ASSERT_TRUE(weights.ok()) << weights.status();
  LayerUnderTest under_test(graph);
  const auto layer = train::MakeProduct(under_test.context(), *weights, nullptr);
  EXPECT_EQ(layer.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Message(layer.status())), ::testing::HasSubstr("Gemm_"));
}

}  // namespace weighted_layer_test
}  // namespace octet
