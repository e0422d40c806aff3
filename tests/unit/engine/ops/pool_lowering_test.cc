// Channels-last pools: on oneDNN, and 8-bit averages with scales of their own, against the reference kernel.
#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "tests/support/one_node.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace pool_lowering_test {

using testing::Elements;
using testing::Lower;
using testing::Lowered;
using testing::OneNode;
using List = std::vector<int64_t>;

Tensor Bytes(DType dtype, Shape shape) {
  std::mt19937 random(7);
  Tensor tensor(dtype, std::move(shape));
  auto* bytes = static_cast<uint8_t*>(tensor.mutable_data());
  for (size_t i = 0; i < tensor.bytes(); ++i) bytes[i] = static_cast<uint8_t>(random());
  return tensor;
}

absl::StatusOr<Lowered> LowerHere(const OneNode& node) {
  return Lower(node, onednn::DetectTarget(1));
}

OneNode Pool(const char* op, int version, List kernel, List strides, List pads) {
  return OneNode(op, version)
      .Set("channels_last", int64_t{1})
      .Set("kernel_shape", std::move(kernel))
      .Set("strides", std::move(strides))
      .Set("pads", std::move(pads));
}

template <typename T>
void ExpectReference(const OneNode& node, std::string_view impl) {
  const auto lowered = LowerHere(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  EXPECT_EQ(Elements<T>(lowered->outputs[0]), Elements<T>((*expected)[0]));
  EXPECT_TRUE(lowered->layer.impl.starts_with(impl)) << lowered->layer.impl;
}

// Powers of two in scales and counts: exact up to the last rounding.
const QuantParams kIn = QuantParams::PerTensor(0x1p-3f, 5);
const QuantParams kOut = QuantParams::PerTensor(0x1p-4f, 100);

TEST(PoolLoweringTest, AveragesBytesOfOneScaleIntoAnother) {
  const auto pool = [] { return Pool("AveragePool", 13, {2, 4}, {2, 1}, {0, 0, 0, 0}); };
  ExpectReference<uint8_t>(
      pool().Input(Bytes(DType::kU8, {2, 6, 7, 5}), kIn).Declare(DType::kU8, {}, kOut),
      "octet:average_int8");
  ExpectReference<int8_t>(
      pool().Input(Bytes(DType::kI8, {1, 4, 8, 600}), kIn).Declare(DType::kI8, {}, kIn),
      "octet:average_int8");
  ExpectReference<float>(
      pool().Input(Bytes(DType::kU8, {1, 4, 8, 3}), kIn).Declare(DType::kF32, {}),
      "octet:average_int8");
}

TEST(PoolLoweringTest, CountsPaddingAsTheModelSays) {
  for (const int64_t include : {0, 1}) {
    for (const int version : {11, 19}) {
      ExpectReference<uint8_t>(Pool("AveragePool", version, {2, 2}, {2, 2}, {1, 1, 1, 1})
                                   .Set("count_include_pad", include)
                                   .Set("ceil_mode", int64_t{1})
                                   .Input(Bytes(DType::kU8, {1, 6, 5, 16}), kIn)
                                   .Declare(DType::kU8, {}, kOut),
                               "octet:average_int8");
    }
  }
}

TEST(PoolLoweringTest, AveragesWholePlanes) {
  ExpectReference<uint8_t>(OneNode("GlobalAveragePool", 1)
                               .Set("channels_last", int64_t{1})
                               .Input(Bytes(DType::kU8, {3, 4, 4, 130}), kIn)
                               .Declare(DType::kU8, {}, kOut),
                           "octet:average_int8");
}

TEST(PoolLoweringTest, AveragesWholePlanesOfFloats) {
  for (const int64_t channels : {1, 16, 37, 600}) {
    Tensor x(DType::kF32, {2, 7, 5, channels});
    for (int64_t i = 0; i < x.elements(); ++i)
      x.mutable_span<float>()[i] = static_cast<float>(i % 97 - 40);
    const OneNode node =
        OneNode("GlobalAveragePool", 1).Set("channels_last", int64_t{1}).Input(std::move(x));
    const auto lowered = LowerHere(node);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(lowered->layer.impl, "octet:plane_mean");
    const auto expected = node.Run();
    ASSERT_TRUE(expected.ok()) << expected.status();
    EXPECT_THAT(Elements<float>(lowered->outputs[0]),
                ::testing::Pointwise(::testing::FloatNear(1e-4F), Elements<float>((*expected)[0])));
  }
}

TEST(PoolLoweringTest, AveragesWholePlanesOfBFloat16) {
  for (const int64_t channels : {1, 37, 600}) {
    Tensor x(DType::kBF16, {2, 7, 5, channels});
    for (int64_t i = 0; i < x.elements(); ++i)
      x.mutable_span<BFloat16>()[i] = ToBFloat16(static_cast<float>(i % 97 - 40));
    const OneNode node = OneNode("GlobalAveragePool", 1)
                             .Set("channels_last", int64_t{1})
                             .Input(std::move(x))
                             .Declare(DType::kBF16, {});
    const auto lowered = LowerHere(node);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(lowered->layer.impl, "octet:plane_mean");
    const auto expected = node.Run();
    ASSERT_TRUE(expected.ok()) << expected.status();
    const auto want = Elements<BFloat16>((*expected)[0]);
    const auto got = Elements<BFloat16>(lowered->outputs[0]);
    ASSERT_EQ(got.size(), want.size());
    // One unit of the last of 8 bits: the sums are exact here, the mean of the reference is divided, not multiplied.
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_NEAR(ToFloat(got[i]), ToFloat(want[i]), std::abs(ToFloat(want[i])) / 128) << i;
  }
}

TEST(PoolLoweringTest, TakesFloatPaddingIntoTheCount) {
  Tensor x(DType::kF32, {1, 4, 4, 16});
  for (int64_t i = 0; i < x.elements(); ++i) x.mutable_span<float>()[i] = static_cast<float>(i % 7);
  ExpectReference<float>(Pool("AveragePool", 11, {2, 2}, {2, 2}, {1, 1, 1, 1})
                             .Set("count_include_pad", int64_t{1})
                             .Input(std::move(x)),
                         "jit");
}

// oneDNN has no average of a window that lies in the padding alone.
TEST(PoolLoweringTest, AveragesRowsWherePaddingHoldsWholeWindows) {
  const auto pool = [](int64_t include) {
    return Pool("AveragePool", 13, {2, 2}, {1, 1}, {2, 0, 0, 0})
        .Set("count_include_pad", include)
        .Input(Tensor::From<float>({1, 4, 4, 16}, std::vector<float>(256, 1.0F)));
  };
  ExpectReference<float>(pool(0), "octet:pool_rows");
  ExpectReference<float>(pool(1), "");
}

TEST(PoolLoweringTest, ComparesBytesInMaxPools) {
  // Every width of a vector, and what is left of one.
  for (const int64_t channels : {1, 3, 8, 11, 16, 24, 40, 64, 100, 200}) {
    SCOPED_TRACE(channels);
    ExpectReference<uint8_t>(Pool("MaxPool", 12, {3, 3}, {2, 2}, {1, 1, 1, 1})
                                 .Input(Bytes(DType::kU8, {2, 7, 6, channels}), kIn)
                                 .Declare(DType::kU8, {}, kIn),
                             "octet:max_int8");
    ExpectReference<int8_t>(Pool("MaxPool", 12, {2, 3}, {1, 3}, {0, 2, 1, 0})
                                .Set("ceil_mode", int64_t{1})
                                .Set("dilations", List{2, 1})
                                .Input(Bytes(DType::kI8, {1, 9, 8, channels}), kIn)
                                .Declare(DType::kI8, {}, kIn),
                            "octet:max_int8");
  }
}

TEST(PoolLoweringTest, ComparesBytesUnderKernelsFarLargerThanTheirInput) {
  constexpr int64_t kHuge = int64_t{1} << 28;
  ExpectReference<uint8_t>(Pool("MaxPool", 12, {kHuge, kHuge}, {1, 1},
                                {kHuge / 2, kHuge / 2, kHuge / 2 - 4, kHuge / 2 - 4})
                               .Input(Bytes(DType::kU8, {1, 4, 4, 256}), kIn)
                               .Declare(DType::kU8, {}, kIn),
                           "octet:max_int8");
  ExpectReference<uint8_t>(Pool("MaxPool", 12, {2, 2}, {1, 1}, {kHuge, kHuge, 0, 0})
                               .Set("dilations", List{kHuge, kHuge})
                               .Input(Bytes(DType::kU8, {1, 2, 2, 16}), kIn)
                               .Declare(DType::kU8, {}, kIn),
                           "octet:max_int8");
}

TEST(PoolLoweringTest, MovesBytesOfVolumesThroughOneDnn) {
  ExpectReference<uint8_t>(Pool("MaxPool", 12, {2, 3, 3}, {2, 2, 2}, {0, 1, 1, 0, 1, 1})
                               .Input(Bytes(DType::kU8, {1, 4, 7, 7, 64}), kIn)
                               .Declare(DType::kU8, {}, kIn),
                           "jit");
}

TEST(PoolLoweringTest, RequantizesMaximaOfRows) {
  ExpectReference<uint8_t>(Pool("MaxPool", 12, {3, 3}, {2, 2}, {1, 1, 1, 1})
                               .Input(Bytes(DType::kU8, {1, 7, 7, 64}), kIn)
                               .Declare(DType::kU8, {}, kOut),
                           "octet:pool_rows");
}

}  // namespace pool_lowering_test
}  // namespace octet
