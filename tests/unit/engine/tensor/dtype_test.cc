#include "engine/tensor/dtype.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace dtype_test {

TEST(DTypeTest, NamesRoundTrip) {
  for (int i = 1; i <= static_cast<int>(DType::kF64); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(ParseDType(DTypeName(dtype)), dtype) << DTypeName(dtype);
    EXPECT_GT(SizeOf(dtype), 0u);
  }
  EXPECT_EQ(DTypeName(DType::kUndefined), "UNDEFINED");
  EXPECT_EQ(ParseDType("UNDEFINED"), std::nullopt);
  EXPECT_EQ(ParseDType("fp32"), std::nullopt);
}

// The value of a binary16 by its definition.
double HalfByDefinition(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  if (exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(HalfTest, EveryHalfWidensToItsDefinitionAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Half half{static_cast<uint16_t>(bits)};
    const float wide = ToFloat(half);
    const double expected = HalfByDefinition(half.bits);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(wide)) << bits;
      EXPECT_TRUE(std::isnan(ToFloat(ToHalf(wide)))) << bits;
    } else {
      ASSERT_EQ(wide, expected) << bits;
      ASSERT_EQ(ToHalf(wide).bits, half.bits) << bits;
    }
  }
}

TEST(HalfTest, ValuesBetweenTwoHalvesRoundHalfToEven) {
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = ToFloat(Half{bits});
    const float high = ToFloat(Half{static_cast<uint16_t>(bits + 1)});
    const float middle = (low + high) / 2;  // Exact: 11 + 1 bits.
    const uint16_t even = bits & 1 ? bits + 1 : bits;
    ASSERT_EQ(ToHalf(middle).bits, even) << bits;
    ASSERT_EQ(ToHalf(std::nextafter(middle, low)).bits, bits);
    ASSERT_EQ(ToHalf(std::nextafter(middle, high)).bits, bits + 1);
    ASSERT_EQ(ToHalf(-middle).bits, even | 0x8000);
  }
}

TEST(HalfTest, OverflowsToInfinityFrom65520) {
  EXPECT_EQ(ToHalf(65519.996f).bits, 0x7bff);
  EXPECT_EQ(ToHalf(65520.0f).bits, 0x7c00);
  EXPECT_EQ(ToHalf(1e30f).bits, 0x7c00);
  EXPECT_EQ(ToHalf(-std::numeric_limits<float>::infinity()).bits, 0xfc00);
}

TEST(HalfTest, BulkConversionEqualsOneByOne) {
  constexpr uint32_t kSeed = 17;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  std::vector<float> floats(100003);
  for (float& f : floats) f = std::bit_cast<float>(static_cast<uint32_t>(random()));
  std::vector<Half> halves(floats.size());
  ConvertFloatToHalf(floats.data(), halves.data(), floats.size());
  std::vector<float> back(floats.size());
  ConvertHalfToFloat(halves.data(), back.data(), halves.size());
  for (size_t i = 0; i < floats.size(); ++i) {
    ASSERT_EQ(halves[i].bits, ToHalf(floats[i]).bits) << std::bit_cast<uint32_t>(floats[i]);
    ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), std::bit_cast<uint32_t>(ToFloat(halves[i])));
  }
}

TEST(BFloat16Test, RoundsHalfToEvenAndKeepsNan) {
  EXPECT_EQ(ToBFloat16(1.0f).bits, 0x3f80);
  const auto bits = [](uint32_t b) { return ToBFloat16(std::bit_cast<float>(b)).bits; };
  EXPECT_EQ(bits(0x3f808000), 0x3f80) << "a tie goes to the even one below";
  EXPECT_EQ(bits(0x3f818000), 0x3f82) << "a tie goes to the even one above";
  EXPECT_EQ(bits(0x3f808001), 0x3f81);
  EXPECT_EQ(bits(0x7f7fffff), 0x7f80) << "overflow";
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(std::bit_cast<float>(0xffffffffu)))));
}

}  // namespace dtype_test
}  // namespace octet
