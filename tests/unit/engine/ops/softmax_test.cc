// Softmax, LogSoftmax and Hardmax: the reference kernel by definition, the fast form by the reference kernel.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace softmax_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using testing::Lower;
using testing::OneNode;
using ::testing::Pointwise;
using testing::RandomBytes;
using testing::RandomReals;
using testing::Reference;

constexpr float kE = 2.71828182845904523536f;

TEST(SoftmaxTest, NormalisesTheLastAxisFromOpset13On) {
  const float a = 1 / (1 + kE), b = kE / (1 + kE);
  EXPECT_THAT(Reference(OneNode("Softmax", 13).Input(Tensor::From<float>({2, 2}, {0, 1, 5, 5}))),
              Pointwise(FloatNear(1e-6f), {a, b, 0.5f, 0.5f}));
}

TEST(SoftmaxTest, NormalisesAnyAxis) {
  const OneNode node = OneNode("Softmax", 13)
                           .Input(Tensor::From<float>({2, 2}, {0, 3, 1, 3}))
                           .Set("axis", int64_t{0});
  const float a = 1 / (1 + kE), b = kE / (1 + kE);
  EXPECT_THAT(Reference(node), Pointwise(FloatNear(1e-6f), {a, 0.5f, b, 0.5f}));
}

TEST(SoftmaxTest, FlattensAtTheAxisBeforeOpset13) {
  // One row of four equal elements, not two rows of two.
  EXPECT_THAT(Reference(OneNode("Softmax", 11).Input(Tensor::From<float>({1, 2, 2}, {7, 7, 7, 7}))),
              ElementsAre(0.25f, 0.25f, 0.25f, 0.25f));
}

TEST(SoftmaxTest, StaysFiniteForLargeInputs) {
  EXPECT_THAT(
      Reference(OneNode("Softmax", 13).Input(Tensor::From<float>({3}, {1e30f, 1e30f, -1e30f}))),
      ElementsAre(0.5f, 0.5f, 0.0f));
  EXPECT_THAT(Reference(OneNode("LogSoftmax", 13).Input(Tensor::From<float>({2}, {1000.0f, 0.0f}))),
              ElementsAre(0.0f, -1000.0f));
}

TEST(HardmaxTest, MarksTheFirstMaximum) {
  EXPECT_THAT(Reference(OneNode("Hardmax", 13).Input(Tensor::From<float>({4}, {1, 3, 3, 2}))),
              ElementsAre(0, 1, 0, 0));
}

TEST(SoftmaxTest, RefusesAnAxisOutsideOfTheRank) {
  EXPECT_THAT(OneNode("Softmax", 13)
                  .Input(Tensor::From<float>({2}, {0, 1}))
                  .Set("axis", int64_t{1})
                  .InferredShape(),
              HasSubstr("axis"));
}

struct Case {
  const char* name;
  Shape shape;
  int64_t axis;
  int version;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class SoftmaxLoweringTest : public ::testing::TestWithParam<Case> {
 protected:
  OneNode Node(std::string op) const {
    return OneNode(std::move(op), GetParam().version).Set("axis", GetParam().axis);
  }
};
INSTANTIATE_TEST_SUITE_P(
    Shapes, SoftmaxLoweringTest,
    ::testing::Values(Case{"Rows", {5, 99}, -1, 13}, Case{"OneElement", {4, 1}, 1, 13},
                      Case{"Long", {2, 1000}, -1, 13}, Case{"Columns", {3, 7, 5}, 1, 13},
                      Case{"OuterColumns", {21, 4, 9}, 0, 13}, Case{"Flattened", {2, 3, 5}, 1, 11},
                      Case{"ManyRows", {4, 99, 99}, -1, 13},
                      Case{"ManyColumns", {8, 10, 33, 17}, 1, 13}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_P(SoftmaxLoweringTest, IsTheReference) {
  for (const std::string op : {"Softmax", "LogSoftmax"}) {
    SCOPED_TRACE(op);
    const OneNode node = Node(op).Input(RandomReals(GetParam().shape, 1, -20, 20));
    const auto lowered = Lower(node);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(lowered->layer.runs, "f32");
    EXPECT_THAT(lowered->layer.impl, HasSubstr("octet:"));
    const auto want = Reference(node);
    const auto got = Elements<float>(lowered->outputs[0]);
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(got[i], want[i], 2e-6f * (1 + std::abs(want[i]))) << "element " << i;
  }
}

TEST_P(SoftmaxLoweringTest, ReadsAndWritesTypedValues) {
  const OneNode node =
      Node("Softmax")
          .Input(RandomBytes(DType::kU8, GetParam().shape, 1), QuantParams::PerTensor(0.03f, 120))
          .Declare(DType::kU8, {}, QuantParams::PerTensor(1.0f / 256, 0));
  const auto reference = node.Run();
  ASSERT_TRUE(reference.ok()) << reference.status();
  const auto want = Elements<uint8_t>((*reference)[0]);
  for (const int threads : {1, 2}) {
    SCOPED_TRACE(threads);
    const auto lowered = Lower(node, {.isa = "test", .threads = threads});
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    const auto got = Elements<uint8_t>(lowered->outputs[0]);
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(got[i], want[i], 1)
          << "an exponential within 1e-6 of a step's border may round to either side";
  }
}

TEST_P(SoftmaxLoweringTest, ReadsAndWritesBFloat16) {
  const Tensor reals = RandomReals(GetParam().shape, 1, -20, 20);
  Tensor narrow(DType::kBF16, reals.shape());
  ConvertTensor(reals.view(), narrow.mutable_view());
  const OneNode node = Node("Softmax").Input(narrow).Declare(DType::kBF16, {});
  const auto lowered = Lower(node);
  const auto reference = node.Run();
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  ASSERT_TRUE(reference.ok()) << reference.status();
  Tensor want(DType::kF32, reals.shape());
  Tensor got(DType::kF32, reals.shape());
  ConvertTensor((*reference)[0].view(), want.mutable_view());
  ConvertTensor(lowered->outputs[0].view(), got.mutable_view());
  for (int64_t i = 0; i < want.elements(); ++i)
    ASSERT_NEAR(got.span<float>()[i], want.span<float>()[i], 0x1p-8f * want.span<float>()[i])
        << "one unit in the last of 8 places, element " << i;
}

TEST(SoftmaxLoweringNaNTest, SpoilsItsOwnRowAlone) {
  const float nan = std::nanf("");
  const auto lowered =
      Lower(OneNode("Softmax", 13).Input(Tensor::From<float>({2, 3}, {1, nan, 2, 4, 4, 4})));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const auto y = Elements<float>(lowered->outputs[0]);
  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1]) && std::isnan(y[2]));
  EXPECT_THAT(std::vector<float>(y.begin() + 3, y.end()),
              Pointwise(FloatNear(1e-6f), {1 / 3.0f, 1 / 3.0f, 1 / 3.0f}));
}

TEST(SoftmaxLoweringNaNTest, SpoilsItsOwnColumnAlone) {
  const float nan = std::nanf("");
  const auto lowered = Lower(OneNode("Softmax", 13)
                                 .Input(Tensor::From<float>({2, 2}, {1, 4, nan, 4}))
                                 .Set("axis", int64_t{0}));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const auto y = Elements<float>(lowered->outputs[0]);
  EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[2]));
  EXPECT_THAT(y[1], 0.5f);
  EXPECT_THAT(y[3], 0.5f);
}

TEST(SoftmaxLoweringSumTest, CountsManySmallTermsBesideALargeOne) {
  constexpr int kOthers = 999;
  for (int step = 0; step < 20; ++step) {
    const float other = -5 - 0.37f * static_cast<float>(step);
    Tensor x(DType::kF32, {1, 1 + kOthers});
    for (float& element : x.mutable_span<float>()) element = other;
    x.mutable_span<float>()[0] = 0;
    const auto lowered = Lower(OneNode("Softmax", 13).Input(x));
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    const double want = 1 / (1 + kOthers * std::exp(static_cast<double>(other)));
    EXPECT_NEAR(Elements<float>(lowered->outputs[0])[0], want, 5e-7 * want) << other;
  }
}

TEST(SoftmaxLoweringMaskTest, MinusInfinityWeighsNothing) {
  const float inf = INFINITY;
  const auto lowered =
      Lower(OneNode("Softmax", 13).Input(Tensor::From<float>({3}, {-inf, 0, -inf})));
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_THAT(Elements<float>(lowered->outputs[0]),
              Pointwise(FloatNear(1e-30f), {0.0f, 1.0f, 0.0f}));
}

}  // namespace softmax_test
}  // namespace octet
