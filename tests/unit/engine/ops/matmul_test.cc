// Matrix products: shapes, the reference kernels by definition, and MatMulInteger on oneDNN.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace matmul_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using testing::Iota;
using testing::LowerAndRun;
using ::testing::Not;
using testing::OneNode;
using ::testing::Pointwise;
using testing::RandomBytes;
using testing::Reference;

std::string ShapeOf(Shape a, Shape b) {
  return OneNode("MatMul", 13).Spec(DType::kF32, a).Spec(DType::kF32, b).InferredShape();
}

TEST(MatMulTest, BroadcastsStacksAndTakesVectors) {
  EXPECT_EQ(ShapeOf({2, 3}, {3, 4}), "[2,4]");
  EXPECT_EQ(ShapeOf({5, 1, 2, 3}, {7, 3, 4}), "[5,7,2,4]");
  EXPECT_EQ(ShapeOf({3}, {3, 4}), "[4]");
  EXPECT_EQ(ShapeOf({2, 3}, {3}), "[2]");
  EXPECT_EQ(ShapeOf({3}, {3}), "[]");
  EXPECT_EQ(ShapeOf({kUnknownDim, 3}, {3, 4}), "[?,4]");
  EXPECT_THAT(ShapeOf({2, 3}, {4, 5}), HasSubstr("shapes [2,3] and [4,5] do not multiply"));
  EXPECT_THAT(ShapeOf({2, 2, 3}, {3, 3, 4}), HasSubstr("do not multiply"));
}

TEST(MatMulTest, IsTheSumOfProducts) {
  EXPECT_THAT(
      Reference<float>(OneNode("MatMul", 13).Input(Iota<float>({2, 3})).Input(Iota<float>({3, 2}))),
      ElementsAre(10, 13, 28, 40));
  EXPECT_THAT(Reference<float>(
                  OneNode("MatMul", 13).Input(Iota<float>({2, 1, 2})).Input(Iota<float>({2, 2}))),
              ElementsAre(2, 3, 6, 11));
  EXPECT_THAT(Reference<int64_t>(
                  OneNode("MatMul", 13).Input(Iota<int64_t>({2, 2})).Input(Iota<int64_t>({2}))),
              ElementsAre(1, 3));
}

TEST(OctetMatMulTest, AddsItsBiasAndTurnsItsRightHandSide) {
  EXPECT_THAT(Reference<float>(OneNode("MatMul", 1, kOctetDomain)
                                   .Input(Iota<float>({1, 3}))
                                   .Constant(Iota<float>({2, 3}))
                                   .Constant(Tensor::From<float>({2}, {100, 200}))
                                   .Set("trans_b", int64_t{1})),
              ElementsAre(105, 214));
}

TEST(GemmTest, ScalesTurnsAndBroadcasts) {
  const OneNode node = OneNode("Gemm", 13)
                           .Input(Iota<float>({3, 2}))
                           .Input(Iota<float>({2, 3}))
                           .Input(Tensor::From<float>({2, 1}, {10, 20}))
                           .Set("transA", int64_t{1})
                           .Set("transB", int64_t{1})
                           .Set("alpha", 2.0f)
                           .Set("beta", 0.5f);
  // A' = [[0,2,4],[1,3,5]], B' = [[0,3],[1,4],[2,5]]; A'B' = [[10,28],[13,40]].
  EXPECT_THAT(Reference<float>(node), ElementsAre(25, 61, 36, 90));
}

TEST(GemmTest, ScalesInItsOwnType) {
  const auto gemm = [](Tensor a, Tensor b, Tensor c, float alpha, float beta) {
    return OneNode("Gemm", 13)
        .Input(std::move(a))
        .Input(std::move(b))
        .Input(std::move(c))
        .Set("alpha", alpha)
        .Set("beta", beta);
  };
  // None of these has a float.
  EXPECT_THAT(Reference<double>(gemm(Tensor::From<double>({2, 1}, {16777217, 1e40}),
                                     Tensor::Scalar<double>(1).Reshaped({1, 1}),
                                     Tensor::From<double>({2, 1}, {16777217, 1e300}), 0.5F, 0.25F)),
              ElementsAre(8388608.5 + 4194304.25, 5e39 + 2.5e299));
  constexpr int64_t kBig = (int64_t{1} << 60) + 1;
  EXPECT_THAT(Reference<int64_t>(gemm(Tensor::From<int64_t>({1, 1}, {kBig}),
                                      Tensor::From<int64_t>({1, 1}, {1}),
                                      Tensor::From<int64_t>({1}, {kBig}), 2, -3)),
              ElementsAre(-kBig));
  EXPECT_THAT(Reference<int32_t>(gemm(Tensor::From<int32_t>({2, 1}, {16777217, -16777217}),
                                      Tensor::From<int32_t>({1, 1}, {1}),
                                      Tensor::From<int32_t>({1}, {7}), 2, 0.5F)),
              ElementsAre(33554434 + 3, -33554434 + 3));
  EXPECT_THAT(Reference<uint64_t>(gemm(Tensor::From<uint64_t>({1, 1}, {UINT64_MAX}),
                                       Tensor::From<uint64_t>({1, 1}, {1}),
                                       Tensor::From<uint64_t>({1}, {5}), 3, 2)),
              ElementsAre(uint64_t{7}))
      << "wraps around";
  EXPECT_THAT(Reference<int32_t>(gemm(Tensor::From<int32_t>({2, 1}, {1, -1}),
                                      Tensor::From<int32_t>({1, 1}, {1}),
                                      Tensor::From<int32_t>({1}, {0}), 1e30F, 1)),
              ElementsAre(INT32_MAX, INT32_MIN));
}

TEST(MatMulNBitsTest, ReadsScalesAndZeroPointsOfEveryReal) {
  const auto as = [](DType dtype, std::vector<float> reals) {
    Tensor tensor(dtype, Shape{std::ssize(reals)});
    ConvertTensor(Tensor::From<float>(tensor.shape(), std::span<const float>(reals)).view(),
                  tensor.mutable_view());
    return tensor;
  };
  const auto product = [&](DType activations, DType reals, bool zeros) {
    Tensor a(activations, Shape{1, 32});
    ConvertTensor(Iota<float>({1, 32}).view(), a.mutable_view());
    OneNode node = OneNode("MatMulNBits", 1, kMicrosoftDomain)
                       .Input(a)
                       .Constant(RandomBytes(DType::kU8, {2, 2, 8}, 1))
                       .Constant(as(reals, {0.5F, 2, 0.25F, 1}))
                       .Set("K", int64_t{32})
                       .Set("N", int64_t{2})
                       .Set("bits", int64_t{4})
                       .Set("block_size", int64_t{16});
    if (zeros) node.Constant(as(reals, {7.5F, 8, 3, 0}));
    return node;
  };
  for (const bool zeros : {false, true}) {
    const auto want = Reference<float>(product(DType::kF32, DType::kF32, zeros));
    for (const DType reals : {DType::kF16, DType::kBF16}) {
      EXPECT_EQ(Reference<float>(product(DType::kF32, reals, zeros)), want) << DTypeName(reals);
      const auto outputs = product(reals, reals, zeros).Run();
      ASSERT_TRUE(outputs.ok()) << outputs.status();
      EXPECT_EQ(outputs->front().dtype(), reals);
      Tensor wide(DType::kF32, Shape{1, 2});
      ConvertTensor(outputs->front().view(), wide.mutable_view());
      EXPECT_THAT(Elements<float>(wide), Pointwise(FloatNear(8), want)) << "rounded to 8 bits";
    }
    EXPECT_EQ(product(DType::kF32, DType::kF64, zeros).Run().status().code(),
              absl::StatusCode::kUnimplemented);
  }
}

TEST(GemmTest, RefusesACThatDoesNotBroadcast) {
  EXPECT_THAT(OneNode("Gemm", 13)
                  .Spec(DType::kF32, Shape{2, 3})
                  .Spec(DType::kF32, Shape{3, 4})
                  .Spec(DType::kF32, Shape{3})
                  .InferredShape(),
              HasSubstr("does not broadcast to [2,4]"));
}

TEST(GemmTest, RefusesACThatWouldMakeAnOpenProductWider) {
  const auto shape = [](Shape a, Shape c) {
    return OneNode("Gemm", 13)
        .Spec(DType::kF32, std::move(a))
        .Spec(DType::kF32, Shape{3, 1})
        .Spec(DType::kF32, std::move(c))
        .InferredShape();
  };
  EXPECT_THAT(shape({kUnknownDim, 3}, {2}), HasSubstr("does not broadcast to [?,1]"));
  EXPECT_THAT(shape({kUnknownDim, 3}, {5, 2}), HasSubstr("does not broadcast to [?,1]"));
  EXPECT_EQ(shape({kUnknownDim, 3}, {1}), "[?,1]");
  EXPECT_EQ(shape({kUnknownDim, 3}, {5, 1}), "[?,1]");
  EXPECT_EQ(shape({4, 3}, {kUnknownDim, kUnknownDim}), "[4,1]");
}

TEST(MatMulIntegerTest, SubtractsZeroPointsPerTensorRowAndColumn) {
  const Tensor a = Tensor::From<uint8_t>({2, 2}, {1, 2, 3, 4});
  const Tensor b = Tensor::From<int8_t>({2, 2}, {1, -1, 2, 0});
  EXPECT_THAT(Reference<int32_t>(OneNode("MatMulInteger", 10).Input(a).Input(b)),
              ElementsAre(5, -1, 11, -3));
  EXPECT_THAT(Reference<int32_t>(OneNode("MatMulInteger", 10)
                                     .Input(a)
                                     .Input(b)
                                     .Input(Tensor::From<uint8_t>({}, {1}))
                                     .Input(Tensor::From<int8_t>({2}, {0, -1}))),
              ElementsAre(2, 1, 8, 3));
  EXPECT_THAT(
      Reference<int32_t>(
          OneNode("MatMulInteger", 10).Input(a).Input(b).Input(Tensor::From<uint8_t>({2}, {1, 3}))),
      ElementsAre(2, 0, 2, 0));
}

struct IntegerCase {
  const char* name;
  DType a, b;
  bool zero_a, zero_b, zero_a_constant;
};
void PrintTo(const IntegerCase& c, std::ostream* out) { *out << c.name; }

class MatMulIntegerLoweringTest : public ::testing::TestWithParam<IntegerCase> {};
INSTANTIATE_TEST_SUITE_P(
    Types, MatMulIntegerLoweringTest,
    ::testing::Values(IntegerCase{"U8S8", DType::kU8, DType::kI8, false, false, false},
                      IntegerCase{"U8S8ZeroA", DType::kU8, DType::kI8, true, false, true},
                      IntegerCase{"U8S8ComputedZeroA", DType::kU8, DType::kI8, true, false, false},
                      IntegerCase{"S8S8Zeros", DType::kI8, DType::kI8, true, true, false},
                      IntegerCase{"U8U8", DType::kU8, DType::kU8, true, false, true},
                      IntegerCase{"U8U8Zeros", DType::kU8, DType::kU8, true, true, false}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_P(MatMulIntegerLoweringTest, IsExact) {
  if (!onednn::DetectTarget(1).int8_exact) GTEST_SKIP() << "this CPU has no VNNI";
  const IntegerCase& c = GetParam();
  OneNode node("MatMulInteger", 10);
  node.Input(RandomBytes(c.a, {2, 5, 70}, 1)).Constant(RandomBytes(c.b, {70, 33}, 2));
  const Tensor zero_a = RandomBytes(c.a, {}, 3);
  if (c.zero_a && c.zero_a_constant) node.Constant(zero_a);
  if (c.zero_a && !c.zero_a_constant) node.Input(zero_a);
  if (!c.zero_a) node.Absent();
  if (c.zero_b) node.Constant(RandomBytes(c.b, {1}, 4));
  const auto graph = node.Infer();
  ASSERT_TRUE(graph.ok()) << graph.status();
  const auto lowered =
      LowerAndRun(*graph, node.tensors(), Precision::kInt8, onednn::DetectTarget(1));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.runs, "int8");
  EXPECT_THAT(lowered->layer.impl, Not(HasSubstr("ref")));
  EXPECT_EQ(lowered->layer.macs, 2 * 5 * 70 * 33);
  EXPECT_EQ(Elements<int32_t>(lowered->outputs[0]), Reference<int32_t>(node));
}

TEST(MatMulIntegerLoweringRefusesTest, ZeroPointsPerRowAndColumn) {
  const auto lower = [](const OneNode& node) {
    const auto graph = node.Infer();
    EXPECT_TRUE(graph.ok()) << graph.status();
    return LowerAndRun(*graph, node.tensors(), Precision::kInt8, onednn::DetectTarget(1))
        .status()
        .code();
  };
  const Tensor a = RandomBytes(DType::kU8, {2, 4}, 1);
  const Tensor b = RandomBytes(DType::kI8, {4, 3}, 2);
  EXPECT_EQ(lower(OneNode("MatMulInteger", 10)
                      .Input(a)
                      .Constant(b)
                      .Constant(RandomBytes(DType::kU8, {2}, 3))),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(lower(OneNode("MatMulInteger", 10)
                      .Input(a)
                      .Constant(b)
                      .Absent()
                      .Constant(RandomBytes(DType::kI8, {3}, 3))),
            absl::StatusCode::kUnimplemented);
}

}  // namespace matmul_test
}  // namespace octet
