#include "engine/tensor/quantize.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace quantize_test {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr uint32_t kSeed = 29;

// The formula in double precision, one element at a time. Requires: a scale that is a power of two, so
// that the division is exact in both.
int32_t Oracle(float real, float scale, int32_t zero_point, IntRange range) {
  if (std::isnan(real)) return zero_point;
  const double q = std::nearbyint(static_cast<double>(real) / scale) + zero_point;
  return static_cast<int32_t>(std::min<double>(range.max, std::max<double>(range.min, q)));
}

std::vector<float> RandomFloats(size_t count, float span) {
  std::mt19937 random(kSeed);
  std::uniform_real_distribution<float> uniform(-span, span);
  std::vector<float> values(count);
  for (float& v : values) v = uniform(random);
  return values;
}

TEST(QuantizeOneTest, RoundsHalfToEvenAndSaturates) {
  const IntRange u8 = RangeOf(DType::kU8);
  const IntRange i8 = RangeOf(DType::kI8);
  EXPECT_EQ(QuantizeOne(0.5f, 1, 10, u8), 10);
  EXPECT_EQ(QuantizeOne(1.5f, 1, 10, u8), 12);
  EXPECT_EQ(QuantizeOne(2.5f, 1, 10, u8), 12);
  EXPECT_EQ(QuantizeOne(-0.5f, 1, 10, u8), 10);
  EXPECT_EQ(QuantizeOne(1e30f, 1, 10, u8), 255);
  EXPECT_EQ(QuantizeOne(-kInf, 1, 10, u8), 0);
  EXPECT_EQ(QuantizeOne(kInf, 0.1f, -3, i8), 127);
  EXPECT_EQ(QuantizeOne(-1e30f, 0.1f, -3, i8), -128);
  EXPECT_EQ(QuantizeOne(kNan, 1, 10, u8), 10);
}

TEST(QuantizeTensorTest, EqualsTheFormulaElementByElement) {
  SCOPED_TRACE(kSeed);
  std::vector<float> values = RandomFloats(10007, 60.0f);
  for (int i = 0; i < 512; ++i) values.push_back((i - 256) * 0.125f);  // Every tie.
  values.insert(values.end(), {kNan, kInf, -kInf, 1e38f, -1e38f, 0.0f, -0.0f, 1e-40f});
  const Tensor src = Tensor::From<float>({static_cast<int64_t>(values.size())}, values);
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    const IntRange range = RangeOf(dtype);
    for (const int32_t zero_point : {range.min, range.min + 100, range.max}) {
      Tensor dst(dtype, src.shape());
      QuantizeTensor(src.view(), QuantParams::PerTensor(0.25f, zero_point), dst.mutable_view());
      for (size_t i = 0; i < values.size(); ++i) {
        const int32_t got =
            dtype == DType::kU8 ? int32_t{dst.span<uint8_t>()[i]} : int32_t{dst.span<int8_t>()[i]};
        ASSERT_EQ(got, Oracle(values[i], 0.25f, zero_point, range)) << values[i];
        ASSERT_EQ(got, QuantizeOne(values[i], 0.25f, zero_point, range)) << values[i];
      }
    }
  }
}

TEST(QuantizeTensorTest, EqualsQuantizeOneForScalesThatAreNoPowerOfTwo) {
  const std::vector<float> values = RandomFloats(20011, 3.0f);
  const Tensor src = Tensor::From<float>({20011}, values);
  Tensor dst(DType::kI8, src.shape());
  QuantizeTensor(src.view(), QuantParams::PerTensor(0.0173f, 5), dst.mutable_view());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(dst.span<int8_t>()[i], QuantizeOne(values[i], 0.0173f, 5, RangeOf(DType::kI8)));
  }
}

// Every axis of a [4, 3, 5] tensor, so inner runs, single elements and outer repeats are all met.
TEST(QuantizeTensorTest, TakesTheScaleOfTheIndexAlongTheAxis) {
  const Shape shape{4, 3, 5};
  const std::vector<float> values = RandomFloats(60, 10.0f);
  const Tensor src = Tensor::From<float>(shape, values);
  for (int axis = 0; axis < 3; ++axis) {
    QuantParams params{{}, {}, axis};
    for (int64_t c = 0; c < shape[axis]; ++c) {
      params.scales.push_back(0.05f * static_cast<float>(c + 1));
      params.zero_points.push_back(static_cast<int32_t>(7 * c + 100));
    }
    Tensor quantized(DType::kU8, shape);
    QuantizeTensor(src.view(), params, quantized.mutable_view());
    Tensor real(DType::kF32, shape);
    DequantizeTensor(quantized.view(), params, real.mutable_view());
    for (int64_t i = 0; i < 60; ++i) {
      const int64_t c = i / shape.strides()[axis] % shape[axis];
      const uint8_t q = quantized.span<uint8_t>()[i];
      ASSERT_EQ(
          q, QuantizeOne(values[i], params.scales[c], params.zero_points[c], RangeOf(DType::kU8)))
          << "axis " << axis << " element " << i;
      ASSERT_EQ(real.span<float>()[i],
                params.scales[c] * static_cast<float>(q - params.zero_points[c]));
    }
  }
}

TEST(DequantizeTensorTest, TakesEveryIntegerOfATypeToItsReal) {
  std::vector<int8_t> all(256);
  for (int i = 0; i < 256; ++i) all[i] = static_cast<int8_t>(i - 128);
  const Tensor src = Tensor::From<int8_t>({256}, all);
  Tensor dst(DType::kF32, {256});
  DequantizeTensor(src.view(), QuantParams::PerTensor(0.3f, -7), dst.mutable_view());
  for (int i = 0; i < 256; ++i) {
    EXPECT_EQ(dst.span<float>()[i], 0.3f * static_cast<float>(i - 128 + 7));
  }
}

TEST(DequantizeTensorTest, WidensInt32WithoutOverflow) {
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max();
  constexpr int32_t kMin = std::numeric_limits<int32_t>::min();
  const Tensor src = Tensor::From<int32_t>({3}, {kMax, kMin, 1000});
  Tensor dst(DType::kF32, {3});
  DequantizeTensor(src.view(), QuantParams::PerTensor(0.5f, -10), dst.mutable_view());
  EXPECT_EQ(dst.span<float>()[0], 0.5f * 2147483657.0f);
  EXPECT_EQ(dst.span<float>()[1], 0.5f * -2147483638.0f);
  EXPECT_EQ(dst.span<float>()[2], 505.0f);
}

TEST(FindMinMaxTest, SkipsWhatIsNotFiniteAndSaysSo) {
  const auto find = [](std::vector<float> v) {
    return FindMinMax(Tensor::From<float>({static_cast<int64_t>(v.size())}, v).view());
  };
  MinMax found = find({3, -1, 2});
  EXPECT_EQ(found.min, -1);
  EXPECT_EQ(found.max, 3);
  EXPECT_TRUE(found.finite);
  found = find({kNan, 5, kInf, 4, -kInf});
  EXPECT_EQ(found.min, 4);
  EXPECT_EQ(found.max, 5);
  EXPECT_FALSE(found.finite);
  found = find({kNan});
  EXPECT_EQ(found.min, 0);
  EXPECT_EQ(found.max, 0);
  EXPECT_FALSE(found.finite);
  found = find({});
  EXPECT_EQ(found.min, 0);
  EXPECT_TRUE(found.finite);
}

TEST(FindMinMaxTest, FindsTheExtremesWhereverTheyStand) {
  for (int64_t count : {1, 7, 8, 33, 100}) {
    for (int64_t at = 0; at < count; ++at) {
      Tensor t(DType::kF32, {count});
      for (float& v : t.mutable_span<float>()) v = 1;
      t.mutable_span<float>()[at] = -3;
      EXPECT_EQ(FindMinMax(t.view()).min, -3);
      t.mutable_span<float>()[at] = 9;
      EXPECT_EQ(FindMinMax(t.view()).max, 9);
    }
  }
}

}  // namespace quantize_test
}  // namespace octet
