// Transposed convolutions on oneDNN against the reference kernel: bit for bit where the mathematics is integer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace conv_transpose_lowering_test {

using ::testing::HasSubstr;
using testing::Lower;
using testing::Lowered;
using ::testing::Not;
using testing::OneNode;
using testing::PowerOfTwoScales;
using testing::RandomBytes;
using testing::RandomReals;
using List = std::vector<int64_t>;

struct Geometry {
  const char* name;
  Shape x, w;  // [N, spatial..., C] and [OC, IC / group, spatial...]
  List pads, strides, dilations, output_padding;
  int64_t group = 1;

  // absorb_converts leaves these real: strided and dilated ones, and those with results that no tap reaches.
  bool stays_real() const {
    bool unreached = false;
    for (size_t i = 0; i < strides.size(); ++i)
      unreached = unreached || output_padding[i] > pads[strides.size() + i];
    return unreached || (dilations[0] > 1 && strides[0] > 1);
  }
};
void PrintTo(const Geometry& g, std::ostream* out) { *out << g.name; }

const Geometry kGeometries[] = {
    {"TwiceAsLarge", {2, 7, 6, 64}, {32, 64, 2, 2}, {0, 0, 0, 0}, {2, 2}, {1, 1}, {0, 0}},
    {"OutputPadding", {1, 7, 6, 32}, {16, 32, 3, 3}, {1, 1, 1, 1}, {2, 2}, {1, 1}, {1, 1}},
    {"BeyondEveryTap", {2, 3, 3, 17}, {2, 17, 2, 2}, {0, 0, 0, 0}, {2, 2}, {1, 1}, {1, 1}},
    {"FourTaps", {2, 5, 5, 24}, {40, 24, 4, 4}, {1, 1, 1, 1}, {2, 2}, {1, 1}, {0, 0}},
    {"Dense3x3", {1, 7, 6, 16}, {32, 16, 3, 3}, {1, 1, 1, 1}, {1, 1}, {1, 1}, {0, 0}},
    {"UnevenPads", {1, 7, 6, 16}, {32, 16, 3, 4}, {0, 1, 2, 0}, {2, 3}, {1, 1}, {1, 0}},
    {"Dilated", {1, 9, 9, 16}, {16, 16, 3, 3}, {2, 2, 2, 2}, {1, 1}, {2, 2}, {0, 0}},
    {"DilatedStrided", {1, 5, 6, 16}, {16, 16, 3, 3}, {2, 2, 2, 2}, {2, 2}, {2, 2}, {1, 0}},
    {"OddChannels", {1, 7, 6, 3}, {5, 3, 3, 3}, {0, 1, 2, 1}, {2, 2}, {1, 1}, {0, 0}},
    {"OneResult", {2, 6, 6, 32}, {1, 32, 2, 2}, {0, 0, 0, 0}, {2, 2}, {1, 1}, {0, 0}},
    {"OneSource", {1, 6, 5, 1}, {8, 1, 3, 3}, {0, 1, 0, 0}, {2, 2}, {1, 1}, {0, 0}},
    {"Grouped", {1, 6, 6, 32}, {32, 8, 4, 4}, {1, 1, 1, 1}, {2, 2}, {1, 1}, {0, 0}, 4},
    {"GroupedOdd", {1, 6, 6, 6}, {10, 3, 3, 3}, {1, 0, 1, 1}, {2, 2}, {1, 1}, {1, 1}, 2},
    {"Depthwise", {2, 6, 5, 32}, {32, 1, 4, 4}, {1, 1, 1, 1}, {2, 2}, {1, 1}, {0, 0}, 32},
    {"StrideBeyondKernel", {1, 5, 5, 16}, {16, 16, 2, 2}, {0, 0, 0, 0}, {3, 3}, {1, 1}, {0, 0}},
    {"OneAxis", {2, 20, 16}, {8, 16, 4}, {1, 1}, {2}, {1}, {0}},
    {"ThreeAxes",
     {1, 3, 4, 5, 16},
     {8, 16, 2, 2, 2},
     {0, 0, 0, 0, 0, 0},
     {2, 2, 2},
     {1, 1, 1},
     {0, 0, 0}},
};

OneNode Transposed(const Geometry& g) {
  return OneNode("ConvTranspose", 1, kOctetDomain)
      .Set("channels_last", int64_t{1})
      .Set("pads", g.pads)
      .Set("strides", g.strides)
      .Set("dilations", g.dilations)
      .Set("output_padding", g.output_padding)
      .Set("group", g.group);
}

Tensor As(DType dtype, const Tensor& tensor) {
  Tensor made(dtype, tensor.shape());
  ConvertTensor(tensor.view(), made.mutable_view());
  return made;
}

void ExpectReference(const OneNode& node, const absl::StatusOr<Lowered>& lowered,
                     float tolerance = 0) {
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(lowered->layer.impl, Not(HasSubstr("ref")));
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const Tensor want = As(DType::kF32, (*expected)[0]);
  const Tensor got = As(DType::kF32, lowered->outputs[0]);
  ASSERT_EQ(got.shape(), want.shape());
  for (int64_t i = 0; i < want.elements(); ++i) {
    ASSERT_NEAR(got.span<float>()[i], want.span<float>()[i], tolerance)
        << "element " << i << " of " << want.shape().ToString() << ", " << lowered->layer.impl;
  }
}

Tensor Bias(int64_t channels) {
  Tensor tensor(DType::kF32, Shape{channels});
  for (int64_t i = 0; i < channels; ++i)
    tensor.mutable_span<float>()[i] = 0.25f * static_cast<float>(i % 41 - 20);
  return tensor;
}

class ConvTransposeLoweringTest : public ::testing::TestWithParam<Geometry> {
 protected:
  OneNode Int8(DType dtype, int32_t zero) const {
    const Geometry& g = GetParam();
    return Transposed(g)
        .Input(RandomBytes(dtype, g.x, 1), QuantParams::PerTensor(0x1p-5f, zero))
        .Constant(RandomBytes(DType::kI8, g.w, 2), PowerOfTwoScales(g.w[0], 0))
        .Constant(Bias(g.w[0]));
  }
};

INSTANTIATE_TEST_SUITE_P(Shapes, ConvTransposeLoweringTest, ::testing::ValuesIn(kGeometries),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(ConvTransposeLoweringTest, ComputesFloatsWithPostOps) {
  const Geometry& g = GetParam();
  OneNode node = Transposed(g)
                     .Input(RandomReals(g.x, 1))
                     .Constant(RandomReals(g.w, 2))
                     .Constant(RandomReals({g.w[0]}, 3));
  const auto inferred = node.Infer();
  ASSERT_TRUE(inferred.ok()) << inferred.status();
  node.Post({.kind = PostOp::Kind::kRelu})
      .Input(RandomReals(*inferred->value(inferred->outputs[0]).shape, 4))
      .Post({.kind = PostOp::Kind::kAdd});
  const auto lowered = Lower(node, onednn::DetectTarget(1));
  ExpectReference(node, lowered, 5e-5f);
  EXPECT_EQ(lowered->layer.runs, "f32");
  EXPECT_GT(lowered->layer.macs, 0);
}

TEST_P(ConvTransposeLoweringTest, IsBitExactOnIntegers) {
  if (GetParam().stays_real()) GTEST_SKIP() << "skipped: absorb_converts leaves it real";
  struct Types {
    DType x, y;
    int32_t x_zero, y_zero;
  };
  const Types kTypes[] = {{DType::kU8, DType::kU8, 0, 0},
                          {DType::kU8, DType::kU8, 119, 130},
                          {DType::kI8, DType::kI8, 0, 0},
                          {DType::kI8, DType::kU8, -17, 76}};
  for (const Types& types : kTypes) {
    SCOPED_TRACE(Format("{} zero {} -> {} zero {}", DTypeName(types.x), types.x_zero,
                        DTypeName(types.y), types.y_zero));
    const OneNode node = Int8(types.x, types.x_zero)
                             .Post({.kind = PostOp::Kind::kRelu})
                             .Declare(types.y, {}, QuantParams::PerTensor(0x1p-1f, types.y_zero));
    for (const bool exact : {true, false}) {
      Target target = onednn::DetectTarget(1);
      target.int8_exact = exact && target.int8_exact;
      const auto lowered = Lower(node, target);
      ExpectReference(node, lowered);
      EXPECT_EQ(lowered->layer.runs, "int8");
      RecordProperty("impl", lowered->layer.impl);
    }
  }
}

TEST_P(ConvTransposeLoweringTest, QuantizesItsInputWhenItRuns) {
  if (GetParam().stays_real()) GTEST_SKIP() << "skipped: import_dynamic_quant leaves it real";
  const Geometry& g = GetParam();
  const OneNode node = Transposed(g)
                           .Input(RandomReals(g.x, 1))
                           .Constant(RandomBytes(DType::kI8, g.w, 2), PowerOfTwoScales(g.w[0], 0))
                           .Constant(Bias(g.w[0]))
                           .Set("dynamic_quant", int64_t{1})
                           .Declare(DType::kF32, {})
                           .Post({.kind = PostOp::Kind::kRelu});
  for (const bool exact : {true, false}) {
    Target target = onednn::DetectTarget(1);
    target.int8_exact = exact && target.int8_exact;
    const auto lowered = Lower(node, target);
    ExpectReference(node, lowered, 1e-4f);
    EXPECT_EQ(lowered->layer.runs, "int8");
  }
}

TEST(ConvTransposeLowering, LeavesNoPostOpsToLoopsWithoutVectors) {
  // oneDNN computes it by the gradient of a depthwise convolution, behind which its post-ops are scalar code.
  const Geometry g = {"", {1, 9, 9, 32}, {32, 1, 4, 4}, {1, 1, 1, 1}, {2, 2}, {1, 1}, {0, 0}, 32};
  const OneNode node = Transposed(g)
                           .Input(RandomReals(g.x, 1))
                           .Constant(RandomReals(g.w, 2))
                           .Constant(RandomReals({32}, 3))
                           .Post({.kind = PostOp::Kind::kRelu});
  const auto lowered = Lower(node, onednn::DetectTarget(1));
  ExpectReference(node, lowered, 5e-5f);
  if (!lowered->layer.impl.starts_with("conv:")) GTEST_SKIP() << "skipped: another kernel";
  EXPECT_THAT(lowered->layer.impl, HasSubstr(" + binary"));
}

TEST_P(ConvTransposeLoweringTest, RunsOnBf16KernelsWhereTheCpuHasThem) {
  const Target target = onednn::DetectTarget(1);
  if (!target.bf16) GTEST_SKIP() << "skipped: this CPU has no bf16 arithmetic";
  const Geometry& g = GetParam();
  const OneNode node = Transposed(g)
                           .Input(As(DType::kBF16, RandomReals(g.x, 1)))
                           .Constant(As(DType::kBF16, RandomReals(g.w, 2)))
                           .Constant(RandomReals({g.w[0]}, 3))
                           .Declare(DType::kBF16, {});
  const auto lowered = Lower(node, target);
  ExpectReference(node, lowered, 0.07f);
  EXPECT_EQ(lowered->layer.runs, "bf16");
}

}  // namespace conv_transpose_lowering_test
}  // namespace octet
