// Constants that stay real, held in 8 bits: what the graph looks like then, and that somebody decides.
#include "engine/quantize/byte_storage.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/onnx/onnx_file.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/format.h"
#include "engine/tensor/status.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace byte_storage_test {

// A transformer's beginning: words, their places, a product; the last constant is too small to be stored.
Graph Embedded() {
  GraphBuilder b;
  const ValueId ids = b.Input("ids", {2, 32}, DType::kI64);
  const ValueId words = b.Op("Gather", {b.Random({100, 32}), ids});
  const ValueId placed = b.Op("Add", {words, b.Random({1, 32, 32}, -0.1F, 0.1F)});
  const ValueId product = b.Op("MatMul", {placed, b.Random({32, 48})});
  b.Output(b.Op("Mul", {product, b.Random({48})}));
  return b.Build();
}

Tensor Ids() {
  Tensor ids(DType::kI64, Shape{2, 32});
  int64_t next = 0;
  for (int64_t& id : ids.mutable_span<int64_t>()) id = (next += 37) % 100;
  return ids;
}

double Sqnr(const Graph& fp32, const Graph& stored) {
  const auto bytes = WriteOnnxBytes(stored);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  const auto read = ReadOnnxBytes(std::as_bytes(std::span(*bytes)), "written");
  EXPECT_TRUE(read.ok()) << read.status();
  const std::vector<Tensor> inputs = {Ids()};
  const auto expected = Evaluate(fp32, inputs);
  const auto got = Evaluate(*read, inputs);
  EXPECT_TRUE(expected.ok() && got.ok()) << expected.status() << got.status();
  double signal = 0;
  double noise = 1e-30;
  for (int64_t i = 0; i < expected->front().elements(); ++i) {
    const double want = expected->front().span<float>()[static_cast<size_t>(i)];
    const double off = want - got->front().span<float>()[static_cast<size_t>(i)];
    signal += want * want;
    noise += off * off;
  }
  return 10 * std::log10(signal / noise);
}

QuantizeResult Stored(const Graph& graph, const QuantizeRecipe& recipe, const AcceptGraph& accept) {
  QuantizeResult result{graph, {}};
  const absl::Status status = StoreInBytes(recipe, {}, accept, result);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(Verify(result.graph).ok());
  return result;
}

absl::StatusOr<bool> Always(const Graph&) { return true; }

TEST(ByteStorage, HoldsTablesOperandsAndWeights) {
  const Graph fp32 = Embedded();
  for (const bool per_channel : {true, false}) {
    const QuantizeResult result = Stored(fp32, {.per_channel = per_channel}, Always);
    EXPECT_THAT(result.graph, HasOps({"Gather", "DequantizeLinear", "DequantizeLinear", "Add",
                                      "DequantizeLinear", "MatMul", "Mul"}));
    const Node& gather = TheOnly(result.graph, "Gather");
    EXPECT_EQ(result.graph.value(gather.outputs[0]).dtype, DType::kI8) << "bytes are moved";
    const Node& reals = result.graph.node(result.graph.SoleConsumer(gather.outputs[0]));
    EXPECT_NE(reals.input(2), kNone) << "ONNX Runtime moves it where the type follows from it";
    EXPECT_LT(ConstantBytes(result.graph), ConstantBytes(fp32) / 3);
    EXPECT_GT(Sqnr(fp32, result.graph), 35);
    EXPECT_EQ(std::ranges::count(result.records, "stored", &QuantizeRecord::what), 3);
  }
}

// Both matrices of a layer's gates; behind activations in 8 bits, too, for its state is of no such.
TEST(ByteStorage, HoldsWeightsThatRecurrentLayersMultiplyInIntegers) {
  struct Kind {
    const char* op;
    int64_t gates;
  };
  for (const auto& [op, gates] : {Kind{"LSTM", 4}, Kind{"GRU", 3}, Kind{"RNN", 1}}) {
    SCOPED_TRACE(op);
    GraphBuilder b;
    const ValueId x = b.FakeQuantize(b.Input("x", {3, 2, 8}), 0.02F, 100);
    b.Output(b.Op(op, {x, b.Random({1, gates * 16, 8}), b.Random({1, gates * 16, 16})},
                  {{"hidden_size", int64_t{16}}}));
    const QuantizeResult result = Stored(b.Build(), {}, Always);
    ASSERT_EQ(std::ranges::count(result.records, "stored", &QuantizeRecord::what), 2);
    EXPECT_THAT(result.records.front().detail, ::testing::HasSubstr("multiplied by integers"));
    PassContext context;
    context.precision = Precision::kInt8;
    const Graph run = Optimised(result.graph, context);
    const Node& layer = TheOnly(run, op);
    EXPECT_EQ(run.value(layer.input(0)).dtype, DType::kU8) << Dump(run);
    for (const size_t slot : {1, 2}) {
      const Value& weights = run.value(layer.input(slot));
      EXPECT_EQ(weights.dtype, DType::kI8) << Dump(run);
      ASSERT_TRUE(weights.quant.has_value());
      EXPECT_EQ(weights.quant->axis, 1);
    }
  }
}

TEST(ByteStorage, AsksForEachWhereAllAreTooMany) {
  const Graph fp32 = Embedded();
  int asked = 0;
  const auto no_table = [&](const Graph& graph) -> absl::StatusOr<bool> {
    ++asked;
    return graph.value(TheOnly(graph, "Gather").inputs[0]).dtype == DType::kF32;
  };
  const QuantizeResult result = Stored(fp32, {}, no_table);
  EXPECT_EQ(asked, 4);
  EXPECT_THAT(result.graph, HasExactly(2, "DequantizeLinear"));
  EXPECT_EQ(result.records.back().name, "2 of 3 real constants in 8 bits");
}

TEST(ByteStorage, LeavesTheGraphToWhoRefuses) {
  const Graph fp32 = Embedded();
  const QuantizeResult result =
      Stored(fp32, {}, [](const Graph&) -> absl::StatusOr<bool> { return false; });
  EXPECT_EQ(*WriteOnnxBytes(result.graph), *WriteOnnxBytes(fp32));
  QuantizeResult failed{fp32, {}};
  const auto stopped = [](const Graph&) -> absl::StatusOr<bool> {
    return absl::CancelledError("stopped");
  };
  EXPECT_TRUE(absl::IsCancelled(StoreInBytes({}, {}, stopped, failed)));
}

TEST(ByteStorage, HoldsTheTablesOfDynamicFiles) {
  const Graph fp32 = Embedded();
  const auto made = Quantize(fp32, {.to = Precision::kInt8Dynamic}, {}, {});
  ASSERT_TRUE(made.ok()) << made.status();
  const Node& gather = TheOnly(made->graph, "Gather");
  EXPECT_EQ(made->graph.value(gather.outputs[0]).dtype, DType::kI8);
  EXPECT_GT(Sqnr(fp32, made->graph), 30);
}

// Biases and factors per channel are parts of their neighbours; a scale for every element would save nothing.
TEST(ByteStorage, LeavesVectorsAlone) {
  for (const Shape& shape : {Shape{2048}, Shape{1, 1, 2048}, Shape{1, 2, 1024}}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {3, 2, shape[shape.rank() - 1]});
    b.Output(b.Op("Add", {x, b.Random(shape)}));
    EXPECT_TRUE(Stored(b.Build(), {}, Always).records.empty()) << shape.ToString();
  }
}

// Beside integers it would be a layer in int8.
TEST(ByteStorage, LeavesLayersBehindMovedIntegersAlone) {
  for (const bool integers : {true, false}) {
    GraphBuilder b;
    const ValueId x = b.Input("x", {1, 16, 8, 8});
    const ValueId read = integers ? b.FakeQuantize(x, 0.05F, 128) : x;
    const ValueId pooled = b.Op("MaxPool", {read}, {{"kernel_shape", Ints{2, 2}}});
    b.Output(b.Op("Conv", {pooled, b.Random({16, 16, 3, 3})}));
    EXPECT_EQ(Stored(b.Build(), {}, Always).records.empty(), integers);
  }
}

// Nobody may have asked for the row that breaks.
TEST(ByteStorage, LeavesTablesWhoseRowsWouldBreak) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const bool masked : {true, false}) {
    std::vector<float> table(size_t{64} * 64, 1);
    for (size_t i = 0; i < 64; ++i) table[64 + i] = masked && i > 0 ? -kInfinity : 1e-4F;
    GraphBuilder b;
    const ValueId row =
        b.Op("Gather", {b.Constant<float>({64, 64}, table), b.Input("ids", {2, 3}, DType::kI64)});
    b.Output(b.Op("MatMul", {row, b.Random({64, 1})}));
    const Graph fp32 = b.Build();
    EXPECT_TRUE(Stored(fp32, {}, Always).records.empty()) << masked;
    const auto made = Quantize(fp32, {.to = Precision::kInt8Dynamic}, {}, {});
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(made->graph.value(TheOnly(made->graph, "Gather").outputs[0]).dtype, DType::kF32);
  }
}

// Depthwise heads over the levels of a pyramid.
TEST(ByteStorage, HoldsWeightsThatLayersShareOnce) {
  GraphBuilder b;
  const ValueId weights = b.Random({64, 1, 3, 3});
  for (const int64_t extent : {8, 4}) {
    const ValueId x = b.Input(Format("x{}", extent), {1, 64, extent, extent});
    b.Output(b.Op("Conv", {x, weights}, {{"group", int64_t{64}}}));
  }
  const Graph fp32 = b.Build();
  const auto made = Quantize(fp32, {.to = Precision::kInt8Dynamic}, {}, {});
  ASSERT_TRUE(made.ok()) << made.status();
  const Graph& graph = made->graph;
  EXPECT_THAT(graph, HasOps({"DequantizeLinear", "Conv", "Conv"}));
  const Node& dequantize = TheOnly(graph, "DequantizeLinear");
  EXPECT_EQ(graph.value(dequantize.inputs[0]).dtype, DType::kI8);
  EXPECT_EQ(graph.consumers(dequantize.outputs[0]).size(), 2U);
  EXPECT_LT(ConstantBytes(graph), ConstantBytes(fp32) / 2);
  EXPECT_EQ(std::ranges::count(made->records, "stored", &QuantizeRecord::what), 1);
}

// One scale per channel is one per column of the one and per row of the other.
TEST(ByteStorage, LeavesWeightsAloneThatAreSharedAlongTwoAxes) {
  GraphBuilder b;
  const ValueId x = b.Input("x", {2, 64});
  const ValueId weights = b.Random({64, 64});
  for (const int64_t transposed : {0, 1})
    b.Output(b.Op("Gemm", {x, weights}, {{"transB", transposed}}));
  Graph graph = b.Build();
  std::vector<QuantizeRecord> records;
  StoreUnseenInBytes({}, graph, records);
  EXPECT_TRUE(records.empty());
}

TEST(ByteStorage, CanBeSwitchedOff) {
  const auto made =
      Quantize(Embedded(), {.to = Precision::kInt8Dynamic, .byte_constants = false}, {}, {});
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->graph.value(TheOnly(made->graph, "Gather").outputs[0]).dtype, DType::kF32);
}

TEST(ByteStorage, AsksNobodyWhereNothingIsLarge) {
  GraphBuilder b;
  b.Output(b.Op("MatMul", {b.Input("x", {2, 8}), b.Random({8, 8})}));
  const QuantizeResult result = Stored(b.Build(), {}, [](const Graph&) -> absl::StatusOr<bool> {
    ADD_FAILURE() << "asked";
    return false;
  });
  EXPECT_TRUE(result.records.empty());
}

}  // namespace byte_storage_test
}  // namespace octet
