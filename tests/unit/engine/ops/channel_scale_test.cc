// Products with a factor per channel, against the reference kernel: bit for bit where the scales are powers of two, which
// may be multiplied in any order, else within one step.
#include "engine/ops/channel_scale.h"

#include <cstdlib>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace channel_scale_test {

using testing::Elements;
using ::testing::ElementsAre;
using testing::Lower;
using testing::OneNode;
using testing::RandomBytes;
using testing::RandomReals;

struct Shapes {
  const char* name;
  Shape a, b;
};
void PrintTo(const Shapes& s, std::ostream* out) { *out << s.name; }

class ChannelScaleTest : public ::testing::TestWithParam<Shapes> {};
INSTANTIATE_TEST_SUITE_P(Shapes, ChannelScaleTest,
                         ::testing::Values(Shapes{"PerImage", {3, 40, 5, 33}, {3, 1, 1, 33}},
                                           Shapes{"PerChannel", {2, 7, 9, 300}, {300}},
                                           Shapes{"FactorFirst", {24}, {2, 50, 60, 24}},
                                           Shapes{"PerRow", {2, 6, 50, 8}, {2, 6, 1, 8}},
                                           Shapes{"ManyChannels", {2, 9, 2500}, {2, 1, 2500}},
                                           Shapes{"OneChannel", {2, 70, 1}, {2, 1, 1}}),
                         [](const auto& test) { return std::string(test.param.name); });

struct Steps {
  int most = 0;  ///< Apart.
  int64_t differ = 0;
  int64_t elements = 0;
};

template <typename T>
Steps Compare(const OneNode& node, std::string_view runs) {
  const auto lowered = Lower(node);
  EXPECT_TRUE(lowered.ok()) << lowered.status();
  const auto expected = node.Run();
  EXPECT_TRUE(expected.ok()) << expected.status();
  if (!lowered.ok() || !expected.ok()) return {.most = 255};
  EXPECT_EQ(lowered->layer.impl, "octet:channel_scale");
  EXPECT_EQ(lowered->layer.runs, runs);
  const auto want = Elements<T>((*expected)[0]);
  const auto got = Elements<T>(lowered->outputs[0]);
  EXPECT_EQ(want.size(), got.size());
  Steps steps{.elements = static_cast<int64_t>(want.size())};
  for (size_t i = 0; i < std::min(want.size(), got.size()); ++i) {
    const int apart = std::abs(int{got[i]} - int{want[i]});
    steps.most = std::max(steps.most, apart);
    steps.differ += apart == 0 ? 0 : 1;
  }
  return steps;
}

TEST_P(ChannelScaleTest, IsTheReferenceWithScalesOfPowersOfTwo) {
  const auto& [name, a, b] = GetParam();
  const QuantParams x = QuantParams::PerTensor(0.03125F, 100);
  const QuantParams factor = QuantParams::PerTensor(0.01F, 3);
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    SCOPED_TRACE(DTypeName(dtype));
    const bool first = a.rank() >= b.rank();
    const OneNode node = OneNode("Mul", 14)
                             .Input(RandomBytes(dtype, a, 1), first ? x : factor)
                             .Input(RandomBytes(dtype, b, 2), first ? factor : x);
    EXPECT_EQ(
        Compare<uint8_t>(
            OneNode(node).Declare(DType::kU8, {}, QuantParams::PerTensor(0.0625F, 120)), "int8")
            .most,
        0);
    EXPECT_EQ(
        Compare<int8_t>(OneNode(node).Declare(DType::kI8, {}, QuantParams::PerTensor(0.0625F, -7)),
                        "int8")
            .most,
        0);
  }
}

TEST_P(ChannelScaleTest, IsWithinAStepWithAnyScales) {
  const auto& [name, a, b] = GetParam();
  const OneNode node = OneNode("Mul", 14)
                           .Input(RandomBytes(DType::kU8, a, 1), QuantParams::PerTensor(0.023F, 9))
                           .Input(RandomBytes(DType::kU8, b, 2), QuantParams::PerTensor(0.011F, 3))
                           .Declare(DType::kU8, {}, QuantParams::PerTensor(0.037F, 120));
  const Steps steps = Compare<uint8_t>(node, "int8");
  EXPECT_LE(steps.most, 1);
  EXPECT_LE(steps.differ, steps.elements / 50);
}

TEST_P(ChannelScaleTest, MultipliesBFloat16) {
  const auto& [name, a, b] = GetParam();
  Tensor narrow_a(DType::kBF16, a);
  Tensor narrow_b(DType::kBF16, b);
  ConvertTensor(RandomReals(a, 1, -4, 4).view(), narrow_a.mutable_view());
  ConvertTensor(RandomReals(b, 2).view(), narrow_b.mutable_view());
  const OneNode node = OneNode("Mul", 14)
                           .Input(std::move(narrow_a))
                           .Input(std::move(narrow_b))
                           .Declare(DType::kBF16, {});
  const auto lowered = Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.impl, "octet:channel_scale");
  EXPECT_EQ(lowered->layer.runs, "f32");
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto bits = [](const Tensor& tensor) {
    std::vector<int> all;
    for (const BFloat16 value : Elements<BFloat16>(tensor)) all.push_back(value.bits);
    return all;
  };
  EXPECT_EQ(bits(lowered->outputs[0]), bits((*expected)[0]));
}

TEST(ChannelScaleNumbersTest, SaturatesAndTakesWhatIsNoNumberAsZero) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const auto lowered =
      Lower(OneNode("Mul", 14)
                .Input(Tensor::From<uint8_t>({1, 2, 4}, {9, 9, 9, 10, 11, 11, 11, 11}),
                       QuantParams::PerTensor(1.0F, 10))
                .Input(Tensor::From<float>({4}, {kInfinity, kNaN, 0.5F, kInfinity}))
                .Declare(DType::kU8, {}, QuantParams::PerTensor(1.0F, 20)));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.impl, "octet:channel_scale");
  EXPECT_EQ(lowered->layer.runs, "f32");
  EXPECT_THAT(Elements<uint8_t>(lowered->outputs[0]), ElementsAre(0, 20, 20, 20, 255, 20, 20, 255));
}

void ExpectBlocks(const OneNode& node) {
  const auto lowered = Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.impl, "octet:elementwise");
}

TEST(ChannelScaleNumbersTest, LeavesOtherProductsToBlocks) {
  const QuantParams quant = QuantParams::PerTensor(0.02F, 100);
  const auto bytes = [&](Shape a, Shape b, const char* op = "Mul") {
    return OneNode(op, 14)
        .Input(RandomBytes(DType::kU8, std::move(a), 1), quant)
        .Input(RandomBytes(DType::kU8, std::move(b), 2), quant)
        .Declare(DType::kU8, {}, quant);
  };
  ExpectBlocks(bytes({2, 9, 8}, {2, 9, 8}));
  ExpectBlocks(bytes({2, 9, 8}, {2, 9, 1}));
  ExpectBlocks(bytes({2, 3, 4, 8}, {2, 1, 4, 8}));
  ExpectBlocks(bytes({4, 1, 8}, {1, 9, 8}));
  ExpectBlocks(bytes({2, 9, 8}, {8}, "Add"));
  ExpectBlocks(bytes({2, 9, 8}, {8}).Post({.kind = PostOp::Kind::kRelu}));
  ExpectBlocks(OneNode("Mul", 14).Input(RandomReals({2, 9, 8}, 1)).Input(RandomReals({8}, 2)));
}

}  // namespace channel_scale_test
}  // namespace octet
