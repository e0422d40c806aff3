// Fake quantization against the definitions of its values and of its straight-through gradients.
#include <cmath>

#include "engine/tensor/quantize.h"
#include "tests/support/gradient_check.h"
#include "tests/support/random_tensor.h"

namespace octet {
namespace fake_quantize_test {

using train::Activation;
using train::ActivationScale;

struct Pair {
  explicit Pair(Shape shape) : x(shape, true), y(shape, true) {
    const Tensor reals = testing::RandomReals(shape, TestSeed(), -4, 8);
    std::ranges::copy(reals.span<float>(), x.values());
    const Tensor weights = testing::RandomReals(shape, TestSeed() + 1);
    std::ranges::copy(weights.span<float>(), y.gradient());
  }
  Activation x;
  Activation y;
};

// 70,000 elements are more than one part of the sums.
constexpr int64_t kCount = 70000;

TEST(FakeQuantize, GivesWhatTheIntegersStandFor) {
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    Pair pair(Shape{kCount});
    const int32_t zero_point = dtype == DType::kU8 ? 70 : 0;
    ActivationScale scale("s", 0.021F, zero_point, dtype, true);
    auto layer = train::MakeFakeQuantize(pair.x, pair.y, scale);
    ASSERT_TRUE(layer->Forward().ok());
    const QuantParams params = QuantParams::PerTensor(0.021F, zero_point);
    Tensor integers(dtype, Shape{kCount});
    QuantizeTensor({pair.x.values(), {DType::kF32, Shape{kCount}}}, params,
                   integers.mutable_view());
    Tensor reals(DType::kF32, Shape{kCount});
    DequantizeTensor(integers.view(), params, reals.mutable_view());
    for (size_t i = 0; i < kCount; ++i)
      ASSERT_EQ(pair.y.values()[i], reals.span<float>()[i])
          << DTypeName(dtype) << " " << pair.x.values()[i];
  }
}

TEST(FakeQuantize, PassesGradientsStraightThrough) {
  Pair pair(Shape{kCount});
  ActivationScale scale("s", 0.021F, 70, DType::kU8, true);
  auto layer = train::MakeFakeQuantize(pair.x, pair.y, scale);
  ASSERT_TRUE(layer->Forward().ok());
  ASSERT_TRUE(layer->Backward().ok());
  double by_scale = 0;
  int outside = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    const double exact = pair.x.values()[i] / 0.021F;
    const double q = std::nearbyint(exact) + 70;
    const bool inside = q >= 0 && q <= 255;
    outside += inside ? 0 : 1;
    ASSERT_EQ(pair.x.gradient()[i], inside ? pair.y.gradient()[i] : 0) << pair.x.values()[i];
    by_scale += pair.y.gradient()[i] *
                (inside ? std::nearbyint(exact) - exact : std::clamp(q, 0.0, 255.0) - 70);
  }
  EXPECT_GT(outside, kCount / 4);
  // The parameter is the logarithm of the scale, in units of 1/2.
  const train::Parameter& parameter = scale.parameter();
  EXPECT_NEAR(parameter.gradients[0], by_scale * 0.021 / 2, 1e-3 * std::abs(by_scale * 0.021 / 2));
}

// Where everything is clamped, the outputs are the range's end times the scale: a derivative that differences see, too.
TEST(FakeQuantize, GradientByTheScaleIsThatOfTheRangesEnd) {
  Pair pair(Shape{64});
  std::fill_n(pair.x.values(), 64, 100.0F);
  ActivationScale scale("s", 0.02F, 10, DType::kU8, true);
  auto layer = train::MakeFakeQuantize(pair.x, pair.y, scale);
  const auto sum = [&] {
    EXPECT_TRUE(layer->Forward().ok());
    double total = 0;
    for (int64_t i = 0; i < 64; ++i)
      total += static_cast<double>(pair.y.gradient()[i]) * pair.y.values()[i];
    return total;
  };
  sum();
  ASSERT_TRUE(layer->Backward().ok());
  float& value = scale.parameter().values[0];
  value = 0.01F;
  const double above = sum();
  value = -0.01F;
  const double below = sum();
  const double difference = (above - below) / 0.02;
  EXPECT_NEAR(scale.parameter().gradients[0], difference, 1e-3 * std::abs(difference));
}

}  // namespace fake_quantize_test
}  // namespace octet
