#include <cmath>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"

namespace octet {
namespace conv_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Iota;
using testing::OneNode;

constexpr int64_t kU = kUnknownDim;
using List = std::vector<int64_t>;

Tensor Random(Shape shape, uint32_t seed) {
  std::mt19937 random(seed);
  Tensor tensor(DType::kF32, std::move(shape));
  for (float& x : tensor.mutable_span<float>())
    x = static_cast<float>(static_cast<int>(random() % 17) - 8);
  return tensor;
}

std::vector<float> RunOne(const OneNode& node) {
  const auto out = node.Run();
  EXPECT_TRUE(out.ok()) << out.status();
  return out.ok() ? Elements<float>((*out)[0]) : std::vector<float>{};
}

// The definition for two spatial axes, one output at a time.
std::vector<float> ConvByDefinition(const Tensor& x, const Tensor& w, const List& pads,
                                    const List& strides, const List& dilations, int64_t group,
                                    Shape out) {
  const Shape &xs = x.shape(), &ws = w.shape();
  std::vector<float> y;
  for (int64_t n = 0; n < out[0]; ++n)
    for (int64_t oc = 0; oc < out[1]; ++oc)
      for (int64_t oh = 0; oh < out[2]; ++oh)
        for (int64_t ow = 0; ow < out[3]; ++ow) {
          double sum = 0;
          for (int64_t ic = 0; ic < ws[1]; ++ic)
            for (int64_t kh = 0; kh < ws[2]; ++kh)
              for (int64_t kw = 0; kw < ws[3]; ++kw) {
                const int64_t c = oc / (ws[0] / group) * ws[1] + ic;
                const int64_t ih = oh * strides[0] - pads[0] + kh * dilations[0];
                const int64_t iw = ow * strides[1] - pads[1] + kw * dilations[1];
                if (ih < 0 || ih >= xs[2] || iw < 0 || iw >= xs[3]) continue;
                sum += x.span<float>()[((n * xs[1] + c) * xs[2] + ih) * xs[3] + iw] *
                       w.span<float>()[((oc * ws[1] + ic) * ws[2] + kh) * ws[3] + kw];
              }
          y.push_back(static_cast<float>(sum));
        }
  return y;
}

struct Geometry {
  Shape x, w, y;
  List pads, strides, dilations;
  int64_t group;
};

class ConvGeometryTest : public ::testing::TestWithParam<Geometry> {};

TEST_P(ConvGeometryTest, IsTheDefinition) {
  const Geometry& g = GetParam();
  const Tensor x = Random(g.x, 1), w = Random(g.w, 2);
  const OneNode node = OneNode("Conv", 11)
                           .Input(x)
                           .Constant(w)
                           .Set("pads", g.pads)
                           .Set("strides", g.strides)
                           .Set("dilations", g.dilations)
                           .Set("group", g.group);
  EXPECT_EQ(node.InferredShape(), g.y.ToString());
  EXPECT_EQ(RunOne(node), ConvByDefinition(x, w, g.pads, g.strides, g.dilations, g.group, g.y));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ConvGeometryTest,
    ::testing::Values(
        Geometry{{2, 3, 7, 6}, {4, 3, 3, 3}, {2, 4, 7, 6}, {1, 1, 1, 1}, {1, 1}, {1, 1}, 1},
        Geometry{{1, 4, 9, 8}, {6, 2, 3, 2}, {1, 6, 4, 4}, {0, 1, 1, 0}, {2, 2}, {1, 1}, 2},
        Geometry{{1, 5, 8, 8}, {5, 1, 3, 3}, {1, 5, 8, 8}, {2, 2, 2, 2}, {1, 1}, {2, 2}, 5},
        Geometry{{2, 8, 3, 5}, {4, 8, 1, 1}, {2, 4, 3, 5}, {0, 0, 0, 0}, {1, 1}, {1, 1}, 1},
        Geometry{{1, 2, 5, 5}, {3, 2, 1, 1}, {1, 3, 3, 3}, {0, 0, 0, 0}, {2, 2}, {1, 1}, 1},
        // As many outputs as inputs, and none where its input is: one tap, moved by strides and pads.
        Geometry{{1, 1, 2, 8}, {1, 1, 1, 1}, {1, 1, 4, 4}, {1, 0, 1, 0}, {1, 2}, {1, 1}, 1},
        Geometry{{1, 1, 2, 2}, {1, 1, 3, 3}, {1, 1, 4, 5}, {2, 2, 2, 3}, {1, 1}, {1, 1}, 1}));

TEST(ConvTest, GivesTheSameAnswersChannelsLast) {
  const Tensor x = Random({2, 4, 5, 6}, 3), w = Random({6, 2, 3, 3}, 4), bias = Random({6}, 5);
  const auto conv = [&](Tensor in, int64_t last) {
    return OneNode("Conv", 11)
        .Input(std::move(in))
        .Constant(w)
        .Constant(bias)
        .Set("pads", List{1, 0, 0, 1})
        .Set("strides", List{2, 1})
        .Set("group", int64_t{2})
        .Set("channels_last", last);
  };
  const auto transpose = [](Tensor in, List perm) {
    return (*OneNode("Transpose", 13).Input(std::move(in)).Set("perm", std::move(perm)).Run())[0];
  };
  const auto last = conv(transpose(x, {0, 2, 3, 1}), 1).Run();
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ((*last)[0].shape(), (Shape{2, 2, 5, 6}));
  EXPECT_EQ(Elements<float>(transpose((*last)[0], {0, 3, 1, 2})), RunOne(conv(x, 0)));
}

TEST(ConvTest, PadsAutomatically) {
  const auto shape = [](const char* auto_pad, int64_t in, int64_t kernel, int64_t stride) {
    return OneNode("Conv", 11)
        .Spec(DType::kF32, Shape{1, 1, in})
        .Spec(DType::kF32, Shape{1, 1, kernel})
        .Set("auto_pad", std::string(auto_pad))
        .Set("strides", List{stride})
        .InferredShape();
  };
  EXPECT_EQ(shape("SAME_UPPER", 5, 2, 1), "[1,1,5]");
  EXPECT_EQ(shape("SAME_LOWER", 5, 3, 2), "[1,1,3]");
  EXPECT_EQ(shape("VALID", 5, 3, 2), "[1,1,2]");
  EXPECT_THAT(shape("SAME", 5, 3, 2), HasSubstr("unknown 'auto_pad': 'SAME'"));
  // The odd pad goes to the end with UPPER, to the begin with LOWER.
  const auto run = [](const char* auto_pad) {
    return RunOne(OneNode("Conv", 11)
                      .Input(Iota<float>({1, 1, 3}))
                      .Constant(Tensor::From<float>({1, 1, 2}, {1, 10}))
                      .Set("auto_pad", std::string(auto_pad)));
  };
  EXPECT_THAT(run("SAME_UPPER"), ElementsAre(10, 21, 2));
  EXPECT_THAT(run("SAME_LOWER"), ElementsAre(0, 10, 21));
}

TEST(ConvTest, CoversOneAndThreeSpatialAxes) {
  EXPECT_THAT(RunOne(OneNode("Conv", 11)
                         .Input(Iota<float>({1, 1, 4}))
                         .Constant(Tensor::From<float>({1, 1, 2}, {1, -1}))
                         .Constant(Tensor::From<float>({1}, {0.5f}))),
              ElementsAre(-0.5f, -0.5f, -0.5f));
  EXPECT_THAT(RunOne(OneNode("Conv", 11)
                         .Input(Iota<float>({1, 1, 2, 2, 2}))
                         .Constant(Tensor::From<float>({1, 1, 2, 1, 1}, {1, 1}))),
              ElementsAre(4, 6, 8, 10));
}

TEST(ConvTest, InfersUnknownExtentsAndRanks) {
  const auto shape = [](std::optional<Shape> x, std::optional<Shape> w) {
    return OneNode("Conv", 11)
        .Spec(DType::kF32, std::move(x))
        .Spec(DType::kF32, std::move(w))
        .InferredShape();
  };
  EXPECT_EQ(shape(Shape{kU, 3, 32, kU}, Shape{8, 3, 3, 3}), "[?,8,30,?]");
  EXPECT_EQ(shape(std::nullopt, Shape{8, 3, 3}), "[?,8,?]");
  EXPECT_EQ(shape(Shape{2, 3, 8}, std::nullopt), "[2,?,?]");
  EXPECT_EQ(shape(std::nullopt, std::nullopt), "unknown");
}

TEST(ConvTest, RefusesContradictions) {
  const auto conv = [](Shape x, Shape w) {
    return OneNode("Conv", 11).Spec(DType::kF32, std::move(x)).Spec(DType::kF32, std::move(w));
  };
  EXPECT_THAT(conv({1, 3, 8}, {8, 4, 3}).InferredShape(), HasSubstr("input has 3 channels"));
  EXPECT_THAT(conv({1, 3, 2}, {8, 3, 3}).InferredShape(), HasSubstr("reaches over 3"));
  EXPECT_THAT(conv({1, 4, 8}, {3, 2, 3}).Set("group", int64_t{2}).InferredShape(),
              HasSubstr("3 output channels do not divide"));
  EXPECT_THAT(conv({1, 3, 8}, {8, 3, 3}).Set("strides", List{0}).InferredShape(),
              HasSubstr("'strides' must be at least 1, got 0"));
  EXPECT_THAT(conv({1, 3, 8}, {8, 3, 3}).Set("pads", List{1}).InferredShape(),
              HasSubstr("'pads' has 1 values, expected 2"));
  EXPECT_THAT(conv({1, 3, 8}, {8, 3, 3}).Set("kernel_shape", List{5}).InferredShape(),
              HasSubstr("the weights have 3"));
  EXPECT_THAT(conv({1, 3, 8}, {8, 3, 3}).Spec(DType::kF32, Shape{7}).InferredShape(),
              HasSubstr("must have shape [8]"));
}

TEST(ConvTest, ComputesOnTheRealsThatTypedIntegersStandFor) {
  const auto x_quant = QuantParams::PerTensor(0.5f, 10), y_quant = QuantParams::PerTensor(0.25f, 3);
  const QuantParams w_quant{{0.5f, 2.0f}, {0, 0}, 0};
  auto out = OneNode("Conv", 13)
                 .Input(Tensor::From<uint8_t>({1, 1, 2}, {12, 6}), x_quant)    // 1, -2
                 .Constant(Tensor::From<int8_t>({2, 1, 1}, {3, -1}), w_quant)  // 1.5, -2
                 .Declare(DType::kU8, std::nullopt, y_quant)
                 .Run();
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_THAT(Elements<uint8_t>((*out)[0]), ElementsAre(9, 0, 0, 19))
      << "1.5, -3, -2, 4, saturated at 0";
}

TEST(ConvIntegerTest, SubtractsBothZeroPointsAndNothingInThePadding) {
  auto out = OneNode("ConvInteger", 10)
                 .Input(Tensor::From<uint8_t>({1, 1, 3}, {2, 3, 4}))
                 .Constant(Tensor::From<int8_t>({1, 1, 2}, {1, 3}))
                 .Constant(Tensor::Scalar<uint8_t>(1))
                 .Constant(Tensor::From<int8_t>({1}, {2}))
                 .Set("pads", List{1, 0})
                 .Run();
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_THAT(Elements<int32_t>((*out)[0]), ElementsAre(1, 1, 1));
}

TEST(ConvIntegerTest, MovesOneTapByStridesAndPads) {
  const auto run = [](const char* op, Tensor x, Tensor w) {
    return OneNode(op, 11)
        .Input(std::move(x))
        .Input(std::move(w))
        .Set("strides", List{2})
        .Set("pads", List{2, 1})
        .Run();
  };
  const auto integers = run("ConvInteger", Tensor::From<uint8_t>({1, 1, 4}, {1, 2, 3, 4}),
                            Tensor::From<int8_t>({1, 1, 1}, {1}));
  ASSERT_TRUE(integers.ok()) << integers.status();
  EXPECT_THAT(Elements<int32_t>((*integers)[0]), ElementsAre(0, 1, 3, 0));
  const auto reals = run("Conv", Tensor::From<double>({1, 1, 4}, {1, 2, 3, 4}),
                         Tensor::From<double>({1, 1, 1}, {1}));
  ASSERT_TRUE(reals.ok()) << reals.status();
  EXPECT_THAT(Elements<double>((*reals)[0]), ElementsAre(0, 1, 3, 0));
}

TEST(ConvTransposeTest, IsTheAdjointOfConv) {
  // <conv(x), y> == <x, conv_transpose(y)> for every x and y.
  const Tensor x = Random({1, 4, 5, 6}, 6), w = Random({6, 2, 3, 2}, 7);
  const auto set = [](OneNode& node) {
    node.Set("pads", List{1, 0, 0, 1})
        .Set("strides", List{2, 1})
        .Set("dilations", List{1, 2})
        .Set("group", int64_t{2});
  };
  OneNode conv("Conv", 11);
  conv.Input(x).Constant(w);
  set(conv);
  const auto forward = conv.Run();
  ASSERT_TRUE(forward.ok()) << forward.status();
  const Tensor y = Random((*forward)[0].shape(), 8);
  OneNode transposed("ConvTranspose", 11);
  transposed.Input(y).Constant(w).Set("output_shape", List{5, 6});
  set(transposed);
  transposed.Set("output_shape", List{}).Set("output_padding", List{1, 0});
  const auto backward = transposed.Run();
  ASSERT_TRUE(backward.ok()) << backward.status();
  double left = 0, right = 0;
  for (int64_t i = 0; i < y.elements(); ++i)
    left += (*forward)[0].span<float>()[i] * y.span<float>()[i];
  ASSERT_EQ((*backward)[0].shape(), x.shape());
  for (int64_t i = 0; i < x.elements(); ++i)
    right += (*backward)[0].span<float>()[i] * x.span<float>()[i];
  EXPECT_EQ(left, right);
}

}  // namespace conv_test
}  // namespace octet
