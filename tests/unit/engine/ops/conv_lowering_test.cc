// Convolutions on oneDNN against the reference kernel: bit for bit where the mathematics is integer.
#include <random>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace conv_lowering_test {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using testing::Lower;
using testing::Lowered;
using ::testing::Not;
using testing::OneNode;
using testing::PowerOfTwoScales;
using testing::RandomBytes;
using testing::RandomReals;
using List = std::vector<int64_t>;

// Multiples of 1/4: exact beside sums of products whose scales are powers of two.
Tensor Bias(int64_t channels) {
  Tensor tensor(DType::kF32, Shape{channels});
  for (int64_t i = 0; i < channels; ++i)
    tensor.mutable_span<float>()[i] = 0.25f * static_cast<float>(i % 41 - 20);
  return tensor;
}

struct Geometry {
  const char* name;
  Shape x, w;  // [N, spatial..., C] and [OC, IC / group, spatial...]
  List pads, strides, dilations;
  int64_t group = 1;
};
void PrintTo(const Geometry& g, std::ostream* out) { *out << g.name; }

const Geometry kGeometries[] = {
    {"Dense3x3", {2, 7, 6, 16}, {32, 16, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 1},
    {"OddChannels", {1, 7, 6, 3}, {10, 3, 3, 3}, {0, 1, 2, 1}, {2, 2}, {1, 1}, 1},
    {"Pointwise", {2, 5, 5, 24}, {40, 24, 1, 1}, {0, 0, 0, 0}, {1, 1}, {1, 1}, 1},
    {"PointwiseStrided", {1, 6, 6, 32}, {16, 32, 1, 1}, {0, 0, 0, 0}, {2, 2}, {1, 1}, 1},
    {"Depthwise", {2, 9, 9, 32}, {32, 1, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 32},
    {"DepthwiseStrided", {1, 9, 9, 24}, {24, 1, 3, 3}, {0, 0, 1, 1}, {2, 2}, {1, 1}, 24},
    // Several tiles per row with a remainder, and every width of a run of channels.
    {"DepthwiseWide", {1, 5, 26, 200}, {200, 1, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 200},
    {"DepthwiseWideStrided", {2, 6, 40, 80}, {80, 1, 3, 3}, {1, 1, 1, 1}, {2, 2}, {1, 1}, 80},
    {"Depthwise5x5", {1, 7, 23, 48}, {48, 1, 5, 5}, {2, 2, 2, 2}, {1, 1}, {1, 1}, 48},
    {"Depthwise5x5Strided", {1, 9, 18, 16}, {16, 1, 5, 5}, {1, 2, 2, 2}, {2, 2}, {1, 1}, 16},
    {"Depthwise7x7", {1, 9, 9, 32}, {32, 1, 7, 7}, {3, 3, 3, 3}, {1, 1}, {1, 1}, 32},
    {"DepthwiseFewChannels", {1, 9, 9, 8}, {8, 1, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 8},
    {"Grouped", {1, 6, 6, 32}, {32, 8, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 4},
    {"PaddedBlocks", {1, 6, 6, 40}, {40, 40, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 1},
    {"FewOutputs", {1, 6, 6, 3}, {8, 3, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 1},
    {"PaddedPointwise", {1, 1, 1, 128}, {640, 128, 1, 1}, {0, 0, 0, 0}, {1, 1}, {1, 1}, 1},
    {"Dilated", {1, 9, 9, 16}, {16, 16, 3, 3}, {2, 2, 2, 2}, {1, 1}, {2, 2}, 1},
    // What oneDNN 3.7's brgemm gets wrong: one input channel per group, and one strided column or uneven pads.
    {"OneColumn", {1, 5, 4, 8}, {16, 1, 3, 3}, {0, 0, 0, 0}, {1, 2}, {1, 1}, 8},
    {"OneColumnOfOneChannel", {2, 5, 3, 1}, {4, 1, 3, 3}, {0, 1, 0, 0}, {1, 3}, {1, 1}, 1},
    {"OneChannelUnevenPads", {1, 9, 9, 1}, {4, 1, 3, 3}, {1, 0, 1, 1}, {1, 1}, {1, 1}, 1},
    {"MultiplierUnevenPads", {2, 9, 9, 3}, {9, 1, 4, 4}, {0, 1, 0, 0}, {1, 1}, {1, 1}, 3},
    // As many taps as channels: oneDNN 3.7's reorder forgets the sums for zero points.
    {"EightTapsOfEightChannels", {2, 8, 8, 4}, {8, 1, 2, 4}, {1, 1, 0, 1}, {1, 1}, {1, 1}, 4},
    {"EightTapsPointwise", {2, 8, 8, 16}, {8, 8, 1, 1}, {0, 0, 0, 0}, {1, 1}, {1, 1}, 2},
    {"OneAxis", {2, 20, 16}, {8, 16, 5}, {2, 2}, {1}, {1}, 1},
};

OneNode Conv(const Geometry& g) {
  return OneNode("Conv", 13)
      .Set("channels_last", int64_t{1})
      .Set("pads", g.pads)
      .Set("strides", g.strides)
      .Set("dilations", g.dilations)
      .Set("group", g.group);
}

absl::StatusOr<Lowered> LowerHere(const OneNode& node) {
  return Lower(node, onednn::DetectTarget(1));
}

Tensor AsFloats(const Tensor& tensor) {
  Tensor floats(DType::kF32, tensor.shape());
  ConvertTensor(tensor.view(), floats.mutable_view());
  return floats;
}

// The lowered node's answer differs from the reference kernel's by at most `tolerance`.
void ExpectReference(const OneNode& node, const absl::StatusOr<Lowered>& lowered,
                     float tolerance = 0) {
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(lowered->layer.impl, Not(HasSubstr("ref")));
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const Tensor want = AsFloats((*expected)[0]);
  const Tensor got = AsFloats(lowered->outputs[0]);
  ASSERT_EQ(got.shape(), want.shape());
  for (int64_t i = 0; i < want.elements(); ++i) {
    ASSERT_NEAR(got.span<float>()[i], want.span<float>()[i], tolerance)
        << "element " << i << " of " << want.shape().ToString() << ", " << lowered->layer.impl;
  }
}

class ConvLoweringTest : public ::testing::TestWithParam<Geometry> {
 protected:
  // x of `dtype` and `zero`, power-of-two scales.
  OneNode Int8(DType dtype, int32_t zero) const {
    const Geometry& g = GetParam();
    return Conv(g)
        .Input(RandomBytes(dtype, g.x, 1), QuantParams::PerTensor(0x1p-5f, zero))
        .Constant(RandomBytes(DType::kI8, g.w, 2), PowerOfTwoScales(g.w[0], 0))
        .Constant(Bias(g.w[0]));
  }
};

INSTANTIATE_TEST_SUITE_P(Shapes, ConvLoweringTest, ::testing::ValuesIn(kGeometries),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(ConvLoweringTest, ComputesFloats) {
  const Geometry& g = GetParam();
  const OneNode node = Conv(g)
                           .Input(RandomReals(g.x, 1))
                           .Constant(RandomReals(g.w, 2))
                           .Constant(RandomReals({g.w[0]}, 3))
                           .Post({.kind = PostOp::Kind::kRelu});
  const auto lowered = LowerHere(node);
  ExpectReference(node, lowered, 5e-5f);
  EXPECT_EQ(lowered->layer.runs, "f32");
}

TEST(ConvLoweringBias, OfAnotherTypeThanF32IsTheReferences) {
  const Geometry& g = kGeometries[0];
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    const Tensor reals = Bias(g.w[0]);
    Tensor bias(dtype, reals.shape());
    ConvertTensor(reals.view(), bias.mutable_view());
    const OneNode node =
        Conv(g).Input(RandomReals(g.x, 1)).Constant(RandomReals(g.w, 2)).Constant(std::move(bias));
    const absl::Status status = LowerHere(node).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  }
}

TEST(DepthwiseLoweringTest, RunsOnItsOwnKernelWithinTheBoundsOfItsActivation) {
  const Geometry g = {"", {1, 9, 9, 32}, {32, 1, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 32};
  const PostOp kActivations[] = {{.kind = PostOp::Kind::kRelu},
                                 {.kind = PostOp::Kind::kClip, .alpha = -3, .beta = 20}};
  for (const PostOp& activation : kActivations) {
    const OneNode node =
        Conv(g)
            .Input(RandomBytes(DType::kU8, g.x, 1), QuantParams::PerTensor(0x1p-5f, 7))
            .Constant(RandomBytes(DType::kI8, g.w, 2), PowerOfTwoScales(g.w[0], 0))
            .Constant(Bias(g.w[0]))
            .Post(activation)
            .Declare(DType::kI8, {}, QuantParams::PerTensor(0x1p-1f, -20));
    const auto lowered = LowerHere(node);
    ExpectReference(node, lowered);
    EXPECT_THAT(lowered->layer.impl, HasSubstr("octet:depthwise"));
    EXPECT_EQ(lowered->layer.runs, "int8");
  }
}

TEST(DepthwiseLoweringTest, OfTwoActivationsTheLaterOneHasTheLastWord) {
  const Geometry g = {"", {1, 9, 9, 32}, {32, 1, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 32};
  constexpr PostOp::Kind kClip = PostOp::Kind::kClip;
  const std::pair<PostOp, PostOp> kActivations[] = {
      {{.kind = PostOp::Kind::kRelu}, {.kind = kClip, .alpha = -6, .beta = -1}},
      {{.kind = kClip, .alpha = 5, .beta = 10}, {.kind = kClip, .alpha = 0, .beta = 3}},
      {{.kind = kClip, .alpha = -8, .beta = -5}, {.kind = PostOp::Kind::kRelu}},
      {{.kind = kClip, .alpha = -8, .beta = 5}, {.kind = kClip, .alpha = -2, .beta = 9}}};
  for (const auto& [first, second] : kActivations) {
    const OneNode node =
        Conv(g)
            .Input(RandomBytes(DType::kU8, g.x, 1), QuantParams::PerTensor(0x1p-5f, 7))
            .Constant(RandomBytes(DType::kI8, g.w, 2), PowerOfTwoScales(g.w[0], 0))
            .Constant(Bias(g.w[0]))
            .Post(first)
            .Post(second)
            .Declare(DType::kI8, {}, QuantParams::PerTensor(0x1p-1f, -20));
    const auto lowered = LowerHere(node);
    ExpectReference(node, lowered);
    EXPECT_THAT(lowered->layer.impl, HasSubstr("octet:depthwise"));
  }
}

TEST(DepthwiseLoweringTest, SumsOfManyLargeTapsAreExact) {
  // 25 x 255 x 127 in every result: no 16-bit sum holds a pair of these products.
  const Geometry g = {"", {1, 5, 9, 16}, {16, 1, 5, 5}, {0, 0, 0, 0}, {1, 1}, {1, 1}, 16};
  Tensor x(DType::kU8, g.x);
  std::ranges::fill(x.mutable_span<uint8_t>(), uint8_t{255});
  Tensor w(DType::kI8, g.w);
  std::ranges::fill(w.mutable_span<int8_t>(), int8_t{127});
  const OneNode node = Conv(g)
                           .Input(x, QuantParams::PerTensor(1, 0))
                           .Constant(w, QuantParams::PerTensor(1, 0))
                           .Declare(DType::kU8, {}, QuantParams::PerTensor(0x1p12f, 0));
  ExpectReference(node, LowerHere(node));
}

TEST_P(ConvLoweringTest, IsBitExactOnIntegers) {
  // Even zero points of the result: oneDNN rounds halves behind adding it, ONNX before.
  struct Types {
    DType x, y;
    int32_t x_zero, y_zero;
  };
  const Types kTypes[] = {{DType::kU8, DType::kU8, 0, 0},
                          {DType::kU8, DType::kU8, 119, 130},
                          {DType::kU8, DType::kI8, 3, -6},
                          {DType::kI8, DType::kI8, 0, 0},
                          {DType::kI8, DType::kU8, -17, 76}};
  for (const Types& types : kTypes) {
    SCOPED_TRACE(Format("{} zero {} -> {} zero {}", DTypeName(types.x), types.x_zero,
                        DTypeName(types.y), types.y_zero));
    const OneNode node = Int8(types.x, types.x_zero)
                             .Declare(types.y, {}, QuantParams::PerTensor(0x1p-1f, types.y_zero));
    const auto lowered = LowerHere(node);
    ExpectReference(node, lowered);
    EXPECT_EQ(lowered->layer.runs, "int8");
    EXPECT_GT(lowered->layer.macs, 0);
  }
}

TEST_P(ConvLoweringTest, IsBitExactInTwoPartsWhereSumsOf16BitsCouldSaturate) {
  for (const auto& [x, zero] : {std::pair{DType::kU8, 8}, std::pair{DType::kI8, -9}}) {
    const OneNode node = Int8(x, zero).Declare(DType::kU8, {}, QuantParams::PerTensor(0x1p-1f, 4));
    const auto lowered = Lower(node, {.isa = "test", .int8_exact = false, .threads = 1});
    ExpectReference(node, lowered);
    EXPECT_EQ(lowered->layer.runs, "int8");
  }
}

TEST_P(ConvLoweringTest, AddsAResidualThatIsStoredIn8Bits) {
  const Geometry& g = GetParam();
  struct Residual {
    DType dtype;
    float scale;
    int32_t zero;
  };
  constexpr float kResult = 0x1p-2f;
  for (const Residual& residual :
       {Residual{DType::kU8, kResult, 0}, Residual{DType::kU8, 0x1p-3f, 9},
        Residual{DType::kI8, 0x1p-1f, -4}}) {
    OneNode node = Int8(DType::kU8, 0);
    const std::string inferred = node.InferredShape();
    const auto shape = node.Infer();
    ASSERT_TRUE(shape.ok());
    const Shape y = *shape->value(shape->outputs[0]).shape;
    node.Input(RandomBytes(residual.dtype, y, 5),
               QuantParams::PerTensor(residual.scale, residual.zero))
        .Post({.kind = PostOp::Kind::kClip, .alpha = -50, .beta = 20})
        .Post({.kind = PostOp::Kind::kAdd})
        .Post({.kind = PostOp::Kind::kClip, .alpha = 0, .beta = 40})
        .Declare(DType::kU8, {}, QuantParams::PerTensor(kResult, 2));
    SCOPED_TRACE(
        Format("{} {} of {} {}", g.name, DTypeName(residual.dtype), residual.scale, inferred));
    ExpectReference(node, LowerHere(node));
  }
}

TEST_P(ConvLoweringTest, KeepsRealsWhereTheModelLeavesThemUnquantized) {
  const OneNode node = Int8(DType::kU8, 7).Declare(DType::kF32, {});
  ExpectReference(node, LowerHere(node));
}

TEST_P(ConvLoweringTest, QuantizesItsInputWhenItRuns) {
  const Geometry& g = GetParam();
  const OneNode node = Conv(g)
                           .Input(RandomReals(g.x, 1))
                           .Constant(RandomBytes(DType::kI8, g.w, 2), PowerOfTwoScales(g.w[0], 0))
                           .Constant(Bias(g.w[0]))
                           .Set("dynamic_quant", int64_t{1})
                           .Declare(DType::kF32, {})
                           .Post({.kind = PostOp::Kind::kRelu});
  const auto lowered = LowerHere(node);
  ExpectReference(node, lowered, 1e-4f);
  EXPECT_EQ(lowered->layer.runs, "int8");
}

TEST_P(ConvLoweringTest, RunsOnBf16KernelsWhereTheCpuHasThem) {
  const Target target = onednn::DetectTarget(1);
  if (!target.bf16) GTEST_SKIP() << "skipped: this CPU has no bf16 arithmetic";
  const Geometry& g = GetParam();
  const auto narrow = [](const Tensor& wide) {
    Tensor tensor(DType::kBF16, wide.shape());
    ConvertTensor(wide.view(), tensor.mutable_view());
    return tensor;
  };
  const OneNode node = Conv(g)
                           .Input(narrow(RandomReals(g.x, 1)))
                           .Constant(narrow(RandomReals(g.w, 2)))
                           .Constant(RandomReals({g.w[0]}, 3))
                           .Declare(DType::kBF16, {});
  const auto lowered = LowerHere(node);
  ExpectReference(node, lowered, 0.07f);  // One unit in the last place of 8.
  EXPECT_EQ(lowered->layer.runs, "bf16");
  EXPECT_THAT(lowered->layer.impl, AnyOf(HasSubstr("bf16"), HasSubstr("octet:depthwise")));
}

TEST_P(ConvLoweringTest, TakesWeightsThatAreComputed) {
  const Geometry& g = GetParam();
  for (const bool bias : {false, true}) {
    OneNode node = Conv(g).Input(RandomReals(g.x, 1)).Input(RandomReals(g.w, 2));
    if (bias) node.Input(RandomReals({g.w[0]}, 3));
    const auto lowered = LowerHere(node.Post({.kind = PostOp::Kind::kRelu}));
    ExpectReference(node, lowered, 5e-5f);
    EXPECT_EQ(lowered->layer.runs, "f32");
  }
}

TEST(ConvLoweringTypesTest, LeavesComputedWeightsOfIntegersToTheReference) {
  const Geometry& g = kGeometries[0];
  const auto lowered =
      LowerHere(Conv(g)
                    .Input(RandomBytes(DType::kU8, g.x, 1), QuantParams::PerTensor(1, 0))
                    .Input(RandomBytes(DType::kI8, g.w, 2), QuantParams::PerTensor(1, 0))
                    .Declare(DType::kF32, {}));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
}

TEST(ConvLoweringTypesTest, LeavesAsymmetricWeightsAndMixedTypesToTheReference) {
  const Geometry& g = kGeometries[0];
  QuantParams asymmetric = PowerOfTwoScales(g.w[0], 0);
  asymmetric.zero_points[1] = 4;
  const auto weights =
      LowerHere(Conv(g)
                    .Input(RandomBytes(DType::kU8, g.x, 1), QuantParams::PerTensor(1, 0))
                    .Constant(RandomBytes(DType::kI8, g.w, 2), asymmetric)
                    .Declare(DType::kF32, {}));
  EXPECT_THAT(std::string(Message(weights.status())), HasSubstr("not symmetric"));
  const auto mixed = LowerHere(Conv(g)
                                   .Input(RandomReals(g.x, 1))
                                   .Constant(RandomReals(g.w, 2))
                                   .Declare(DType::kU8, {}, QuantParams::PerTensor(1, 0)));
  EXPECT_EQ(mixed.status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace conv_lowering_test
}  // namespace octet
