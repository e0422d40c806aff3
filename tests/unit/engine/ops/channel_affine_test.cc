// Normalizations, against the reference kernel: to 8 bits and to BF16 bit for bit where scales are powers of two and sums are exact,
// else within one step, to FP32 but for the last bits.
#include "engine/ops/channel_affine.h"

#include <cmath>
#include <cstdlib>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace channel_affine_test {

using testing::Elements;
using ::testing::ElementsAre;
using testing::Lower;
using testing::OneNode;
using testing::RandomReals;

constexpr PostOp kAddend{.kind = PostOp::Kind::kAdd};
constexpr PostOp kFactor{.kind = PostOp::Kind::kMul};
constexpr PostOp kRelu{.kind = PostOp::Kind::kRelu};

/// Reals of few bits, whose products and sums are exact, ties of halves among them.
Tensor Grid(Shape shape, uint32_t seed, float step) {
  Tensor tensor = RandomReals(std::move(shape), seed, -16, 16);
  for (float& x : tensor.mutable_span<float>()) x = std::nearbyint(x) * step;
  return tensor;
}

struct Steps {
  int most = 0;  ///< Apart.
  int64_t differ = 0;
  int64_t elements = 0;
};

template <typename T>
Steps Compare(const OneNode& node, int threads = 1) {
  const auto lowered = Lower(node, {.isa = "test", .threads = threads});
  EXPECT_TRUE(lowered.ok()) << lowered.status();
  const auto expected = node.Run();
  EXPECT_TRUE(expected.ok()) << expected.status();
  if (!lowered.ok() || !expected.ok()) return {.most = 255};
  EXPECT_EQ(lowered->layer.impl, "octet:channel_affine");
  EXPECT_EQ(lowered->layer.runs, "f32");
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

/// Parts of these channels, each [2, 5, 7, channels], side by side where there are several.
struct Channels {
  const char* name;
  std::vector<int64_t> parts;
};
void PrintTo(const Channels& c, std::ostream* out) { *out << c.name; }

class ChannelAffineTest : public ::testing::TestWithParam<Channels> {
 protected:
  int64_t channels() const {
    int64_t sum = 0;
    for (const int64_t part : GetParam().parts) sum += part;
    return sum;
  }

  /// x * f, or the parts with f as a post-op; `reals` gives elements of a shape.
  template <typename Reals>
  OneNode Product(const Reals& reals, Tensor factor) const {
    const std::vector<int64_t>& parts = GetParam().parts;
    OneNode node(parts.size() == 1 ? "Mul" : "Concat", 13);
    uint32_t seed = 1;
    for (const int64_t part : parts) node.Input(reals(Shape{2, 5, 7, part}, seed++));
    node.Constant(std::move(factor));
    return parts.size() == 1 ? node : node.Post(kFactor).Set("axis", int64_t{3});
  }
};
INSTANTIATE_TEST_SUITE_P(
    Channels, ChannelAffineTest,
    ::testing::Values(Channels{"OneOfOne", {1}}, Channels{"OneOfThree", {3}},
                      Channels{"OneOf64", {64}}, Channels{"OneOfMany", {20011}},
                      Channels{"TwoOf32", {32, 32}}, Channels{"Odd", {1, 33, 7, 15, 100}},
                      Channels{"WithNothing", {0, 16, 0, 5}}, Channels{"Many", {9000, 17, 9000}}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_P(ChannelAffineTest, IsTheReferenceWhereSumsAreExact) {
  const auto reals = [](Shape shape, uint32_t seed) { return Grid(std::move(shape), seed, 0.5F); };
  const OneNode node = Product(reals, Grid({channels()}, 90, 0.25F))
                           .Constant(Grid({channels()}, 91, 0.125F))
                           .Post(kAddend);
  for (const int threads : {1, 2}) {
    EXPECT_EQ(
        Compare<uint8_t>(OneNode(node).Declare(DType::kU8, {}, QuantParams::PerTensor(0.25F, 120)),
                         threads)
            .most,
        0);
    EXPECT_EQ(Compare<int8_t>(
                  OneNode(node).Declare(DType::kI8, {}, QuantParams::PerTensor(0.25F, -7)), threads)
                  .most,
              0);
  }
}

TEST_P(ChannelAffineTest, IsWithinAStepWithAnyScales) {
  const auto reals = [](Shape shape, uint32_t seed) {
    return RandomReals(std::move(shape), seed, -3, 3);
  };
  const OneNode node = Product(reals, RandomReals({channels()}, 90, 0.5F, 2))
                           .Constant(RandomReals({channels()}, 91))
                           .Post(kAddend)
                           .Post(kRelu)
                           .Declare(DType::kU8, {}, QuantParams::PerTensor(0.023F, 11));
  const Steps steps = Compare<uint8_t>(node);
  EXPECT_LE(steps.most, 1);
  EXPECT_LE(steps.differ, 1 + steps.elements / 50);
}

Tensor Narrow(const Tensor& wide) {
  Tensor tensor(DType::kBF16, wide.shape());
  ConvertTensor(wide.view(), tensor.mutable_view());
  return tensor;
}

/// Answers of reals; a failure where another step makes them.
std::vector<float> RealsOf(const OneNode& node, int threads = 1) {
  const auto lowered = Lower(node, {.isa = "test", .threads = threads});
  EXPECT_TRUE(lowered.ok()) << lowered.status();
  if (!lowered.ok()) return {};
  EXPECT_EQ(lowered->layer.impl, "octet:channel_affine");
  EXPECT_EQ(lowered->layer.runs, "f32");
  Tensor reals(DType::kF32, lowered->outputs[0].shape());
  ConvertTensor(lowered->outputs[0].view(), reals.mutable_view());
  return Elements<float>(reals);
}

TEST_P(ChannelAffineTest, MakesRealsOfTheirOwnType) {
  if (GetParam().parts == std::vector<int64_t>{1}) return;  // One factor for all: blocks.
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(DTypeName(dtype));
    const auto reals = [&](Shape shape, uint32_t seed) {
      Tensor wide = Grid(std::move(shape), seed, 0.5F);
      return dtype == DType::kF32 ? wide : Narrow(wide);
    };
    const OneNode node = Product(reals, Grid({channels()}, 90, 0.25F))
                             .Constant(Grid({channels()}, 91, 0.125F))
                             .Post(kAddend)
                             .Post(kRelu)
                             .Post({.kind = PostOp::Kind::kClip, .alpha = -1, .beta = 9.5F})
                             .Declare(dtype, {});
    const auto expected = node.Run();
    ASSERT_TRUE(expected.ok()) << expected.status();
    Tensor want(DType::kF32, (*expected)[0].shape());
    ConvertTensor((*expected)[0].view(), want.mutable_view());
    for (const int threads : {1, 2}) EXPECT_EQ(RealsOf(node, threads), Elements<float>(want));
  }
}

TEST(ChannelAffineNumbersTest, RealsAreNotRoundedToSteps) {
  const OneNode node = OneNode("Mul", 13)
                           .Input(RandomReals({2, 70, 37}, 1))
                           .Constant(RandomReals({37}, 2))
                           .Constant(RandomReals({37}, 3))
                           .Post(kAddend)
                           .Declare(DType::kF32, {});
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto want = Elements<float>((*expected)[0]);
  const auto got = RealsOf(node);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-6F) << i;
}

TEST(ChannelAffineNumbersTest, OfRealsWhatIsNoNumberStaysNone) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  Tensor x(DType::kF32, {2, 40});
  for (int64_t i = 0; i < x.elements(); ++i)
    x.mutable_span<float>()[i] = i % 40 == 3 || i % 40 == 38 ? kNaN : kInfinity;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(DTypeName(dtype));
    const auto y = RealsOf(OneNode("Mul", 13)
                               .Input(dtype == DType::kF32 ? x : Narrow(x))
                               .Constant(RandomReals({40}, 2, 1, 2))
                               .Constant(RandomReals({40}, 3))
                               .Post(kAddend)
                               .Post({.kind = PostOp::Kind::kClip, .alpha = 0, .beta = 6})
                               .Declare(dtype, {}));
    ASSERT_EQ(y.size(), 80U);
    for (size_t i = 0; i < y.size(); ++i) {
      if (i % 40 == 3 || i % 40 == 38) {
        EXPECT_TRUE(std::isnan(y[i])) << i;
      } else {
        EXPECT_EQ(y[i], 6) << i;
      }
    }
  }
}

TEST(ChannelAffineNumbersTest, TakesFactorsAndAddendsInTheirOrderAndBounds) {
  const OneNode node = OneNode("Mul", 13)
                           .Constant(Tensor::From<float>({1, 3}, {1, 2, 4}))
                           .Input(Tensor::From<float>({2, 3}, {1, 2, 3, -1, -2, -3}))
                           .Constant(Tensor::From<float>({1}, {1}))
                           .Post(kAddend)
                           .Constant(Tensor::From<float>({3}, {2, 2, -1}))
                           .Post(kFactor)
                           .Post({.kind = PostOp::Kind::kClip, .alpha = -5, .beta = 9})
                           .Declare(DType::kI8, {}, QuantParams::PerTensor(1.0F, 10));
  EXPECT_EQ(Compare<int8_t>(node).most, 0);
  // (x f + 1) g: 4, 10, -13; 0, -6, 11, within -5 and 9, 10 being 0.
  EXPECT_THAT(Elements<int8_t>(Lower(node)->outputs[0]), ElementsAre(14, 19, 5, 10, 5, 19));
}

TEST(ChannelAffineNumbersTest, SaturatesAndTakesWhatIsNoNumberAsZero) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const OneNode node = OneNode("Mul", 13)
                           .Input(Tensor::From<float>({2, 4}, {kInfinity, -kInfinity, kNaN, 3e38F,
                                                               3e38F, -3e38F, kInfinity, 1}))
                           .Constant(Tensor::From<float>({4}, {100, 100, 1, 0}))
                           .Constant(Tensor::From<float>({4}, {1, 1, 50, 2}))
                           .Post(kAddend)
                           .Declare(DType::kU8, {}, QuantParams::PerTensor(1.0F, 20));
  const auto lowered = Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.impl, "octet:channel_affine");
  EXPECT_THAT(Elements<uint8_t>(lowered->outputs[0]), ElementsAre(255, 0, 20, 22, 255, 0, 255, 22));
}

std::string ImplOf(const OneNode& node) {
  const auto lowered = Lower(node);
  return lowered.ok() ? lowered->layer.impl : std::string(Message(lowered.status()));
}

TEST(ChannelAffineNumbersTest, LeavesOtherNodesToOthers) {
  const QuantParams quant = QuantParams::PerTensor(0.02F, 100);
  const auto product = [&](Shape x, Tensor factor) {
    return OneNode("Mul", 13)
        .Input(RandomReals(std::move(x), 1))
        .Constant(std::move(factor))
        .Declare(DType::kU8, {}, quant);
  };
  EXPECT_EQ(ImplOf(product({2, 9, 8}, RandomReals({8}, 2))), "octet:channel_affine");
  EXPECT_EQ(ImplOf(product({2, 9, 8}, RandomReals({9, 1}, 2))), "octet:elementwise");
  EXPECT_EQ(ImplOf(product({2, 9, 8}, RandomReals({9, 8}, 2))), "octet:elementwise");
  EXPECT_EQ(ImplOf(product({8}, RandomReals({8}, 2))), "octet:elementwise");
  EXPECT_EQ(ImplOf(product({9, 1}, RandomReals({9, 1}, 2))), "octet:elementwise");
  EXPECT_EQ(ImplOf(product({2, 8}, RandomReals({1, 1, 8}, 2))), "octet:elementwise");
  // A factor that no float holds in steps of the result.
  EXPECT_EQ(ImplOf(product({2, 1}, Tensor::From<float>({1}, {3e38F}))), "octet:elementwise");
  EXPECT_EQ(ImplOf(product({2, 9, 8}, RandomReals({8}, 2)).Post({.kind = PostOp::Kind::kSigmoid})),
            "octet:elementwise");
  EXPECT_EQ(
      ImplOf(OneNode("Mul", 13).Input(RandomReals({2, 9, 8}, 1)).Constant(RandomReals({1}, 2))),
      "octet:elementwise");
  EXPECT_EQ(ImplOf(OneNode("Mul", 13)
                       .Input(Narrow(RandomReals({2, 9, 8}, 1)))
                       .Constant(RandomReals({8}, 2))
                       .Constant(RandomReals({8}, 3))
                       .Post(kAddend)
                       .Declare(DType::kF32, {})),
            "octet:elementwise");
  EXPECT_EQ(ImplOf(OneNode("Concat", 13)
                       .Set("axis", int64_t{0})
                       .Input(RandomReals({2, 4}, 1))
                       .Input(RandomReals({3, 4}, 2))
                       .Constant(RandomReals({4}, 3))
                       .Post(kFactor)
                       .Declare(DType::kU8, {}, quant)),
            "parts of other axes than the last");
}

}  // namespace channel_affine_test
}  // namespace octet
