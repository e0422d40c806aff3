// LSTM, GRU and RNN: the reference kernel by the equations for one cell, the fast LSTM by the reference kernel.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace recurrent_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using testing::LowerAndRun;
using testing::Lowered;
using testing::OneNode;
using ::testing::Pointwise;
using testing::RandomReals;

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::vector<Tensor> Reference(const OneNode& node) {
  auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? *std::move(outputs) : std::vector<Tensor>(3, Tensor(DType::kF32, Shape{}));
}

TEST(LstmTest, IsItsEquations) {
  // One input, one hidden unit, two steps. Gates in the order i, o, f, c.
  const float w[] = {0.5f, -0.25f, 0.75f, 1.0f};
  const float r[] = {0.1f, 0.2f, -0.3f, 0.4f};
  const float b[] = {0.05f, -0.1f, 0.2f, 0.15f, 0.01f, 0.02f, 0.03f, 0.04f};
  const float x[] = {1.5f, -2.0f};
  const auto y = Reference(OneNode("LSTM", 14)
                               .Input(Tensor::From<float>({2, 1, 1}, x))
                               .Constant(Tensor::From<float>({1, 4, 1}, w))
                               .Constant(Tensor::From<float>({1, 4, 1}, r))
                               .Constant(Tensor::From<float>({1, 8}, b))
                               .Outputs(3));
  double h = 0, c = 0;
  std::vector<float> expected;
  for (const float x_t : x) {
    const auto gate = [&](int g) { return w[g] * x_t + r[g] * h + b[g] + b[4 + g]; };
    const double in = Sigmoid(gate(0)), out = Sigmoid(gate(1)), forget = Sigmoid(gate(2));
    c = forget * c + in * std::tanh(gate(3));
    h = out * std::tanh(c);
    expected.push_back(static_cast<float>(h));
  }
  EXPECT_THAT(Elements<float>(y[0]), Pointwise(FloatNear(1e-6f), expected));
  EXPECT_THAT(Elements<float>(y[1]), Pointwise(FloatNear(1e-6f), {static_cast<float>(h)}));
  EXPECT_THAT(Elements<float>(y[2]), Pointwise(FloatNear(1e-6f), {static_cast<float>(c)}));
}

TEST(GruTest, IsItsEquationsWithBothResets) {
  // Gates in the order z, r, h.
  const float w[] = {0.5f, -0.25f, 0.75f};
  const float r[] = {0.1f, 0.2f, -0.3f};
  const float b[] = {0.05f, -0.1f, 0.2f, 0.01f, 0.02f, 0.03f};
  const float x = 1.5f, h0 = 0.4f;
  for (const int64_t linear : {0, 1}) {
    SCOPED_TRACE(linear);
    const auto y = Reference(OneNode("GRU", 14)
                                 .Input(Tensor::From<float>({1, 1, 1}, {x}))
                                 .Constant(Tensor::From<float>({1, 3, 1}, w))
                                 .Constant(Tensor::From<float>({1, 3, 1}, r))
                                 .Constant(Tensor::From<float>({1, 6}, b))
                                 .Absent()
                                 .Input(Tensor::From<float>({1, 1, 1}, {h0}))
                                 .Set("linear_before_reset", linear)
                                 .Outputs(2));
    const double z = Sigmoid(w[0] * x + b[0] + r[0] * h0 + b[3]);
    const double reset = Sigmoid(w[1] * x + b[1] + r[1] * h0 + b[4]);
    const double recurrent = linear != 0 ? reset * (r[2] * h0 + b[5]) : r[2] * (reset * h0) + b[5];
    const double candidate = std::tanh(w[2] * x + b[2] + recurrent);
    const auto h = static_cast<float>((1 - z) * candidate + z * h0);
    EXPECT_THAT(Elements<float>(y[0]), Pointwise(FloatNear(1e-6f), {h}));
    EXPECT_THAT(Elements<float>(y[1]), Pointwise(FloatNear(1e-6f), {h}));
  }
}

TEST(RnnTest, RunsBackwardsWhenAsked) {
  const OneNode node = OneNode("RNN", 14)
                           .Input(Tensor::From<float>({2, 1, 1}, {1, 2}))
                           .Constant(Tensor::From<float>({1, 1, 1}, {1}))
                           .Constant(Tensor::From<float>({1, 1, 1}, {10}))
                           .Set("direction", std::string("reverse"))
                           .Set("activations", std::vector<std::string>{"Relu"})
                           .Outputs(2);
  const auto y = Reference(node);
  EXPECT_THAT(Elements<float>(y[0]), ElementsAre(21, 2));
  EXPECT_THAT(Elements<float>(y[1]), ElementsAre(21));
}

TEST(RnnTest, StopsEverySequenceAtItsLength) {
  const OneNode node = OneNode("RNN", 14)
                           .Input(Tensor::From<float>({2, 2, 1}, {1, 2, 3, 4}))
                           .Constant(Tensor::From<float>({1, 1, 1}, {1}))
                           .Constant(Tensor::From<float>({1, 1, 1}, {0}))
                           .Absent()
                           .Constant(Tensor::From<int32_t>({2}, {1, 2}))
                           .Set("activations", std::vector<std::string>{"Relu"})
                           .Outputs(2);
  const auto y = Reference(node);
  EXPECT_THAT(Elements<float>(y[0]), ElementsAre(1, 2, 0, 4));
  EXPECT_THAT(Elements<float>(y[1]), ElementsAre(1, 4));
}

TEST(LstmTest, NamesAWrongShape) {
  EXPECT_THAT(OneNode("LSTM", 14)
                  .Input(RandomReals({1, 1, 3}, 1))
                  .Constant(RandomReals({1, 8, 4}, 2))
                  .Constant(RandomReals({1, 8, 2}, 3))
                  .InferredShape(),
              HasSubstr("must have shape [1,8,3], got [1,8,4]"));
}

struct Case {
  const char* name;
  int64_t time, batch, inputs, hidden;
  const char* direction;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class LstmLoweringTest : public ::testing::TestWithParam<Case> {
 protected:
  int64_t directions() const {
    return std::string_view(GetParam().direction) == "bidirectional" ? 2 : 1;
  }
  OneNode Layer(bool bias, bool states) const {
    const Case& c = GetParam();
    const int64_t d = directions();
    OneNode node("LSTM", 14);
    node.Input(RandomReals({c.time, c.batch, c.inputs}, 1))
        .Constant(RandomReals({d, 4 * c.hidden, c.inputs}, 2, -0.3f, 0.3f))
        .Constant(RandomReals({d, 4 * c.hidden, c.hidden}, 3, -0.3f, 0.3f))
        .Set("direction", std::string(c.direction))
        .Outputs(3);
    if (bias) node.Constant(RandomReals({d, 8 * c.hidden}, 4));
    if (!bias) node.Absent();
    node.Absent();
    if (states) {
      node.Input(RandomReals({d, c.batch, c.hidden}, 5))
          .Input(RandomReals({d, c.batch, c.hidden}, 6));
    }
    return node;
  }
};
INSTANTIATE_TEST_SUITE_P(Shapes, LstmLoweringTest,
                         ::testing::Values(Case{"OneStep", 1, 1, 128, 128, "forward"},
                                           Case{"Sequence", 7, 1, 16, 32, "forward"},
                                           Case{"Batch", 5, 3, 10, 20, "forward"},
                                           Case{"Backwards", 5, 2, 10, 20, "reverse"},
                                           Case{"BothWays", 4, 3, 9, 17, "bidirectional"}),
                         [](const auto& param) { return std::string(param.param.name); });

TEST_P(LstmLoweringTest, IsTheReference) {
  for (const bool bias : {false, true}) {
    for (const bool states : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "bias " << bias << ", states " << states);
      const OneNode node = Layer(bias, states);
      const auto graph = node.Infer();
      ASSERT_TRUE(graph.ok()) << graph.status();
      const auto lowered =
          LowerAndRun(*graph, node.tensors(), Precision::kFp32, onednn::DetectTarget(1));
      ASSERT_TRUE(lowered.ok()) << lowered.status();
      const auto want = Reference(node);
      for (size_t output = 0; output < 3; ++output) {
        EXPECT_THAT(Elements<float>(lowered->outputs[output]),
                    Pointwise(FloatNear(2e-5f), Elements<float>(want[output])))
            << "output " << output << ", " << lowered->layer.impl;
      }
    }
  }
}

TEST(LstmLoweringRefusesTest, WhatOneDnnHasNoFormOf) {
  const auto lower = [](OneNode node) {
    node.Input(RandomReals({2, 1, 3}, 1))
        .Constant(RandomReals({1, 8, 3}, 2))
        .Constant(RandomReals({1, 8, 2}, 3));
    const auto graph = node.Infer();
    EXPECT_TRUE(graph.ok()) << graph.status();
    return LowerAndRun(*graph, node.tensors()).status().code();
  };
  const auto kUnimplemented = absl::StatusCode::kUnimplemented;
  EXPECT_EQ(lower(OneNode("LSTM", 14).Set("clip", 1.0f)), kUnimplemented);
  EXPECT_EQ(lower(OneNode("LSTM", 14).Set("input_forget", int64_t{1})), kUnimplemented);
  EXPECT_EQ(
      lower(
          OneNode("LSTM", 14).Set("activations", std::vector<std::string>{"Relu", "Tanh", "Tanh"})),
      kUnimplemented);
  EXPECT_EQ(lower(OneNode("LSTM", 14)), absl::StatusCode::kOk);
}

}  // namespace recurrent_test
}  // namespace octet
