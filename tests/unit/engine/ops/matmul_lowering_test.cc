// octet:MatMul on oneDNN against the reference kernel: bit for bit where the mathematics is integer.
#include <algorithm>
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace matmul_lowering_test {

using testing::Elements;
using ::testing::HasSubstr;
using testing::Lower;
using testing::Lowered;
using ::testing::Not;
using testing::OneNode;
using testing::PowerOfTwoScales;
using testing::RandomBytes;
using testing::RandomReals;

OneNode MatMul(int64_t trans_b = 0) {
  return OneNode("MatMul", 1, kOctetDomain).Set("trans_b", trans_b);
}

absl::StatusOr<Lowered> LowerHere(const OneNode& node) {
  return Lower(node, onednn::DetectTarget(1));
}

Tensor AsFloats(const Tensor& tensor) {
  Tensor floats(DType::kF32, tensor.shape());
  ConvertTensor(tensor.view(), floats.mutable_view());
  return floats;
}

Tensor AsBFloat16(const Tensor& tensor) {
  Tensor narrow(DType::kBF16, tensor.shape());
  ConvertTensor(tensor.view(), narrow.mutable_view());
  return narrow;
}

// The lowered node answers as the reference kernel does: |got - want| <= tolerance * (1 + |want|).
void ExpectReference(const OneNode& node, float tolerance, std::string_view runs) {
  const auto lowered = LowerHere(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.runs, runs);
  EXPECT_THAT(lowered->layer.impl, Not(HasSubstr("ref")));
  EXPECT_GT(lowered->layer.macs, 0);
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const Tensor want = AsFloats((*expected)[0]);
  const Tensor got = AsFloats(lowered->outputs[0]);
  ASSERT_EQ(got.shape(), want.shape());
  for (int64_t i = 0; i < want.elements(); ++i) {
    const float w = want.span<float>()[i];
    ASSERT_NEAR(got.span<float>()[i], w, tolerance * (1 + std::abs(w)))
        << "element " << i << " of " << want.shape().ToString() << ", " << lowered->layer.impl;
  }
}

// Panels of every width, columns and rows that fill none of them, activations behind the bias.
TEST(GemvLoweringTest, MultipliesOneRow) {
  for (const int64_t n : {1, 8, 17, 48, 64, 100, 130}) {
    for (const int64_t k : {1, 3, 16, 37, 300}) {
      for (const bool bias : {false, true}) {
        OneNode node =
            MatMul().Input(RandomReals({1, k}, 1, -2, 2)).Constant(RandomReals({k, n}, 2, -1, 1));
        if (bias) node.Constant(RandomReals({n}, 3, -1, 1)).Post({PostOp::Kind::kRelu});
        ExpectReference(node, 1e-5F, "f32");
      }
    }
  }
}

// Its products are exact in F32, and only what is stored rounds; K odd and even.
TEST(GemvLoweringTest, MultipliesOneRowOfBFloat16) {
  if (!onednn::DetectTarget(1).bf16) GTEST_SKIP() << "this CPU has no bf16 arithmetic";
  for (const int64_t n : {1, 17, 48, 64, 130}) {
    for (const int64_t k : {1, 2, 37, 300}) {
      for (const DType y : {DType::kF32, DType::kBF16}) {
        OneNode node = MatMul()
                           .Input(AsBFloat16(RandomReals({1, k}, 1, -2, 2)))
                           .Constant(AsBFloat16(RandomReals({k, n}, 2, -1, 1)))
                           .Declare(y, {});
        if (k > 2) node.Constant(RandomReals({n}, 3, -1, 1)).Post({PostOp::Kind::kRelu});
        ExpectReference(node, y == DType::kF32 ? 1e-5F : 0x1p-8F, "bf16");
        const auto lowered = LowerHere(node);
        ASSERT_TRUE(lowered.ok()) << lowered.status();
        EXPECT_THAT(lowered->layer.impl, HasSubstr("octet:gemv"));
      }
    }
  }
}

// Bounds from activations, both signs of both sides, weights per column, rows that fill no group of four: bit for bit.
TEST(GemvLoweringTest, MultipliesOneRowOfBytes) {
  const auto row = [](DType x, DType y, int64_t k, int64_t n) {
    Tensor bias = RandomReals({n}, 4, -1, 1);
    for (float& b : bias.mutable_span<float>()) b = std::round(b * 0x1p12F) * 0x1p-12F;
    OneNode node = MatMul()
                       .Input(RandomBytes(x, {1, k}, 1), QuantParams::PerTensor(0x1p-5F, 7))
                       .Constant(RandomBytes(DType::kI8, {k, n}, 2), PowerOfTwoScales(n, 1))
                       .Constant(std::move(bias));
    if (y == DType::kF32) {
      node.Declare(y, {});
    } else {
      node.Declare(y, {}, QuantParams::PerTensor(0x1p-2F, y == DType::kU8 ? 101 : -5));
    }
    if (k > 6) node.Post({.kind = PostOp::Kind::kRelu});
    return node;
  };
  for (const DType x : {DType::kU8, DType::kI8}) {
    if (x == DType::kI8 && !onednn::DetectTarget(1).int8_exact) continue;
    for (const DType y : {DType::kU8, DType::kI8, DType::kF32}) {
      for (const int64_t n : {1, 17, 64, 130}) {
        for (const int64_t k : {1, 6, 64, 301}) ExpectReference(row(x, y, k, n), 0, "int8");
      }
    }
  }
}

// A range of exactly 255 steps: scale and zero point are exact, so the products are; and ranges that are not, on both sides of zero.
TEST(GemvLoweringTest, MultipliesOneRowThatIsQuantizedWhenItRuns) {
  for (const int64_t n : {1, 17, 64, 130}) {
    for (const int64_t k : {6, 64, 301}) {
      const auto row = [&](const Tensor& x) {
        Tensor bias = RandomReals({n}, 4, -1, 1);
        for (float& b : bias.mutable_span<float>()) b = std::round(b * 0x1p12F) * 0x1p-12F;
        OneNode node = MatMul()
                           .Set("dynamic_quant", int64_t{1})
                           .Input(x)
                           .Constant(RandomBytes(DType::kI8, {k, n}, 2), PowerOfTwoScales(n, 1))
                           .Constant(std::move(bias));
        if (k > 6) node.Post({.kind = PostOp::Kind::kRelu});
        return node;
      };
      Tensor bytes = RandomBytes(DType::kU8, {1, k}, 1);
      bytes.mutable_span<uint8_t>()[0] = 0;
      bytes.mutable_span<uint8_t>()[static_cast<size_t>(k) - 1] = 255;
      Tensor reals(DType::kF32, {1, k});
      DequantizeTensor(bytes.view(), QuantParams::PerTensor(0x1p-4F, 37), reals.mutable_view());
      ExpectReference(row(reals), 1e-6F, "int8");
      ExpectReference(row(RandomReals({1, k}, 3, -3, 5)), 2e-4F, "int8");
      ExpectReference(row(RandomReals({1, k}, 3, 2, 5)), 2e-4F, "int8");
    }
  }
}

// One for all columns, with one row too, which the kernel of one row leaves to the others.
TEST(MatMulLoweringTest, TakesAZeroPointOfTheWeights) {
  if (!onednn::DetectTarget(1).int8_exact) GTEST_SKIP() << "split before";
  for (const int64_t rows : {1, 5}) {
    for (const int32_t zero_point : {-128, -28, 127}) {
      for (const DType y : {DType::kU8, DType::kF32}) {
        OneNode node =
            MatMul()
                .Input(RandomBytes(DType::kU8, {rows, 48}, 1), QuantParams::PerTensor(0x1p-5F, 7))
                .Constant(RandomBytes(DType::kI8, {48, 20}, 2),
                          QuantParams::PerTensor(0x1p-6F, zero_point));
        if (y == DType::kF32) {
          node.Declare(y, {});
        } else {
          node.Declare(y, {}, QuantParams::PerTensor(0x1p-2F, 101));
        }
        ExpectReference(node, 0, "int8");
      }
      ExpectReference(MatMul()
                          .Set("dynamic_quant", int64_t{1})
                          .Input(RandomReals({rows, 48}, 1, -2, 2))
                          .Constant(RandomBytes(DType::kI8, {48, 20}, 2),
                                    QuantParams::PerTensor(0x1p-6F, zero_point)),
                      1e-5F, "int8");
    }
  }
}

TEST(GemvLoweringTest, IsUsedForOneRowAlone) {
  const auto impl = [](int64_t rows) {
    const auto lowered = LowerHere(MatMul()
                                       .Input(RandomReals({rows, 128}, 1, -2, 2))
                                       .Constant(RandomReals({128, 64}, 2, -1, 1)));
    return lowered.ok() ? lowered->layer.impl : lowered.status().ToString();
  };
  const auto dynamic_impl = [](int64_t rows) {
    const auto lowered =
        LowerHere(MatMul()
                      .Set("dynamic_quant", int64_t{1})
                      .Input(RandomReals({rows, 128}, 1, -2, 2))
                      .Constant(RandomBytes(DType::kI8, {128, 64}, 2), PowerOfTwoScales(64, 1)));
    return lowered.ok() ? lowered->layer.impl : lowered.status().ToString();
  };
  EXPECT_THAT(impl(2), Not(HasSubstr("gemv")));
  EXPECT_THAT(dynamic_impl(2), Not(HasSubstr("gemv")));
  // Where oneDNN keeps weights in panels: from AVX2 on.
  if (onednn::DetectTarget(1).isa.starts_with("avx512")) {
    EXPECT_THAT(impl(1), HasSubstr("octet:gemv"));
    if (onednn::DetectTarget(1).int8_exact) {
      EXPECT_THAT(dynamic_impl(1), HasSubstr("octet:gemv"));
    }
  }
}

struct Case {
  const char* name;
  Shape a, b;
  int64_t trans_b = 0;

  int64_t n() const { return b[b.rank() - (trans_b != 0 ? 2 : 1)]; }
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
std::string NameOf(const ::testing::TestParamInfo<Case>& test) { return test.param.name; }

const Case kMatrices[] = {
    {"Square", {16, 32}, {32, 48}},
    {"Transposed", {16, 32}, {48, 32}, 1},
    {"OneRow", {1, 640}, {640, 128}},
    {"OddExtents", {7, 13}, {13, 5}},
    {"OneColumn", {9, 64}, {64, 1}},
    {"OneInner", {4, 1}, {1, 8}},
    {"StackedRows", {2, 3, 17, 24}, {24, 40}},
    {"StackedRowsTransposed", {3, 5, 24}, {10, 24}, 1},
};
const Case kStacks[] = {
    {"Batched", {4, 9, 16}, {4, 16, 11}},
    {"BatchedTransposed", {4, 9, 16}, {4, 11, 16}, 1},
    {"BroadcastA", {1, 9, 16}, {4, 16, 11}},
    {"BroadcastB", {2, 3, 9, 16}, {3, 16, 11}},
    {"BroadcastBoth", {2, 1, 9, 16}, {1, 3, 16, 11}},
    {"Matrices", {99, 64}, {99, 64}, 1},
};

class MatMulLoweringTest : public ::testing::TestWithParam<Case> {
 protected:
  const Case& c() const { return GetParam(); }
  OneNode Product() const { return MatMul(c().trans_b); }
  // The axis of B that output channels lie on.
  int axis() const { return c().trans_b != 0 ? 0 : 1; }
  OneNode Int8(DType dtype, int32_t zero_point) const {
    return Product()
        .Input(RandomBytes(dtype, c().a, 1), QuantParams::PerTensor(0x1p-5f, zero_point))
        .Constant(RandomBytes(DType::kI8, c().b, 2), PowerOfTwoScales(c().n(), axis()));
  }
  OneNode Dynamic(const Tensor& a) const {
    return Product()
        .Set("dynamic_quant", int64_t{1})
        .Input(a)
        .Constant(RandomBytes(DType::kI8, c().b, 2), PowerOfTwoScales(c().n(), axis()));
  }
};

class ConstantMatMulTest : public MatMulLoweringTest {};
INSTANTIATE_TEST_SUITE_P(Shapes, ConstantMatMulTest, ::testing::ValuesIn(kMatrices), NameOf);

TEST_P(ConstantMatMulTest, ComputesFloats) {
  ExpectReference(Product()
                      .Input(RandomReals(c().a, 1))
                      .Constant(RandomReals(c().b, 2))
                      .Constant(RandomReals({c().n()}, 3))
                      .Post({.kind = PostOp::Kind::kRelu}),
                  1e-5f, "f32");
}

TEST_P(ConstantMatMulTest, ComputesBFloat16) {
  if (!onednn::DetectTarget(1).bf16) GTEST_SKIP() << "this CPU has no bf16 arithmetic";
  const OneNode node = Product()
                           .Input(AsBFloat16(RandomReals(c().a, 1)))
                           .Constant(AsBFloat16(RandomReals(c().b, 2)))
                           .Constant(RandomReals({c().n()}, 3))
                           .Declare(DType::kBF16, {});
  ExpectReference(node, 0x1p-8f, "bf16");
  const auto lowered = LowerHere(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const bool row = c().a.rank() == 2 && c().a[0] == 1;
  EXPECT_THAT(lowered->layer.impl, HasSubstr(row ? "octet:gemv" : "bf16"));
}

TEST_P(ConstantMatMulTest, ComputesUnsignedIntegersExactly) {
  for (const int32_t zero_point : {0, 3, 128}) {
    SCOPED_TRACE(zero_point);
    ExpectReference(Int8(DType::kU8, zero_point), 0, "int8");
  }
}

TEST_P(ConstantMatMulTest, ComputesSignedIntegersExactly) {
  if (!onednn::DetectTarget(1).int8_exact) GTEST_SKIP() << "this CPU has no VNNI";
  for (const int32_t zero_point : {0, -5}) {
    SCOPED_TRACE(zero_point);
    ExpectReference(Int8(DType::kI8, zero_point), 0, "int8");
  }
}

TEST_P(ConstantMatMulTest, RequantizesExactly) {
  // Halves are rounded to even before an odd zero point is added.
  for (const DType dtype : {DType::kU8, DType::kI8}) {
    const QuantParams y = QuantParams::PerTensor(0x1p-2f, dtype == DType::kU8 ? 101 : -5);
    ExpectReference(Int8(DType::kU8, 7).Declare(dtype, {}, y), 0, "int8");
  }
}

TEST_P(ConstantMatMulTest, QuantizesAtRunTime) {
  // A range of exactly 255 steps: scale and zero point are exact, so the product is.
  Tensor a = RandomBytes(DType::kU8, c().a, 1);
  a.mutable_span<uint8_t>()[0] = 0;
  a.mutable_span<uint8_t>()[a.bytes() - 1] = 255;
  Tensor reals(DType::kF32, c().a);
  DequantizeTensor(a.view(), QuantParams::PerTensor(0x1p-4f, 37), reals.mutable_view());
  if (a.elements() > 4) {
    ExpectReference(Dynamic(reals), 0, "int8");
  }
  ExpectReference(Dynamic(RandomReals(c().a, 4, -3, 5)), 2e-4f, "int8");
  ExpectReference(Dynamic(RandomReals(c().a, 4, 2, 5)), 2e-4f, "int8");
}

class ComputedMatMulTest : public MatMulLoweringTest {};
INSTANTIATE_TEST_SUITE_P(Shapes, ComputedMatMulTest, ::testing::ValuesIn(kStacks), NameOf);

TEST_P(ComputedMatMulTest, ComputesFloats) {
  ExpectReference(Product().Input(RandomReals(c().a, 1)).Input(RandomReals(c().b, 2)), 1e-5f,
                  "f32");
}

TEST_P(ComputedMatMulTest, TakesConstantStacks) {
  ExpectReference(Product().Input(RandomReals(c().a, 1)).Constant(RandomReals(c().b, 2)), 1e-5f,
                  "f32");
}

TEST_P(ComputedMatMulTest, ComputesBFloat16) {
  if (!onednn::DetectTarget(1).bf16) GTEST_SKIP() << "this CPU has no bf16 arithmetic";
  ExpectReference(
      Product().Input(AsBFloat16(RandomReals(c().a, 1))).Input(AsBFloat16(RandomReals(c().b, 2))),
      1e-5f, "bf16");
}

TEST_P(ComputedMatMulTest, MultipliesQuantizedActivationsExactly) {
  if (!onednn::DetectTarget(1).int8_exact) GTEST_SKIP() << "this CPU has no VNNI";
  for (const DType right : {DType::kI8, DType::kU8}) {
    SCOPED_TRACE(DTypeName(right));
    ExpectReference(
        Product()
            .Input(RandomBytes(DType::kU8, c().a, 1), QuantParams::PerTensor(0x1p-5f, 9))
            .Input(RandomBytes(right, c().b, 2), QuantParams::PerTensor(0x1p-6f, 21)),
        0, "int8");
  }
}

struct Operand {
  const char* name;
  Shape shape;
};
void PrintTo(const Operand& o, std::ostream* out) { *out << o.name; }

class PostOpOperandTest : public ::testing::TestWithParam<Operand> {};
INSTANTIATE_TEST_SUITE_P(Shapes, PostOpOperandTest,
                         ::testing::Values(Operand{"Full", {2, 3, 5, 8}}, Operand{"Scalar", {}},
                                           Operand{"PerColumn", {8}},
                                           Operand{"OverOneStack", {3, 5, 8}},
                                           Operand{"PerStack", {2, 1, 1, 1}}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(PostOpOperandTest, BroadcastsOverConstantProducts) {
  for (const PostOp::Kind kind : {PostOp::Kind::kAdd, PostOp::Kind::kMul}) {
    ExpectReference(MatMul()
                        .Input(RandomReals({2, 3, 5, 16}, 1))
                        .Constant(RandomReals({16, 8}, 2))
                        .Absent()
                        .Input(RandomReals(GetParam().shape, 3))
                        .Post({.kind = kind})
                        .Post({.kind = PostOp::Kind::kTanh}),
                    1e-5f, "f32");
  }
}

TEST_P(PostOpOperandTest, BroadcastsOverComputedProducts) {
  ExpectReference(MatMul()
                      .Input(RandomReals({2, 3, 5, 16}, 1))
                      .Input(RandomReals({2, 3, 16, 8}, 2))
                      .Absent()
                      .Input(RandomReals(GetParam().shape, 3))
                      .Post({.kind = PostOp::Kind::kAdd}),
                  1e-5f, "f32");
}

TEST_P(PostOpOperandTest, BroadcastsOverQuantizedProducts) {
  ExpectReference(
      MatMul()
          .Input(RandomBytes(DType::kU8, {2, 3, 5, 16}, 1), QuantParams::PerTensor(0x1p-5f, 9))
          .Constant(RandomBytes(DType::kI8, {16, 8}, 2), PowerOfTwoScales(8, 1))
          .Absent()
          .Input(RandomReals(GetParam().shape, 3))
          .Post({.kind = PostOp::Kind::kAdd}),
      1e-6f, "int8");
}

TEST(MatMulPostOpTest, ComputesEveryActivation) {
  using Kind = PostOp::Kind;
  const PostOp ops[] = {{Kind::kRelu},        {Kind::kLeakyRelu, 0.1f},
                        {Kind::kClip, -1, 2}, {Kind::kSigmoid},
                        {Kind::kHardSwish},   {Kind::kHardSigmoid, 0.2f, 0.5f},
                        {Kind::kSwish, 1.0f}, {Kind::kTanh},
                        {Kind::kElu, 0.7f},   {Kind::kGeluErf},
                        {Kind::kGeluTanh},    {Kind::kSoftplus}};
  for (const PostOp& op : ops) {
    SCOPED_TRACE(PostOpName(op.kind));
    ExpectReference(
        MatMul().Input(RandomReals({5, 16}, 1, -2, 2)).Constant(RandomReals({16, 8}, 2)).Post(op),
        2e-5f, "f32");
  }
}

TEST(MatMulLoweringRefusesTest, WhatOneDnnCannotCompute) {
  const auto vector = LowerHere(MatMul().Input(RandomReals({8}, 1)).Input(RandomReals({8, 3}, 2)));
  EXPECT_EQ(vector.status().code(), absl::StatusCode::kUnimplemented);
  const auto mixed =
      LowerHere(MatMul()
                    .Input(RandomReals({4, 8}, 1))
                    .Constant(RandomBytes(DType::kI8, {8, 3}, 2), PowerOfTwoScales(3, 1)));
  EXPECT_EQ(mixed.status().code(), absl::StatusCode::kUnimplemented);
  const auto per_row = LowerHere(MatMul()
                                     .Input(RandomReals({4, 8}, 1))
                                     .Constant(RandomReals({8, 3}, 2))
                                     .Absent()
                                     .Input(RandomReals({4, 1}, 3))
                                     .Post({.kind = PostOp::Kind::kAdd}));
  EXPECT_EQ(per_row.status().code(), absl::StatusCode::kUnimplemented);
}

// Of more axes than kernels repeat operands along.
TEST(ManyAxesMatMulLoweringTest, TakesOperandsThatRepeat) {
  for (const Shape& operand : {Shape{1, 1, 4, 5, 7}, Shape{4, 5, 7}, Shape{2, 3, 1, 5, 7},
                               Shape{2, 1, 1, 1, 7}, Shape{7}}) {
    SCOPED_TRACE(operand.ToString());
    for (const Shape& a : {Shape{2, 3, 4, 5, 8}, Shape{1, 1, 1, 5, 8}}) {
      for (const PostOp::Kind kind : {PostOp::Kind::kAdd, PostOp::Kind::kMul}) {
        ExpectReference(MatMul()
                            .Input(RandomReals(a, 1))
                            .Input(RandomReals({2, 3, 4, 8, 7}, 2))
                            .Absent()
                            .Input(RandomReals(operand, 3))
                            .Post({.kind = kind}),
                        1e-5F, "f32");
      }
    }
  }
}

TEST(ManyAxesMatMulLoweringTest, MultipliesQuantizedActivationsAndOneMatrix) {
  ExpectReference(
      MatMul(1)
          .Input(RandomBytes(DType::kU8, {2, 1, 3, 5, 16}, 1), QuantParams::PerTensor(0x1p-5F, 7))
          .Constant(RandomBytes(DType::kI8, {9, 16}, 2), PowerOfTwoScales(9, 0))
          .Constant(RandomReals({9}, 4))
          .Input(RandomReals({1, 1, 3, 5, 9}, 3))
          .Post({.kind = PostOp::Kind::kAdd}),
      1e-6F, "int8");
}

TEST(MatMulRoundingTest, TurnsWholeSumsIntoStepsByOneFactorPerColumn) {
  // Scales that are no powers of two: what is rounded in between shows. ONNX Runtime's way is the rule.
  constexpr int64_t kRows = 40, kInner = 70, kColumns = 33;
  constexpr float kScaleA = 0.0137f, kScaleY = 0.31f;
  constexpr int32_t kZeroA = 113, kZeroY = 7;
  const Tensor a = RandomBytes(DType::kU8, {kRows, kInner}, 1);
  const Tensor b = RandomBytes(DType::kI8, {kInner, kColumns}, 2);
  QuantParams b_quant{{}, std::vector<int32_t>(kColumns, 0), 1};
  std::vector<int32_t> bias_counts;
  Tensor bias(DType::kF32, {kColumns});
  for (int64_t c = 0; c < kColumns; ++c) {
    b_quant.scales.push_back(0.002f + 0.0003f * static_cast<float>(c));
    bias_counts.push_back(static_cast<int32_t>(97 * c - 1500));
    bias.mutable_span<float>()[c] =
        static_cast<float>(bias_counts[c]) * (kScaleA * b_quant.scales[c]);
  }
  const auto lowered =
      LowerHere(MatMul()
                    .Input(a, QuantParams::PerTensor(kScaleA, kZeroA))
                    .Constant(b, b_quant)
                    .Constant(bias)
                    .Post({.kind = PostOp::Kind::kRelu})
                    .Declare(DType::kU8, {}, QuantParams::PerTensor(kScaleY, kZeroY)));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const auto got = Elements<uint8_t>(lowered->outputs[0]);
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    const int64_t c = i % kColumns;
    int32_t sum = bias_counts[c];
    for (int64_t k = 0; k < kInner; ++k) {
      sum += (a.span<uint8_t>()[i / kColumns * kInner + k] - kZeroA) *
             b.span<int8_t>()[k * kColumns + c];
    }
    const float factor = kScaleA * b_quant.scales[c] / kScaleY;
    const float steps = std::nearbyint(std::max(0.0f, static_cast<float>(sum) * factor));
    const float want = std::clamp(steps + static_cast<float>(kZeroY), 0.0f, 255.0f);
    ASSERT_EQ(got[i], want) << "sum " << sum << " of column " << c;
  }
}

TEST(MatMulWithoutVnniTest, SplitsWeightsThatCouldSaturate) {
  // On CPUs with VNNI the split products run on its kernels: what is tested is that the parts add up.
  Target target = onednn::DetectTarget(1);
  target.int8_exact = false;
  for (const auto& [a, zero] : {std::pair{DType::kU8, 9}, std::pair{DType::kI8, -7}}) {
    const OneNode node =
        MatMul()
            .Input(RandomBytes(a, {6, 64}, 1), QuantParams::PerTensor(0x1p-5f, zero))
            .Constant(RandomBytes(DType::kI8, {64, 24}, 2), PowerOfTwoScales(24, 1))
            .Constant(RandomReals({24}, 3))
            .Post({.kind = PostOp::Kind::kRelu});
    const auto lowered = Lower(node, target);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_THAT(lowered->layer.impl, HasSubstr("split weights"));
    const auto expected = node.Run();
    ASSERT_TRUE(expected.ok());
    const auto want = Elements<float>((*expected)[0]);
    const auto got = Elements<float>(lowered->outputs[0]);
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5f * (1 + want[i]));
  }
}

}  // namespace matmul_lowering_test
}  // namespace octet
