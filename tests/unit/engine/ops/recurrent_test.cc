// LSTM, GRU and RNN: the reference kernel by the equations for one cell.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"

namespace octet {
namespace recurrent_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;
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

}  // namespace recurrent_test
}  // namespace octet
