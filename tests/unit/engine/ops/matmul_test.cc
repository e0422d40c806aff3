// Matrix products: shapes, the reference kernels by definition, and MatMulInteger on oneDNN.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
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
using testing::RandomReals;
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

TEST(GemmTest, RefusesACThatDoesNotBroadcast) {
  EXPECT_THAT(OneNode("Gemm", 13)
                  .Spec(DType::kF32, Shape{2, 3})
                  .Spec(DType::kF32, Shape{3, 4})
                  .Spec(DType::kF32, Shape{3})
                  .InferredShape(),
              HasSubstr("does not broadcast to [2,4]"));
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
