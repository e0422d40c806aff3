// Elements on the wire, of every type, into every format that a plan reads: the bits are those of the reals rounded once.
#include "engine/tensor/wire_mapping.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/graph_builder.h"

namespace octet {
namespace wire_mapping_test {

const std::vector<RealFormat> kFormats = {
    {},
    {DType::kBF16, std::nullopt},
    {DType::kF16, std::nullopt},
    {DType::kU8, QuantParams::PerTensor(0.037F, 131)},
    {DType::kI8, QuantParams::PerTensor(0.05F, -3)},
};

std::vector<std::byte> RandomBytes(size_t n, std::mt19937& random) {
  std::vector<std::byte> bytes(n);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0xFF);
  return bytes;
}

// One element by itself.
float RealOf(const std::byte* at, DType dtype) {
  const auto load = [at]<typename T>(T value) {
    std::memcpy(&value, at, sizeof(T));
    return value;
  };
  switch (dtype) {
    case DType::kU8:
      return load(uint8_t{});
    case DType::kI8:
      return load(int8_t{});
    case DType::kU16:
      return load(uint16_t{});
    case DType::kI16:
      return load(int16_t{});
    case DType::kF16:
      return ToFloat(load(Half{}));
    case DType::kBF16:
      return ToFloat(load(BFloat16{}));
    default:
      return load(float{});
  }
}

std::vector<std::byte> Written(std::span<const float> reals, const RealFormat& format) {
  std::vector<std::byte> bytes(reals.size() * SizeOf(format.stored));
  format.Write(reals.data(), bytes.data(), 0, std::ssize(reals));
  return bytes;
}

// The same bytes in pieces whose borders are anywhere, within elements, too.
std::vector<std::string_view> InPieces(std::span<const std::byte> bytes, std::mt19937& random) {
  std::vector<std::string_view> pieces;
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (size_t at = 0; at < all.size();) {
    const size_t size = std::min<size_t>(random() % 3001, all.size() - at);
    pieces.push_back(all.substr(at, size));  // Some are empty.
    at += size;
  }
  return pieces;
}

struct Case {
  Shape shape;
  size_t channels;  // Of the mapping.
};

class ConvertFromWireTest : public ::testing::TestWithParam<DType> {};

TEST_P(ConvertFromWireTest, WritesTheRealsOfEveryElementInEveryFormat) {
  const DType dtype = GetParam();
  std::mt19937 random(TestSeed());
  for (const Case& c : {Case{{2, 3, 41, 29}, 3}, Case{{2, 3, 41, 29}, 1}, Case{{3, 5, 7}, 5},
                        Case{{1, 2, 1024}, 2}, Case{{4, 6}, 6}, Case{{5000}, 1}}) {
    WireMapping mapping{dtype, {}, {}};
    for (size_t i = 0; i < c.channels; ++i) {
      mapping.scale.push_back(0.01F * static_cast<float>(i + 1));
      mapping.zero_point.push_back(3.5F * static_cast<float>(i) - 2);
    }
    const int64_t elements = c.shape.elements();
    const size_t size = SizeOf(dtype);
    // One byte further: nothing is aligned.
    std::vector<std::byte> bytes = RandomBytes(static_cast<size_t>(elements) * size + 1, random);
    if (dtype == DType::kF16 || dtype == DType::kBF16) {
      // No NaN, whose bits are nobody's business: the top bit of the exponent is 0.
      for (size_t i = 2; i < bytes.size(); i += 2) bytes[i] &= std::byte{0xBF};
    }
    std::vector<float> reals(static_cast<size_t>(elements));
    const int64_t inner = c.channels == 1 ? elements : c.shape.elements(2, c.shape.rank());
    for (size_t i = 0; i < reals.size(); ++i) {
      const size_t channel = i / static_cast<size_t>(inner) % c.channels;
      reals[i] = mapping.scale[channel] *
                 (RealOf(bytes.data() + 1 + i * size, dtype) - mapping.zero_point[channel]);
    }
    const std::span<const std::byte> wire = std::span(bytes).subspan(1);
    const std::vector<std::string_view> pieces = InPieces(wire, random);
    for (const RealFormat& format : kFormats) {
      const std::vector<std::byte> expected = Written(reals, format);
      std::vector<std::byte> got(expected.size());
      ConvertFromWire({wire.data(), {dtype, c.shape}}, mapping, format, got.data());
      EXPECT_EQ(got, expected) << c.shape.ToString() << " as " << DTypeName(format.stored);
      std::vector<std::byte> from_pieces(expected.size());
      ConvertFromWire({WireBytes(pieces), {dtype, c.shape}}, mapping, format, from_pieces.data());
      EXPECT_EQ(from_pieces, got) << c.shape.ToString() << " as " << DTypeName(format.stored);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(WireTypes, ConvertFromWireTest,
                         ::testing::Values(DType::kU8, DType::kI8, DType::kU16, DType::kI16,
                                           DType::kF16, DType::kBF16),
                         [](const auto& type) { return std::string(DTypeName(type.param)); });

TEST(ConvertFromWireTest, RoundsRealsThatComeUnalignedAndInPieces) {
  std::mt19937 random(TestSeed());
  std::vector<float> reals(5003);
  for (float& real : reals) real = std::uniform_real_distribution<float>(-9, 9)(random);
  reals[17] = std::numeric_limits<float>::infinity();
  reals[18] = -std::numeric_limits<float>::infinity();
  reals[19] = std::numeric_limits<float>::quiet_NaN();
  const TensorSpec spec{DType::kF32, {1, std::ssize(reals)}};
  for (const size_t offset : {0, 1}) {
    std::vector<std::byte> bytes(reals.size() * sizeof(float) + offset);
    std::memcpy(bytes.data() + offset, reals.data(), bytes.size() - offset);
    const std::span<const std::byte> wire = std::span(bytes).subspan(offset);
    const std::vector<std::string_view> pieces = InPieces(wire, random);
    for (const RealFormat& format : kFormats) {
      const std::vector<std::byte> expected = Written(reals, format);
      std::vector<std::byte> got(expected.size());
      ConvertFromWire({wire.data(), spec}, format, got.data());
      EXPECT_EQ(got, expected) << DTypeName(format.stored) << " at " << offset;
      std::ranges::fill(got, std::byte{});
      ConvertFromWire({WireBytes(pieces), spec}, format, got.data());
      EXPECT_EQ(got, expected) << DTypeName(format.stored) << " in pieces at " << offset;
    }
  }
}

}  // namespace wire_mapping_test
}  // namespace octet
