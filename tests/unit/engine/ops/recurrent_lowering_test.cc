// The fast forms of LSTM, GRU and RNN by the reference kernel, in every precision.
#include <array>
#include <cmath>
#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/onednn/isa.h"
#include "engine/tensor/quantize.h"
#include "tests/support/one_node.h"
#include "tests/support/random_tensor.h"
#include "tests/unit/engine/ops/lowered.h"

namespace octet {
namespace recurrent_lowering_test {

using testing::Elements;
using ::testing::FloatNear;
using ::testing::HasSubstr;
using testing::LowerAndRun;
using testing::OneNode;
using ::testing::Pointwise;
using testing::RandomReals;

using Names = std::vector<std::string>;

enum class Form { kF32, kBf16, kInt8, kInt8Dynamic };
constexpr std::array kForms = {Form::kF32, Form::kBf16, Form::kInt8, Form::kInt8Dynamic};

struct Case {
  const char* name;
  const char* op;
  int64_t time, batch, inputs, hidden;
  std::string direction = "forward";
  bool bias = true;
  bool states = true;
  bool lengths = false;
  bool peepholes = false;
  bool batch_first = false;
  std::function<void(OneNode&)> attributes = [](OneNode&) {};
  int threads = 1;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

int64_t Gates(const Case& c) {
  const std::string_view op = c.op;
  return op == "LSTM" ? 4 : op == "GRU" ? 3 : 1;
}
int64_t Directions(const Case& c) { return c.direction == "bidirectional" ? 2 : 1; }

Tensor As(DType dtype, const Tensor& reals) {
  Tensor result(dtype, reals.shape());
  ConvertTensor(reals.view(), result.mutable_view());
  return result;
}
Tensor Quantized(DType dtype, const Tensor& reals, const QuantParams& params) {
  Tensor result(dtype, reals.shape());
  QuantizeTensor(reals.view(), params, result.mutable_view());
  return result;
}

/// Rows of R sum up to less than `kReach` in magnitude.
constexpr float kReach = 1;

void AddWeights(const Case& c, Form form, int64_t depth, uint32_t seed, OneNode& node) {
  const int64_t rows = Gates(c) * c.hidden;
  const float reach = kReach / static_cast<float>(depth);
  const Tensor reals = RandomReals({Directions(c), rows, depth}, seed, -reach, reach);
  if (form == Form::kF32) {
    node.Constant(reals);
  } else if (form == Form::kBf16) {
    node.Constant(As(DType::kBF16, reals));
  } else {
    QuantParams params{{}, std::vector<int32_t>(static_cast<size_t>(rows), 0), 1};
    for (int64_t i = 0; i < rows; ++i)
      params.scales.push_back(reach / 127 * (i % 3 == 0 ? 1.25F : 1.0F));
    node.Constant(Quantized(DType::kI8, reals, params), params);
  }
}

void AddX(const Case& c, Form form, OneNode& node) {
  const Shape shape =
      c.batch_first ? Shape{c.batch, c.time, c.inputs} : Shape{c.time, c.batch, c.inputs};
  const Tensor reals = RandomReals(shape, 1);
  if (form == Form::kBf16) {
    node.Input(As(DType::kF32, As(DType::kBF16, reals)));  // Stored as F32, so that outputs are.
  } else if (form == Form::kInt8) {
    const auto params = QuantParams::PerTensor(1.0F / 100, c.hidden % 2 == 0 ? 5 : 117);
    const DType dtype = c.hidden % 2 == 0 ? DType::kI8 : DType::kU8;
    node.Input(Quantized(dtype, reals, params), params);
  } else {
    node.Input(reals);
    if (form == Form::kInt8Dynamic) node.Set("dynamic_quant", int64_t{1});
  }
}

/// On the grid of the range [0, 1] in 255 steps, of which every sequence has both ends; and on bf16's.
Tensor GridState(const Shape& shape, Form form) {
  Tensor state = RandomReals(shape, 5, 0, 1);
  const float steps = form == Form::kBf16 ? 128 : 255;
  const int64_t width = shape.back();
  const auto elements = state.mutable_span<float>();
  for (size_t i = 0; i < elements.size(); ++i) {
    elements[i] = std::round(elements[i] * steps) / steps;
    const auto column = static_cast<int64_t>(i) % width;
    if (column < 2) elements[i] = static_cast<float>(column);
  }
  return state;
}

OneNode Layer(const Case& c, Form form) {
  const int64_t d = Directions(c);
  const Shape state = c.batch_first ? Shape{c.batch, d, c.hidden} : Shape{d, c.batch, c.hidden};
  const bool lstm = std::string_view(c.op) == "LSTM";
  OneNode node(c.op, 14);
  AddX(c, form, node);
  AddWeights(c, form, c.inputs, 2, node);
  AddWeights(c, form, c.hidden, 3, node);
  c.bias ? node.Constant(RandomReals({d, 2 * Gates(c) * c.hidden}, 4, -0.5F, 0.5F)) : node.Absent();
  if (c.lengths) {
    Tensor lengths(DType::kI32, Shape{c.batch});
    for (int64_t b = 0; b < c.batch; ++b)
      lengths.mutable_span<int32_t>()[static_cast<size_t>(b)] =
          static_cast<int32_t>((b * 3 + 2) % (c.time + 1));
    node.Input(lengths);
  } else {
    node.Absent();
  }
  c.states ? node.Input(GridState(state, form)) : node.Absent();
  if (lstm) {
    c.states ? node.Input(RandomReals(state, 6)) : node.Absent();
    if (c.peepholes) node.Constant(RandomReals({d, 3 * c.hidden}, 7, -0.5F, 0.5F));
  }
  node.Set("direction", c.direction).Set("layout", int64_t{c.batch_first ? 1 : 0});
  node.Set("hidden_size", c.hidden).Outputs(lstm ? 3 : 2);
  c.attributes(node);
  return node;
}

std::string_view RunsIn(Form form) {
  return form == Form::kF32 ? "f32" : form == Form::kBf16 ? "bf16" : "int8";
}

/// How far a state in [-1, 1] is from what the product reads.
float Rounding(Form form) {
  switch (form) {
    case Form::kF32:
      return 0;
    case Form::kBf16:
      return 0x1p-9F;  // 8 bits of the significand.
    default:
      return 1.0F / 255;  // Half a step of a range as wide as 2.
  }
}

class RecurrentLoweringTest : public ::testing::TestWithParam<Case> {
 protected:
  static void Check(const Case& c, Form form, float tolerance) {
    SCOPED_TRACE(::testing::Message() << RunsIn(form) << (form == Form::kInt8 ? ", static" : ""));
    const OneNode node = Layer(c, form);
    const auto graph = node.Infer();
    ASSERT_TRUE(graph.ok()) << graph.status();
    const auto lowered =
        LowerAndRun(*graph, node.tensors(), Precision::kFp32, onednn::DetectTarget(c.threads));
    ASSERT_TRUE(lowered.ok()) << lowered.status();
    EXPECT_EQ(lowered->layer.runs, RunsIn(form));
    EXPECT_THAT(lowered->layer.impl, HasSubstr("octet:recurrent:"));
    EXPECT_GT(lowered->layer.macs, 0);
    const auto expected = node.Run();
    ASSERT_TRUE(expected.ok()) << expected.status();
    for (size_t output = 0; output < expected->size(); ++output) {
      EXPECT_THAT(
          Elements<float>(As(DType::kF32, lowered->outputs[output])),
          Pointwise(FloatNear(tolerance), Elements<float>(As(DType::kF32, (*expected)[output]))))
          << "output " << output;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(
    Layers, RecurrentLoweringTest,
    ::testing::Values(
        Case{"LstmSteps", "LSTM", 6, 1, 16, 32},
        Case{"LstmPlain", "LSTM", 4, 3, 10, 20, "forward", false, false},
        Case{"LstmReverse", "LSTM", 5, 2, 9, 17, "reverse"},
        Case{"LstmBothWays", "LSTM", 4, 3, 9, 17, "bidirectional"},
        Case{.name = "LstmLengths",
             .op = "LSTM",
             .time = 5,
             .batch = 7,
             .inputs = 9,
             .hidden = 18,
             .direction = "bidirectional",
             .lengths = true},
        Case{.name = "LstmPeepholes",
             .op = "LSTM",
             .time = 4,
             .batch = 2,
             .inputs = 8,
             .hidden = 12,
             .direction = "bidirectional",
             .peepholes = true},
        Case{.name = "LstmBatchFirst",
             .op = "LSTM",
             .time = 4,
             .batch = 3,
             .inputs = 8,
             .hidden = 12,
             .direction = "bidirectional",
             .lengths = true,
             .batch_first = true},
        Case{.name = "LstmCoupled",
             .op = "LSTM",
             .time = 4,
             .batch = 2,
             .inputs = 8,
             .hidden = 12,
             .peepholes = true,
             .attributes = [](OneNode& n) { n.Set("input_forget", int64_t{1}); }},
        Case{.name = "LstmClipped",
             .op = "LSTM",
             .time = 4,
             .batch = 2,
             .inputs = 8,
             .hidden = 12,
             .attributes = [](OneNode& n) { n.Set("clip", 0.25F); }},
        Case{.name = "LstmActivations",
             .op = "LSTM",
             .time = 3,
             .batch = 2,
             .inputs = 8,
             .hidden = 12,
             .direction = "bidirectional",
             .attributes =
                 [](OneNode& n) {
                   n.Set("activations", Names{"HardSigmoid", "Softsign", "ScaledTanh", "Sigmoid",
                                              "Elu", "Softsign"});
                   n.Set("activation_alpha", std::vector<float>{0.3F, 0.9F, 0.5F});
                   n.Set("activation_beta", std::vector<float>{0.4F, 0.8F});
                 }},
        Case{.name = "LstmThreads",
             .op = "LSTM",
             .time = 3,
             .batch = 5,
             .inputs = 8,
             .hidden = 12,
             .direction = "bidirectional",
             .lengths = true,
             .threads = 4},
        Case{.name = "LstmGroups",
             .op = "LSTM",
             .time = 8,
             .batch = 8,
             .inputs = 24,
             .hidden = 128,
             .lengths = true,
             .threads = 2},
        Case{.name = "LstmBothWaysAtOnce",
             .op = "LSTM",
             .time = 20,
             .batch = 1,
             .inputs = 24,
             .hidden = 128,
             .direction = "bidirectional",
             .threads = 2},
        Case{.name = "LstmParts",
             .op = "LSTM",
             .time = 3,
             .batch = 1,
             .inputs = 24,
             .hidden = 408,
             .threads = 2},
        Case{"GruSteps", "GRU", 6, 1, 16, 32},
        Case{"GruBothWays", "GRU", 4, 8, 9, 17, "bidirectional"},
        Case{.name = "GruLengths",
             .op = "GRU",
             .time = 5,
             .batch = 7,
             .inputs = 9,
             .hidden = 18,
             .direction = "reverse",
             .lengths = true,
             .batch_first = true},
        Case{.name = "GruActivations",
             .op = "GRU",
             .time = 3,
             .batch = 2,
             .inputs = 8,
             .hidden = 12,
             .attributes =
                 [](OneNode& n) { n.Set("activations", Names{"HardSigmoid", "Softsign"}); }},
        Case{.name = "GruParts",
             .op = "GRU",
             .time = 3,
             .batch = 1,
             .inputs = 24,
             .hidden = 432,
             .threads = 2},
        Case{.name = "LinearGruSteps",
             .op = "GRU",
             .time = 6,
             .batch = 1,
             .inputs = 16,
             .hidden = 32,
             .attributes = [](OneNode& n) { n.Set("linear_before_reset", int64_t{1}); }},
        Case{.name = "LinearGruLengths",
             .op = "GRU",
             .time = 5,
             .batch = 7,
             .inputs = 9,
             .hidden = 18,
             .direction = "bidirectional",
             .lengths = true,
             .attributes =
                 [](OneNode& n) { n.Set("linear_before_reset", int64_t{1}).Set("clip", 0.5F); },
             .threads = 3},
        Case{.name = "LinearGruParts",
             .op = "GRU",
             .time = 3,
             .batch = 1,
             .inputs = 24,
             .hidden = 432,
             .attributes = [](OneNode& n) { n.Set("linear_before_reset", int64_t{1}); },
             .threads = 2},
        Case{"RnnSteps", "RNN", 6, 1, 16, 32},
        Case{"RnnBothWays", "RNN", 4, 9, 9, 17, "bidirectional"},
        Case{.name = "RnnActivations",
             .op = "RNN",
             .time = 3,
             .batch = 2,
             .inputs = 8,
             .hidden = 12,
             .direction = "bidirectional",
             .lengths = true,
             .attributes = [](OneNode& n) { n.Set("activations", Names{"Relu", "LeakyRelu"}); }}),
    [](const auto& param) { return std::string(param.param.name); });

// What rounding the state adds to a gate is at most kReach * Rounding. A gate moves the state by no more than that (the
// activations' slopes are at most 1, and states at most 2 apart), once in each of two places for a reset that comes first; so the
// distance grows by twice that in every step at most, and by what is left of the distance before.
TEST_P(RecurrentLoweringTest, IsTheReference) {
  const Case& c = GetParam();
  for (const Form form : kForms) {
    const float steps = static_cast<float>(c.time);
    Check(c, form, 2e-5F + 2 * steps * kReach * Rounding(form));
  }
}

// A first step whose state every precision holds exactly leaves nothing to round, but for the product with r H.
TEST_P(RecurrentLoweringTest, RoundsNothingButTheState) {
  Case c = GetParam();
  c.time = 1;
  const OneNode node = Layer(c, Form::kF32);
  const auto graph = node.Infer();
  ASSERT_TRUE(graph.ok()) << graph.status();
  const Attributes& attributes = graph->node(graph->order()[0]).attributes;
  const bool reset_first =
      std::string_view(c.op) == "GRU" && attributes.IntOr("linear_before_reset", 0) == 0;
  for (const Form form : kForms)
    Check(c, form, 2e-5F + (reset_first ? kReach * Rounding(form) : 0));
}

TEST(RecurrentLoweringTest, WritesStatesAndHiddenAsTheyAreStored) {
  const auto params = QuantParams::PerTensor(1.0F / 64, 128);
  OneNode node("GRU", 14);
  node.Input(RandomReals({3, 2, 8}, 1))
      .Constant(RandomReals({1, 36, 8}, 2))
      .Constant(RandomReals({1, 36, 12}, 3))
      .Declare(DType::kU8, Shape{3, 1, 2, 12}, params)
      .Outputs(1);
  const auto graph = node.Infer();
  ASSERT_TRUE(graph.ok()) << graph.status();
  const auto lowered = LowerAndRun(*graph, node.tensors());
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const auto expected = node.Run();
  ASSERT_TRUE(expected.ok()) << expected.status();
  const auto got = Elements<uint8_t>(lowered->outputs[0]);
  const auto want = Elements<uint8_t>((*expected)[0]);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1);
}

TEST(RecurrentLoweringTest, LeavesToTheReferenceWhatItHasNoFormOf) {
  const auto message = [](const OneNode& node) {
    const auto graph = node.Infer();
    EXPECT_TRUE(graph.ok()) << graph.status();
    const absl::Status status = LowerAndRun(*graph, node.tensors()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    return std::string(Message(status));
  };
  EXPECT_THAT(message(OneNode("LSTM", 14)
                          .Input(RandomReals({2, 1, 3}, 1))
                          .Input(RandomReals({1, 8, 3}, 2))
                          .Constant(RandomReals({1, 8, 2}, 3))),
              HasSubstr("weights are computed"));
  EXPECT_THAT(message(OneNode("RNN", 14)
                          .Input(RandomReals({0, 1, 3}, 1))
                          .Constant(RandomReals({1, 2, 3}, 2))
                          .Constant(RandomReals({1, 2, 2}, 3))),
              HasSubstr("an empty input"));
  const auto zero_points = QuantParams::PerTensor(0.01F, 3);
  EXPECT_THAT(message(OneNode("RNN", 14)
                          .Input(RandomReals({1, 1, 3}, 1))
                          .Constant(testing::RandomBytes(DType::kI8, {1, 2, 3}, 2), zero_points)
                          .Constant(testing::RandomBytes(DType::kI8, {1, 2, 2}, 3), zero_points)
                          .Set("dynamic_quant", int64_t{1})),
              HasSubstr("quantization of"));
}

}  // namespace recurrent_lowering_test
}  // namespace octet
