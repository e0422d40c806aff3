// Second moments of patches, and weights rounded by them.
#include "engine/quantize/compensated_rounding.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "engine/quantize/calibration.h"
#include "engine/quantize/patch_moments.h"
#include "engine/quantize/selection.h"
#include "engine/tensor/quantize.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace compensated_rounding_test {

using Ints = std::vector<int64_t>;

// A graph of one weighted node.
struct Layer {
  Layer(const Shape& input, const Shape& weights, const GraphBuilder::Attrs& attributes,
        std::string_view op = "Conv") {
    GraphBuilder b;
    const ValueId x = b.Input("x", input);
    b.Output(b.Op(op, {x, b.Random(weights)}, attributes));
    graph = b.Build();
    weighted = *AsWeighted(graph, graph.order()[0]);
  }
  const Tensor& weights() const {
    return graph.value(graph.node(weighted.node).inputs[1]).constant;
  }
  PatchMoments Moments(const Tensor& samples) const {
    auto moments = PatchMoments::For(graph, weighted, samples.shape()[0]);
    EXPECT_TRUE(moments.has_value());
    EXPECT_TRUE(moments->Observe(samples.view()).ok());
    return *std::move(moments);
  }
  Graph graph;
  WeightedNode weighted;
};

// Neighbours along the last axis are alike, as they are in images.
Tensor Smooth(const Shape& shape) {
  std::mt19937 random(TestSeed());
  std::normal_distribution<float> normal(0, 1);
  Tensor samples(DType::kF32, shape);
  float last = 0;
  for (float& x : samples.mutable_span<float>()) x = last = 0.9F * last + normal(random);
  return samples;
}

// E[(rounded - exact weights) * patch]^2 of a matrix product with inputs `x`, one row each, summed over the outputs.
double ResultError(const Tensor& weights, const QuantizedWeights& quantized, const Tensor& x) {
  Tensor rounded(DType::kF32, weights.shape());
  DequantizeTensor(quantized.values.view(), quantized.params, rounded.mutable_view());
  const int64_t inputs = weights.shape()[0];
  const int64_t outputs = weights.shape()[1];
  double sum = 0;
  for (int64_t row = 0; row < x.shape()[0]; ++row) {
    for (int64_t o = 0; o < outputs; ++o) {
      double off = 0;
      for (int64_t i = 0; i < inputs; ++i) {
        const auto at = static_cast<size_t>(i * outputs + o);
        off += (rounded.span<float>()[at] - weights.span<float>()[at]) *
               x.span<float>()[static_cast<size_t>(row * inputs + i)];
      }
      sum += off * off;
    }
  }
  return sum;
}

TEST(PatchMoments, OfAMatrixProductAreThoseOfItsRows) {
  const Layer layer({kUnknownDim, 3}, {3, 2}, {}, "MatMul");
  const PatchMoments moments = layer.Moments(Tensor::From<float>(Shape{2, 3}, {1, 2, 3, -1, 0, 5}));
  EXPECT_EQ(moments.groups(), 1);
  EXPECT_EQ(moments.length(), 3);
  EXPECT_EQ(moments.count(), 2);
  EXPECT_EQ(moments.sums(0)[0], 0);
  EXPECT_EQ(moments.sums(0)[2], 8);
  EXPECT_EQ(moments.products(0)[0], 2);   // 1 * 1 + 1 * 1
  EXPECT_EQ(moments.products(0)[1], 2);   // 1 * 2 - 1 * 0
  EXPECT_EQ(moments.products(0)[2], -2);  // 1 * 3 - 1 * 5
  EXPECT_EQ(moments.products(0)[8], 34);
}

TEST(PatchMoments, OfAConvolutionHoldItsTapsAndItsPadding) {
  // One output position: the window of 2 x 2 lies on the last element and on padding.
  const Layer layer({kUnknownDim, 2, 1, 1}, {2, 1, 2, 2},
                    {{"group", int64_t{2}}, {"pads", Ints{0, 0, 1, 1}}});
  const PatchMoments moments = layer.Moments(Tensor::From<float>(Shape{1, 2, 1, 1}, {3, 5}));
  EXPECT_EQ(moments.groups(), 2);
  EXPECT_EQ(moments.length(), 4);
  const auto first = static_cast<float>(moments.count());
  for (int64_t group = 0; group < 2; ++group) {
    const float x = group == 0 ? 3 : 5;
    EXPECT_EQ(moments.sums(group)[0], first * x);
    EXPECT_EQ(moments.products(group)[0], first * x * x);
    for (size_t tap = 1; tap < 4; ++tap) {
      EXPECT_EQ(moments.sums(group)[tap], 0) << tap;
      EXPECT_EQ(moments.products(group)[tap], 0) << tap;
    }
  }
}

TEST(PatchMoments, SeeTheSameWindowsAsTheConvolution) {
  // With one kernel of ones, the sum of a patch is the convolution's output at its position.
  const Layer layer({kUnknownDim, 1, 3, 3}, {1, 1, 3, 3}, {{"strides", Ints{3, 3}}});
  std::vector<float> image(9);
  for (size_t i = 0; i < 9; ++i) image[i] = static_cast<float>(i + 1);
  const PatchMoments moments = layer.Moments(Tensor::From<float>(Shape{1, 1, 3, 3}, image));
  for (size_t i = 0; i < 9; ++i)
    EXPECT_EQ(moments.sums(0)[i], static_cast<float>(moments.count()) * image[i]);
}

TEST(PatchMoments, DrawTheSameHoweverManySamplesAreSeenAtOnce) {
  const Layer conv({kUnknownDim, 2, 5, 5}, {2, 2, 3, 3}, {});
  const Layer rows({kUnknownDim, 7, 6}, {6, 2}, {}, "MatMul");
  for (const Layer* layer : {&conv, &rows}) {
    Shape shape = *layer->graph.value(layer->graph.inputs[0]).shape;
    shape[0] = 11;
    Tensor samples(DType::kF32, shape);  // Small integers, whose sums are exact in any order.
    int next = 0;
    for (float& x : samples.mutable_span<float>()) x = static_cast<float>(next++ * 7 % 11);
    const PatchMoments at_once = layer->Moments(samples);
    auto one_by_one = PatchMoments::For(layer->graph, layer->weighted, 11);
    shape[0] = 1;
    const float* const first = samples.span<float>().data();
    for (int64_t i = 0; i < 11; ++i) {
      const ConstTensorView sample{first + i * shape.elements(), {DType::kF32, shape}};
      ASSERT_TRUE(one_by_one->Observe(sample).ok());
    }
    EXPECT_EQ(one_by_one->count(), at_once.count());
    EXPECT_TRUE(std::ranges::equal(one_by_one->products(0), at_once.products(0)));
  }
}

TEST(PatchMoments, LeaveOutWhatHasTooMany) {
  const Layer longest({kUnknownDim, 2304}, {2304, 1}, {}, "MatMul");
  EXPECT_TRUE(PatchMoments::For(longest.graph, longest.weighted, 1).has_value());
  const Layer longer({kUnknownDim, 2305}, {2305, 1}, {}, "MatMul");
  EXPECT_FALSE(PatchMoments::For(longer.graph, longer.weighted, 1).has_value());
  // 64 groups of 324 * 324.
  const Layer groups({kUnknownDim, 2304, 3, 3}, {64, 36, 3, 3}, {{"group", int64_t{64}}});
  EXPECT_FALSE(PatchMoments::For(groups.graph, groups.weighted, 1).has_value());
}

TEST(CompensateRounding, KeepsTheResultsNearer) {
  const Layer layer({kUnknownDim, 32}, {32, 8}, {}, "MatMul");
  const Tensor samples = Smooth({1024, 32});
  const QuantizedWeights nearest = QuantizeWeights(layer.weights(), 1, true);
  QuantizedWeights compensated = QuantizeWeights(layer.weights(), 1, true);
  CompensateRounding(layer.weights(), {1}, layer.Moments(samples), false, compensated);
  EXPECT_EQ(compensated.params, nearest.params);
  EXPECT_LT(ResultError(layer.weights(), compensated, samples),
            0.5 * ResultError(layer.weights(), nearest, samples));
  // On samples that were not seen, too.
  Tensor others = Smooth({2048, 32});
  EXPECT_LT(ResultError(layer.weights(), compensated, others),
            0.5 * ResultError(layer.weights(), nearest, others));
}

TEST(CompensateRounding, RoundsToNearestWhereInputsAreUnrelated) {
  const Layer layer({kUnknownDim, 4}, {4, 3}, {}, "MatMul");
  Tensor units(DType::kF32, Shape{4, 4});
  std::ranges::fill(units.mutable_span<float>(), 0.0F);
  for (size_t i = 0; i < 4; ++i) units.mutable_span<float>()[i * 5] = 1.0F + static_cast<float>(i);
  const QuantizedWeights nearest = QuantizeWeights(layer.weights(), 1, true);
  QuantizedWeights compensated = QuantizeWeights(layer.weights(), 1, true);
  CompensateRounding(layer.weights(), {1}, layer.Moments(units), false, compensated);
  EXPECT_TRUE(std::ranges::equal(compensated.values.span<int8_t>(), nearest.values.span<int8_t>()));
}

TEST(CompensateRounding, LeavesWhatItCannotSumUp) {
  const Layer layer({kUnknownDim, 2}, {2, 3}, {}, "MatMul");
  const QuantizedWeights nearest = QuantizeWeights(layer.weights(), 1, true);
  QuantizedWeights compensated = QuantizeWeights(layer.weights(), 1, true);
  const Tensor huge =
      Tensor::From<float>(Shape{1, 2}, {1e30F, -1e30F});  // whose squares are infinite
  CompensateRounding(layer.weights(), {1}, layer.Moments(huge), false, compensated);
  EXPECT_TRUE(std::ranges::equal(compensated.values.span<int8_t>(), nearest.values.span<int8_t>()));
}

TEST(CompensateRounding, OfGroupsAndRowsOfAConvolution) {
  // Two groups that see the same data and have the same weights are rounded alike; inputs that never vary harm nothing.
  const Layer layer({kUnknownDim, 2, 4, 4}, {2, 1, 3, 3}, {{"group", int64_t{2}}});
  Tensor weights(DType::kF32, Shape{2, 1, 3, 3});
  for (size_t i = 0; i < 18; ++i)
    weights.mutable_span<float>()[i] = std::sin(static_cast<float>(i % 9) * 1.7F);
  Tensor samples(DType::kF32, Shape{1000, 2, 4, 4});
  std::ranges::fill(samples.mutable_span<float>(), 0.3F);  // whose sums are not exact
  QuantizedWeights rounded = QuantizeWeights(weights, 0, true);
  CompensateRounding(weights, {0, 2}, layer.Moments(samples), true, rounded);
  const auto q = rounded.values.span<int8_t>();
  EXPECT_TRUE(std::ranges::equal(q.subspan(0, 9), q.subspan(9, 9)));
  for (size_t i = 0; i < 18; ++i) {
    EXPECT_NEAR(q[i] * rounded.params.scales[i / 9], weights.span<float>()[i],
                0.51F * rounded.params.scales[i / 9]);
  }
}

TEST(CompensateRounding, OfATransposedConvolutionOfOneTapIsThatOfAMatrix) {
  const Layer layer({kUnknownDim, 32, 1, 1}, {32, 8, 1, 1}, {}, "ConvTranspose");
  const Tensor samples = Smooth({1024, 32});
  const QuantizedWeights nearest = QuantizeWeights(layer.weights(), 1, true);
  QuantizedWeights compensated = QuantizeWeights(layer.weights(), 1, true);
  CompensateRounding(layer.weights(), LayoutOf(layer.graph, layer.weighted),
                     layer.Moments(samples.Reshaped(Shape{1024, 32, 1, 1})), false, compensated);
  EXPECT_LT(ResultError(layer.weights(), compensated, samples),
            0.5 * ResultError(layer.weights(), nearest, samples));
}

// The middle tap of three meets every input, the others those beside.
TEST(CompensateRounding, OfGroupsOfATransposedConvolution) {
  const Layer layer({kUnknownDim, 2, 6, 6}, {2, 1, 3, 3}, {{"group", int64_t{2}}}, "ConvTranspose");
  Tensor weights(DType::kF32, Shape{2, 1, 3, 3});
  for (size_t i = 0; i < 18; ++i)
    weights.mutable_span<float>()[i] = std::sin(static_cast<float>(i % 9) * 1.7F);
  Tensor samples = Smooth({500, 2, 6, 6});
  for (int64_t n = 0; n < 500; ++n) {  // The groups see the same.
    float* const first = samples.mutable_span<float>().data() + n * 72;
    std::copy(first, first + 36, first + 36);
  }
  QuantizedWeights rounded = QuantizeWeights(weights, 1, true);
  CompensateRounding(weights, LayoutOf(layer.graph, layer.weighted), layer.Moments(samples), false,
                     rounded);
  const auto q = rounded.values.span<int8_t>();
  EXPECT_EQ(rounded.params.scales.size(), 1U);
  EXPECT_TRUE(std::ranges::equal(q.subspan(0, 9), q.subspan(9, 9)));
  EXPECT_FALSE(std::ranges::equal(q, QuantizeWeights(weights, 1, true).values.span<int8_t>()));
}

}  // namespace compensated_rounding_test
}  // namespace octet
