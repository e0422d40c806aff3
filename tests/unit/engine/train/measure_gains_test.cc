// What the backward pass says of how far outputs move.
#include "engine/train/measure_gains.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "engine/quantize/quantizer.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/random_tensor.h"
#include "tests/support/small_network.h"

namespace octet::train {
namespace measure_gains_test {

using testing::RandomReals;
using testing::SmallNetwork;
using testing::SmallSamples;

// y = B relu(A x) with inputs and A above 0, so that nothing is cut: dy/dh = B, and with h = A x of these squares' means dy/dB = h.
TEST(MeasureGains, AreTheSquaresOfTheDerivatives) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  const ValueId hidden =
      b.Op("Relu", {b.Op("Gemm", {x, b.Constant<float>({3, 2}, {1, 0.5F, 0.25F, 1, 0.5F, 0.5F})},
                         {{"transB", int64_t{1}}})});
  const std::vector<float> second = {2, 1, 0.5F, -1, 3, 0.25F};
  b.Output(b.Op("Gemm", {hidden, b.Constant<float>({2, 3}, second)}, {{"transB", int64_t{1}}}));
  const Graph fp32 = b.Build();
  const int64_t count = 512;
  Tensor samples(DType::kF32, Shape{count, 2});
  std::mt19937 random(TestSeed());
  for (float& v : samples.mutable_span<float>())
    v = std::uniform_real_distribution<float>(0.5F, 1.5F)(random);
  const auto gains = MeasureGains(fp32, {}, {{"x", samples}}, {}, 1);
  ASSERT_TRUE(gains.ok()) << gains.status();
  const auto of = gains->values.find(fp32.value(hidden).name);
  ASSERT_NE(of, gains->values.end());
  ASSERT_EQ(of->second.axis_1.size(), 3U);
  EXPECT_EQ(of->second.last_axis, of->second.axis_1);
  double hidden_square[3] = {};
  for (int64_t i = 0; i < count; ++i) {
    const float x0 = samples.span<float>()[static_cast<size_t>(2 * i)];
    const float x1 = samples.span<float>()[static_cast<size_t>(2 * i + 1)];
    const double h[] = {x0 + 0.5 * x1, 0.25 * x0 + x1, 0.5 * x0 + 0.5 * x1};
    for (int c = 0; c < 3; ++c) hidden_square[c] += h[c] * h[c] / count;
  }
  ASSERT_EQ(gains->weights.size(), 2U);
  const std::vector<double>& by_weight = gains->weights.at(fp32.value(fp32.outputs[0]).name);
  ASSERT_EQ(by_weight.size(), 6U);
  double of_weights = 0;
  double want_of_weights = 0;
  for (size_t c = 0; c < 3; ++c) {
    const double want = second[c] * second[c] + second[c + 3] * second[c + 3];
    EXPECT_NEAR(of->second.axis_1[c], want, 0.3 * want);
    of_weights += by_weight[c] + by_weight[c + 3];
    want_of_weights += 2 * hidden_square[c];
  }
  // Of 32 batches, which are fewer numbers than 512 samples.
  EXPECT_NEAR(of_weights, want_of_weights, 0.7 * want_of_weights);
}

// What is added as reals has no rounding: the gain of a value is that of the layer that reads its integers.
TEST(MeasureGains, LeaveOutWhatIsNotRounded) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  const ValueId hidden =
      b.Op("Relu", {b.Op("MatMul", {x, b.Constant<float>({2, 2}, {1, 0, 0, 1})})});
  const ValueId little = b.Op("MatMul", {hidden, b.Constant<float>({2, 2}, {0.01F, 0, 0, 0.01F})});
  const ValueId sum = b.Op("Add", {little, hidden});
  b.Output(b.Op("MatMul", {sum, b.Constant<float>({2, 2}, {1, 1, 1, -1})}));
  const Graph fp32 = b.Build();
  const CalibrationSet set = {{"x", RandomReals(Shape{64, 2}, TestSeed())}};
  const auto all = MeasureGains(fp32, {}, set, {}, 1);
  const auto fewer = MeasureGains(fp32, {.fewer_roundings = true}, set, {}, 1);
  ASSERT_TRUE(all.ok() && fewer.ok()) << all.status() << fewer.status();
  const std::string& name = fp32.value(hidden).name;
  for (size_t c = 0; c < 2; ++c)
    EXPECT_LT(fewer->values.at(name).axis_1[c], 1e-3 * all->values.at(name).axis_1[c]);
}

// A step of all shares' logarithms changes no share.
TEST(MeasureGains, CountWhatChangesShares) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {kUnknownDim, 2});
  const ValueId hidden = b.Op("Relu", {b.Op("Gemm", {x, b.Constant<float>({2, 2}, {1, 0, 0, 1})})});
  b.Output(b.Op("Softmax", {b.Op("Gemm", {hidden, b.Constant<float>({2, 2}, {1, 1, 1, -1})})}));
  const Graph fp32 = b.Build();
  const auto gains = MeasureGains(fp32, {}, {{"x", RandomReals(Shape{64, 2}, TestSeed())}}, {}, 1);
  ASSERT_TRUE(gains.ok()) << gains.status();
  const auto& of = gains->values.at(fp32.value(hidden).name).axis_1;
  EXPECT_LT(of[0], 1e-9 * of[1]);
}

TEST(MeasureGains, FollowTheSeed) {
  const Graph fp32 = SmallNetwork();
  const auto once = MeasureGains(fp32, {}, SmallSamples(40), {}, 3);
  const auto again = MeasureGains(fp32, {}, SmallSamples(40), {}, 3);
  const auto other = MeasureGains(fp32, {}, SmallSamples(40), {}, 4);
  ASSERT_TRUE(once.ok() && again.ok() && other.ok()) << once.status();
  EXPECT_EQ(once->weights, again->weights);
  EXPECT_NE(once->weights, other->weights);
  EXPECT_GE(once->values.size(), 6U);
  for (const auto& [name, of] : once->values) {
    EXPECT_GT(of.axis_1.size(), 1U) << name;
  }
}

}  // namespace measure_gains_test
}  // namespace octet::train
