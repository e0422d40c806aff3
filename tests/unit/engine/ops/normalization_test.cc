// Normalizations: the reference kernels by definition, the fast layer normalization by the reference kernel.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace normalization_test {

using testing::Elements;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using testing::Lower;
using testing::OneNode;
using ::testing::Pointwise;
using testing::RandomBytes;
using testing::RandomReals;
using testing::Reference;

TEST(BatchNormalizationTest, UsesTheGivenStatisticsPerChannel) {
  const OneNode node = OneNode("BatchNormalization", 9)
                           .Input(Tensor::From<float>({1, 2, 2}, {1, 2, 3, 4}))
                           .Constant(Tensor::From<float>({2}, {2, 1}))
                           .Constant(Tensor::From<float>({2}, {0, 10}))
                           .Constant(Tensor::From<float>({2}, {1, 3}))
                           .Constant(Tensor::From<float>({2}, {4, 1}))
                           .Set("epsilon", 0.0f);
  EXPECT_THAT(Reference(node), Pointwise(FloatNear(1e-6f), {0.0f, 1.0f, 10.0f, 11.0f}));
}

// Opset 9 has no such attribute any more, and there is no kernel for what it said.
TEST(BatchNormalizationTest, RefusesStatisticsOfEachElementInEveryOpset) {
  for (const int opset : {7, 8, 9, 15}) {
    OneNode node("BatchNormalization", opset);
    node.Spec(DType::kF32, Shape{1, 2, 3});
    for (int i = 0; i < 4; ++i) node.Spec(DType::kF32, Shape{2});
    EXPECT_EQ(OneNode(node).Set("spatial", int64_t{1}).InferredShape(), "[1,2,3]") << opset;
    EXPECT_THAT(node.Set("spatial", int64_t{0}).InferredShape(), HasSubstr("'spatial' = 0"))
        << opset;
  }
}

TEST(BatchNormalizationTest, TakesItsOwnStatisticsInTraining) {
  const OneNode node = OneNode("BatchNormalization", 15)
                           .Input(Tensor::From<float>({2, 1}, {1, 3}))
                           .Constant(Tensor::From<float>({1}, {1}))
                           .Constant(Tensor::From<float>({1}, {10}))
                           .Constant(Tensor::From<float>({1}, {50}))
                           .Constant(Tensor::From<float>({1}, {70}))
                           .Set("epsilon", 0.0f)
                           .Set("training_mode", int64_t{1});
  EXPECT_THAT(Reference(node), Pointwise(FloatNear(1e-6f), {9.0f, 11.0f}));
}

TEST(LayerNormalizationTest, CentresAndScalesTheLastAxis) {
  const OneNode node = OneNode("LayerNormalization", 17)
                           .Input(Tensor::From<float>({2, 2}, {1, 3, 10, 30}))
                           .Constant(Tensor::From<float>({2}, {1, 2}))
                           .Constant(Tensor::From<float>({2}, {0, 5}))
                           .Set("epsilon", 0.0f);
  EXPECT_THAT(Reference(node), Pointwise(FloatNear(1e-6f), {-1.0f, 7.0f, -1.0f, 7.0f}));
}

TEST(LayerNormalizationTest, GivesItsStatistics) {
  const OneNode node = OneNode("LayerNormalization", 17)
                           .Input(Tensor::From<float>({1, 2}, {1, 5}))
                           .Constant(Tensor::From<float>({2}, {1, 1}))
                           .Set("epsilon", 0.0f)
                           .Outputs(3);
  EXPECT_THAT(Reference(node, 1), Pointwise(FloatNear(1e-6f), {3.0f}));
  EXPECT_THAT(Reference(node, 2), Pointwise(FloatNear(1e-6f), {0.5f}));
  EXPECT_EQ(node.InferredShape(1), "[1,1]");
}

TEST(InstanceNormalizationTest, NormalisesEveryPlaneByItself) {
  const OneNode node = OneNode("InstanceNormalization", 6)
                           .Input(Tensor::From<float>({1, 2, 2}, {1, 3, 100, 300}))
                           .Constant(Tensor::From<float>({2}, {1, 2}))
                           .Constant(Tensor::From<float>({2}, {0, 1}))
                           .Set("epsilon", 0.0f);
  EXPECT_THAT(Reference(node), Pointwise(FloatNear(1e-6f), {-1.0f, 1.0f, -1.0f, 3.0f}));
}

TEST(LrnTest, DividesByItsNeighbours) {
  const OneNode node = OneNode("LRN", 13)
                           .Input(Tensor::From<float>({1, 3, 1}, {1, 2, 3}))
                           .Set("size", int64_t{3})
                           .Set("alpha", 3.0f)
                           .Set("beta", 1.0f)
                           .Set("bias", 1.0f);
  EXPECT_THAT(Reference(node), Pointwise(FloatNear(1e-6f), {1 / 6.0f, 2 / 15.0f, 3 / 14.0f}));
}

struct Case {
  const char* name;
  Shape shape;
  int64_t axis;
  bool bias;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class LayerNormLoweringTest : public ::testing::TestWithParam<Case> {
 protected:
  OneNode Node(OneNode node) const {
    const Shape& shape = GetParam().shape;
    const int first =
        static_cast<int>(GetParam().axis < 0 ? GetParam().axis + shape.rank() : GetParam().axis);
    Shape tail;
    for (int i = first; i < shape.rank(); ++i) tail.push_back(shape[i]);
    node.Constant(RandomReals(tail, 2)).Set("axis", GetParam().axis);
    if (GetParam().bias) node.Constant(RandomReals(tail, 3));
    return node;
  }
};
INSTANTIATE_TEST_SUITE_P(Shapes, LayerNormLoweringTest,
                         ::testing::Values(Case{"Rows", {99, 64}, -1, true},
                                           Case{"NoBias", {2, 5, 33}, -1, false},
                                           Case{"TwoAxes", {3, 4, 7}, 1, true},
                                           Case{"EverythingAtOnce", {6, 5}, 0, true},
                                           Case{"OneElement", {4, 1}, -1, true}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(LayerNormLoweringTest, IsTheReference) {
  // The second range has a mean that a variance in one pass would drown in.
  for (const float centre : {0.0f, 1000.0f}) {
    SCOPED_TRACE(centre);
    const OneNode node = Node(OneNode("LayerNormalization", 17)
                                  .Input(RandomReals(GetParam().shape, 1, centre - 2, centre + 2)));
    const auto lowered = Lower(node);
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(lowered->layer.impl, "octet:layer_norm");
    const auto want = Reference(node);
    const auto got = Elements<float>(lowered->outputs[0]);
    const float tolerance = centre == 0 ? 2e-6f : 2e-4f;  // 1000's own spacing is 6e-5.
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(got[i], want[i], tolerance * (1 + std::abs(want[i]))) << "element " << i;
  }
}

TEST_P(LayerNormLoweringTest, ReadsAndWritesTypedValues) {
  const OneNode node = Node(OneNode("LayerNormalization", 17)
                                .Input(RandomBytes(DType::kU8, GetParam().shape, 1),
                                       QuantParams::PerTensor(0.05f, 131)))
                           .Declare(DType::kI8, {}, QuantParams::PerTensor(0.03f, -7));
  const auto lowered = Lower(node);
  const auto reference = node.Run();
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  ASSERT_TRUE(reference.ok()) << reference.status();
  const auto want = Elements<int8_t>((*reference)[0]);
  const auto got = Elements<int8_t>(lowered->outputs[0]);
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(got[i], want[i], 1) << "within 1e-6 of a step's border either side may win";
}

TEST(LayerNormLoweringRefusesTest, StatisticsAsOutputs) {
  const auto lowered = Lower(OneNode("LayerNormalization", 17)
                                 .Input(RandomReals({2, 4}, 1))
                                 .Constant(RandomReals({4}, 2))
                                 .Outputs(3));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
}

TEST(LayerNormLoweringRefusesTest, AScaleThatVariesByRow) {
  const auto lowered = Lower(OneNode("LayerNormalization", 17)
                                 .Input(RandomReals({4, 4}, 1))
                                 .Constant(RandomReals({4, 1}, 2)));
  EXPECT_EQ(lowered.status().code(), absl::StatusCode::kUnimplemented);
}

struct Window {
  const char* name;
  int64_t size;
  float beta;
};
void PrintTo(const Window& window, std::ostream* out) { *out << window.name; }

class LrnLoweringTest : public ::testing::TestWithParam<Window> {
 protected:
  static OneNode Lrn(const OneNode& input) {
    return OneNode(input)
        .Set("channels_last", int64_t{1})
        .Set("size", GetParam().size)
        .Set("alpha", 0.5f)
        .Set("beta", GetParam().beta)
        .Set("bias", 2.0f);
  }
};
INSTANTIATE_TEST_SUITE_P(Windows, LrnLoweringTest,
                         ::testing::Values(Window{"Usual", 5, 0.75f}, Window{"Even", 4, 0.75f},
                                           Window{"OneChannel", 1, 0.75f},
                                           Window{"OtherPower", 3, 0.4f},
                                           Window{"WiderThanTheChannels", 60, 0.75f}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(LrnLoweringTest, IsTheReference) {
  const OneNode node = Lrn(OneNode("LRN", 13).Input(RandomReals({2, 3, 4, 21}, 1)));
  const auto lowered = Lower(node);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  EXPECT_EQ(lowered->layer.impl, "octet:lrn");
  EXPECT_THAT(Elements<float>(lowered->outputs[0]), Pointwise(FloatNear(1e-6f), Reference(node)));
}

TEST(LrnTest, ChannelsMayBeFirstOrLast) {
  const Tensor first = Tensor::From<float>({1, 3, 2}, {1, 2, 3, 4, 5, 6});
  const Tensor last = Tensor::From<float>({1, 2, 3}, {1, 3, 5, 2, 4, 6});
  const auto lrn = [](const Tensor& x, bool channels_last) {
    return Reference(OneNode("LRN", 13)
                         .Input(x)
                         .Set("size", int64_t{2})
                         .Set("alpha", 2.0f)
                         .Set("beta", 1.0f)
                         .Set("bias", 0.0f)
                         .Set("channels_last", int64_t{channels_last}));
  };
  // Channel c divides by x[c]^2 + x[c + 1]^2.
  const std::vector<float> want = {1.0f / 10, 2.0f / 20, 3.0f / 34,
                                   4.0f / 52, 5.0f / 25, 6.0f / 36};
  EXPECT_THAT(lrn(first, false), Pointwise(FloatNear(1e-6f), want));
  EXPECT_THAT(lrn(last, true),
              Pointwise(FloatNear(1e-6f), {want[0], want[2], want[4], want[1], want[3], want[5]}));
}

}  // namespace normalization_test
}  // namespace octet
