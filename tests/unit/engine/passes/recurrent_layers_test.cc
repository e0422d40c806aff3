// Recurrent layers take the integers and the BF16 numbers that are around them.
#include "gtest/gtest.h"

#include "tests/support/graph_builder.h"

namespace octet {
namespace recurrent_layers_test {

PassContext In(Precision precision) {
  PassContext context;
  context.precision = precision;
  context.target.bf16 = true;
  return context;
}

constexpr int64_t kHidden = 6;

// Scales of both weights run along the gates' units.
std::vector<ValueId> IntegerWeights(GraphBuilder& b, int64_t gates, int64_t width) {
  return {b.QuantizedWeights({1, gates * kHidden, width}, 1),
          b.QuantizedWeights({1, gates * kHidden, kHidden}, 1)};
}

void ExpectIntegerWeights(const Graph& graph, const Node& node) {
  for (const size_t slot : {1, 2}) {
    const Value& weights = graph.value(node.input(slot));
    EXPECT_EQ(weights.dtype, DType::kI8);
    ASSERT_TRUE(weights.quant.has_value());
    EXPECT_EQ(weights.quant->axis, 1);
  }
}

TEST(RecurrentLayers, ReadAndWriteTypedIntegers) {
  GraphBuilder b;
  const ValueId x = b.FakeQuantize(b.Input("x", {3, 2, 4}), 0.02F, 100);
  const auto weights = IntegerWeights(b, 4, 4);
  const auto y = b.Ops("LSTM", {x, weights[0], weights[1]}, 2, {{"hidden_size", kHidden}});
  b.Output(b.FakeQuantize(y[0], 0.01F, 128));
  b.Output(y[1]);
  const Graph graph = b.Build();
  const Graph after = Optimised(graph, In(Precision::kInt8));
  EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 0, .atol = 1e-5F, .steps = 1}));
  const Node& lstm = TheOnly(after, "LSTM");
  EXPECT_EQ(after.value(lstm.input(0)).dtype, DType::kU8) << Dump(after);
  EXPECT_EQ(after.value(lstm.output(0)).dtype, DType::kU8) << Dump(after);
  EXPECT_EQ(after.value(lstm.output(1)).dtype, DType::kF32);
  EXPECT_EQ(lstm.attributes.IntOr("dynamic_quant", 0), 0);
  ExpectIntegerWeights(after, lstm);
}

TEST(RecurrentLayers, QuantizeWhatIsRealWhereInt8IsAskedFor) {
  GraphBuilder b;
  const auto weights = IntegerWeights(b, 3, 4);
  b.Output(
      b.Op("GRU", {b.Input("x", {3, 2, 4}), weights[0], weights[1]}, {{"hidden_size", kHidden}}));
  const Graph graph = b.Build();
  const Graph integers = Optimised(graph, In(Precision::kInt8));
  const Node& gru = TheOnly(integers, "GRU");
  EXPECT_EQ(gru.attributes.IntOr("dynamic_quant", 0), 1);
  ExpectIntegerWeights(integers, gru);

  const Graph reals = Optimised(graph, In(Precision::kFp32));
  EXPECT_TRUE(SameAnswers(graph, reals));
  const Node& wide = TheOnly(reals, "GRU");
  EXPECT_EQ(wide.attributes.IntOr("dynamic_quant", 0), 0);
  EXPECT_EQ(reals.value(wide.input(1)).dtype, DType::kF32);
  EXPECT_TRUE(reals.value(wide.input(1)).is_constant());
}

TEST(RecurrentLayers, TakeADynamicQuantization) {
  GraphBuilder b;
  const auto q = b.Ops("DynamicQuantizeLinear", {b.Input("x", {3, 2, 4})}, 3);
  const ValueId reals = b.Op("DequantizeLinear", {q[0], q[1], q[2]});
  const auto weights = IntegerWeights(b, 1, 4);
  b.Output(b.Op("RNN", {reals, weights[0], weights[1]}, {{"hidden_size", kHidden}}));
  const Graph graph = b.Build();
  const Graph after = AfterPass("import_dynamic_quant", graph);
  EXPECT_TRUE(SameAnswers(graph, after));
  EXPECT_THAT(after, HasOps({"RNN"}));
  EXPECT_EQ(TheOnly(after, "RNN").attributes.IntOr("dynamic_quant", 0), 1);
  ExpectIntegerWeights(after, TheOnly(after, "RNN"));
}

TEST(RecurrentLayers, MultiplyBf16AndKeepStatesInF32) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {3, 2, 4});
  const ValueId c = b.Input("c", {1, 2, kHidden});
  const auto y = b.Ops("LSTM",
                       {x, b.Random({1, 4 * kHidden, 4}), b.Random({1, 4 * kHidden, kHidden}),
                        b.Random({1, 8 * kHidden}), kNone, c, c},
                       3, {{"hidden_size", kHidden}});
  b.Output(b.Op("MatMul", {y[0], b.Random({kHidden, 5})}));
  b.Output(y[1]);
  b.Output(y[2]);
  const Graph graph = b.Build();
  const Graph after = Optimised(graph, In(Precision::kBf16));
  EXPECT_TRUE(SameAnswers(graph, after, {.rtol = 0.02F, .atol = 0.05F}));
  const Node& lstm = TheOnly(after, "LSTM");
  for (const size_t slot : {0, 1, 2})
    EXPECT_EQ(after.value(lstm.input(slot)).dtype, DType::kBF16) << slot;
  for (const size_t slot : {3, 5, 6})
    EXPECT_EQ(after.value(lstm.input(slot)).dtype, DType::kF32) << slot;
  EXPECT_EQ(after.value(lstm.output(0)).dtype, DType::kBF16) << Dump(after);
  EXPECT_EQ(after.value(lstm.output(1)).dtype, DType::kF32);
  EXPECT_EQ(after.value(lstm.output(2)).dtype, DType::kF32);
  EXPECT_EQ(Dump(Optimised(after, In(Precision::kBf16))), Dump(after));
}

}  // namespace recurrent_layers_test
}  // namespace octet
