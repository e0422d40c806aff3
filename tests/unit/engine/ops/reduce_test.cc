// Reductions and positions of extremes: the reference kernel by definition, the fast form by the reference kernel.
#include <malloc.h>

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace reduce_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using testing::Iota;
using testing::Lower;
using testing::OneNode;
using ::testing::Pointwise;
using testing::RandomBytes;
using testing::RandomReals;
using testing::Reference;
using List = std::vector<int64_t>;

OneNode Reduce(std::string op, List axes, int64_t keepdims = 1) {
  return OneNode(std::move(op), 11).Set("axes", std::move(axes)).Set("keepdims", keepdims);
}

TEST(ReduceTest, ComputesEveryReduction) {
  const Tensor x = Tensor::From<float>({2, 3}, {1, -2, 3, 4, 5, -6});
  const auto of = [&](std::string op) { return Reference<float>(Reduce(op, {1}).Input(x)); };
  EXPECT_THAT(of("ReduceSum"), ElementsAre(2, 3));
  EXPECT_THAT(of("ReduceMean"), Pointwise(FloatNear(1e-6f), {2 / 3.0f, 1.0f}));
  EXPECT_THAT(of("ReduceMax"), ElementsAre(3, 5));
  EXPECT_THAT(of("ReduceMin"), ElementsAre(-2, -6));
  EXPECT_THAT(of("ReduceProd"), ElementsAre(-6, -120));
  EXPECT_THAT(of("ReduceL1"), ElementsAre(6, 15));
  EXPECT_THAT(of("ReduceSumSquare"), ElementsAre(14, 77));
  EXPECT_THAT(of("ReduceL2"), Pointwise(FloatNear(1e-6f), {std::sqrt(14.0f), std::sqrt(77.0f)}));
  EXPECT_THAT(of("ReduceLogSum"), Pointwise(FloatNear(1e-6f), {std::log(2.0f), std::log(3.0f)}));
  EXPECT_THAT(
      of("ReduceLogSumExp"),
      Pointwise(FloatNear(1e-6f), {std::log(std::exp(1.0f) + std::exp(-2.0f) + std::exp(3.0f)),
                                   std::log(std::exp(4.0f) + std::exp(5.0f) + std::exp(-6.0f))}));
}

TEST(ReduceTest, LogSumExpKeepsANaNWhereverItIs) {
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = Tensor::From<float>(
      {6, 2}, {nan, 1, 1, nan, nan, nan, infinity, nan, nan, infinity, nan, -infinity});
  EXPECT_THAT(Reference<float>(Reduce("ReduceLogSumExp", {1}).Input(x)),
              ::testing::Each(::testing::IsNan()));
  EXPECT_THAT(Reference<float>(Reduce("ReduceLogSumExp", {0})
                                   .Input(Tensor::From<float>(
                                       {2, 3}, {infinity, -infinity, -infinity, 1, -infinity, 1}))),
              ElementsAre(infinity, -infinity, 1));
}

TEST(ReduceTest, KeepsOrDropsTheReducedAxes) {
  const Tensor x = Iota<float>({2, 3, 4});
  EXPECT_EQ(Reduce("ReduceSum", {1}).Input(x).InferredShape(), "[2,1,4]");
  EXPECT_EQ(Reduce("ReduceSum", {1}, 0).Input(x).InferredShape(), "[2,4]");
  EXPECT_EQ(Reduce("ReduceSum", {-1, 0}, 0).Input(x).InferredShape(), "[3]");
  EXPECT_EQ(OneNode("ReduceSum", 11).Input(x).InferredShape(), "[1,1,1]") << "no axes: all of them";
}

TEST(ReduceTest, TakesAxesAsInputInLaterOpsets) {
  const Tensor x = Iota<float>({2, 3});
  EXPECT_THAT(Reference<float>(OneNode("ReduceSum", 13).Input(x).Ints({1})), ElementsAre(3, 12));
  EXPECT_THAT(Reference<float>(OneNode("ReduceMax", 18).Input(x).Ints({0})), ElementsAre(3, 4, 5));
  EXPECT_THAT(
      Reference<float>(
          OneNode("ReduceSum", 13).Input(x).Ints({}).Set("noop_with_empty_axes", int64_t{1})),
      ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(ReduceTest, ComputesIntegersInTheirOwnType) {
  const Tensor x = Tensor::From<int32_t>({2, 2}, {7, -1, 3, 4});
  EXPECT_THAT(Reference<int32_t>(Reduce("ReduceSum", {0}).Input(x)), ElementsAre(10, 3));
  EXPECT_THAT(Reference<int32_t>(Reduce("ReduceMax", {1}).Input(x)), ElementsAre(7, 4));
}

TEST(ReduceTest, KeepsNoListOfItsElements) {
  const auto graph = OneNode("ReduceMax", 13).Spec(DType::kU8, Shape{16, 1 << 20}).Infer();
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Node& node = graph->node(graph->order()[0]);
  const ConstTensorView x{nullptr, {DType::kU8, Shape{16, 1 << 20}}};
  const TensorSpec y{DType::kU8, Shape{1, 1}};
  const auto allocated = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const size_t before = allocated();
  const auto kernel = FindOp(node)->kernel({node, {&x, 1}, {&y, 1}});
  ASSERT_TRUE(kernel.ok()) << kernel.status();
  EXPECT_LT(allocated(), before + (1 << 20));
}

TEST(ReduceTest, ReducesAxesThatLieApart) {
  const Tensor x = Tensor::From<int64_t>({2, 2, 3}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  const auto y = OneNode("ReduceSum", 11).Input(x).Set("axes", std::vector<int64_t>{0, 2}).Run();
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_THAT(Elements<int64_t>((*y)[0]), ElementsAre(30, 48));
}

TEST(ReduceTest, RefusesAnAxisOutsideOfTheRank) {
  EXPECT_THAT(Reduce("ReduceSum", {2}).Input(Iota<float>({2, 3})).InferredShape(),
              HasSubstr("axis outside of [-2, 2)"));
}

TEST(ArgMaxTest, FindsTheFirstOrTheLastExtreme) {
  const Tensor x = Tensor::From<float>({2, 3}, {1, 5, 5, 9, 0, 9});
  EXPECT_THAT(Reference<int64_t>(OneNode("ArgMax", 13).Input(x).Set("axis", int64_t{1})),
              ElementsAre(1, 0));
  EXPECT_THAT(Reference<int64_t>(OneNode("ArgMax", 13)
                                     .Input(x)
                                     .Set("axis", int64_t{-1})
                                     .Set("select_last_index", int64_t{1})),
              ElementsAre(2, 2));
  EXPECT_THAT(Reference<int64_t>(OneNode("ArgMin", 13).Input(x).Set("axis", int64_t{0})),
              ElementsAre(0, 1, 0));
}

struct Case {
  const char* name;
  Shape shape;
  List axes;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class ReduceLoweringTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Shapes, ReduceLoweringTest,
    ::testing::Values(Case{"Rows", {6, 37}, {1}}, Case{"LastAxis", {3, 4, 65}, {-1}},
                      Case{"Columns", {37, 6}, {0}}, Case{"MiddleAxis", {3, 50, 7}, {1}},
                      Case{"TwoAxes", {2, 3, 5, 7}, {2, 3}},
                      Case{"AroundOnes", {4, 1, 5, 1, 7}, {1, 2, 3}},
                      Case{"Everything", {9, 11}, {0, 1}}, Case{"OneElement", {5, 1}, {1}},
                      Case{"NarrowRows", {700, 2}, {1}}, Case{"NarrowLastAxis", {3, 100, 5}, {-1}},
                      Case{"OneNarrowRow", {1, 4}, {1}}),
    [](const auto& test) { return std::string(test.param.name); });

constexpr const char* kLowered[] = {"ReduceSum", "ReduceMean", "ReduceMax",      "ReduceMin",
                                    "ReduceL1",  "ReduceL2",   "ReduceSumSquare"};

TEST_P(ReduceLoweringTest, IsTheReference) {
  for (const std::string op : kLowered) {
    SCOPED_TRACE(op);
    const OneNode node = Reduce(op, GetParam().axes).Input(RandomReals(GetParam().shape, 1, -3, 4));
    const auto lowered = Lower(node);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(lowered->layer.impl, "octet:reduce");
    const auto want = Reference<float>(node);
    const auto got = Elements<float>(lowered->outputs[0]);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(got[i], want[i], 1e-6f * (10 + std::abs(want[i]))) << "element " << i;
  }
}

TEST_P(ReduceLoweringTest, AveragesTypedIntegersExactly) {
  const OneNode node =
      Reduce("ReduceMean", GetParam().axes)
          .Input(RandomBytes(DType::kU8, GetParam().shape, 1), QuantParams::PerTensor(0x1p-4f, 11))
          .Declare(DType::kU8, {}, QuantParams::PerTensor(0x1p-5f, 3));
  const auto lowered = Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.runs, "int8");
  EXPECT_EQ(Elements<uint8_t>(lowered->outputs[0]), Reference<uint8_t>(node));
}

TEST(ReduceLoweringNaNTest, ExtremesKeepIt) {
  const float nan = std::nanf("");
  for (const int64_t axis : {0, 1}) {
    const auto lowered =
        Lower(Reduce("ReduceMax", {axis}).Input(Tensor::From<float>({2, 2}, {nan, 5, 1, 2})));
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_TRUE(std::isnan(Elements<float>(lowered->outputs[0])[0]));
    EXPECT_EQ(Elements<float>(lowered->outputs[0])[1], axis == 0 ? 5 : 2);
  }
}

TEST(ReduceLoweringRefusesTest, AxesThatLieApart) {
  const auto lowered = Lower(Reduce("ReduceSum", {0, 2}).Input(Iota<float>({2, 3, 4})));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace reduce_test
}  // namespace octet
