#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"

namespace octet {
namespace convert_test {

template <typename To, typename From>
std::vector<To> Convert(std::initializer_list<From> values) {
  const Tensor src = Tensor::From<From>({static_cast<int64_t>(values.size())}, values);
  Tensor dst(DTypeOf<To>, src.shape());
  ConvertTensor(src.view(), dst.mutable_view());
  const auto span = dst.span<To>();
  return {span.begin(), span.end()};
}

template <typename To, typename From>
uint16_t Bits(From value) {
  return Convert<To, From>({value}).front().bits;
}

TEST(ConvertTensorTest, EveryPairKeepsSmallIntegers) {
  const auto types = {DType::kU8,  DType::kI8,   DType::kU16, DType::kI16,
                      DType::kU32, DType::kI32,  DType::kU64, DType::kI64,
                      DType::kF16, DType::kBF16, DType::kF32, DType::kF64};
  const Tensor start =
      Tensor::From<int32_t>({20}, std::vector<int32_t>{0,  1,  2,  3,  4,  5,  6,  7,   8,   9,
                                                       10, 11, 12, 13, 63, 64, 99, 100, 126, 127});
  for (const DType from : types) {
    Tensor source(from, start.shape());
    ConvertTensor(start.view(), source.mutable_view());
    for (const DType to : types) {
      Tensor converted(to, start.shape());
      ConvertTensor(source.view(), converted.mutable_view());
      Tensor back(DType::kI32, start.shape());
      ConvertTensor(converted.view(), back.mutable_view());
      for (int i = 0; i < 20; ++i) {
        ASSERT_EQ(back.span<int32_t>()[i], start.span<int32_t>()[i])
            << DTypeName(from) << " to " << DTypeName(to);
      }
    }
  }
}

TEST(ConvertTensorTest, FloatToIntegerTruncatesAndSaturates) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ((Convert<int32_t, float>({2.9f, -2.9f, 3e9f, -3e9f, nan})),
            (std::vector<int32_t>{2, -2, std::numeric_limits<int32_t>::max(),
                                  std::numeric_limits<int32_t>::min(), 0}));
  EXPECT_EQ((Convert<uint8_t, float>({-1.5f, 255.9f, 256.0f, 1e30f})),
            (std::vector<uint8_t>{0, 255, 255, 255}));
  EXPECT_EQ((Convert<int8_t, double>({-128.9, -129.0, 127.5, 128.0})),
            (std::vector<int8_t>{-128, -128, 127, 127}));
  EXPECT_EQ((Convert<int64_t, float>({9.3e18f, -9.3e18f})),
            (std::vector<int64_t>{std::numeric_limits<int64_t>::max(),
                                  std::numeric_limits<int64_t>::min()}));
  EXPECT_EQ((Convert<uint64_t, double>({2e19, -1.0, 4.5})),
            (std::vector<uint64_t>{std::numeric_limits<uint64_t>::max(), 0, 4}));
}

TEST(ConvertTensorTest, AnythingButZeroIsTrue) {
  const auto to_bool =
      Convert<bool, float>({0.0f, -0.0f, 0.1f, -3.0f, std::numeric_limits<float>::quiet_NaN()});
  EXPECT_EQ(to_bool, (std::vector<bool>{false, false, true, true, true}));
  EXPECT_EQ((Convert<float, bool>({true, false})), (std::vector<float>{1, 0}));
}

TEST(ConvertTensorTest, BytesThatAreNeitherZeroNorOneBecomeCleanBools) {
  const Tensor bytes = Tensor::From<uint8_t>({3}, {0, 1, 200});
  const ConstTensorView src{bytes.data(), {DType::kBool, {3}}};
  Tensor dst(DType::kBool, {3});
  ConvertTensor(src, dst.mutable_view());
  const auto* got = static_cast<const uint8_t*>(dst.data());
  EXPECT_EQ(got[0], 0);
  EXPECT_EQ(got[1], 1);
  EXPECT_EQ(got[2], 1);
}

// A tie for 16 bits, plus something that float cannot hold: rounding to float first would lose it.
TEST(ConvertTensorTest, RoundsOnceFromWideTypes) {
  const double tie = 1 + 0x1p-11;
  EXPECT_EQ(Bits<Half>(tie), 0x3c00);
  EXPECT_EQ(Bits<Half>(tie + 0x1p-40), 0x3c01);
  EXPECT_EQ(Bits<Half>(-(tie + 0x1p-40)), 0xbc01);
  EXPECT_EQ(Bits<Half>(tie - 0x1p-40), 0x3c00);
  EXPECT_EQ(Bits<Half>(65520 - 1e-9), 0x7bff);
  EXPECT_EQ(Bits<Half>(1e300), 0x7c00);
  EXPECT_EQ(Bits<BFloat16>(int64_t{0x1010000000000001}), Bits<BFloat16>(0x1.02p60));
  EXPECT_EQ(Bits<BFloat16>(int64_t{0x1010000000000000}), Bits<BFloat16>(0x1.00p60));
  EXPECT_EQ(Bits<BFloat16>(int64_t{-0x1010000000000001}), Bits<BFloat16>(-0x1.02p60));
  EXPECT_EQ(Bits<BFloat16>(int32_t{0x10100001}), Bits<BFloat16>(0x1.02p28));
  EXPECT_EQ(Bits<BFloat16>(uint64_t{0x8080000000000001}), Bits<BFloat16>(0x1.02p63));
}

TEST(ConvertTensorTest, IntegersWrapAsInCpp) {
  EXPECT_EQ((Convert<uint8_t, int32_t>({-1, 256, 300})), (std::vector<uint8_t>{255, 0, 44}));
  EXPECT_EQ((Convert<int8_t, uint8_t>({200})), (std::vector<int8_t>{-56}));
}

}  // namespace convert_test
}  // namespace octet
