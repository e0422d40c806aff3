// Graphs for tests, written in the order of computation, and sentences about them.
//
//   GraphBuilder b;
//   const ValueId x = b.Input("x", {2, 3, 8, 8});
//   const ValueId c = b.Op("Conv", {x, b.Random({4, 3, 3, 3})}, {{"pads", Ints{1, 1, 1, 1}}});
//   b.Output(b.Op("Relu", {c}));
//   EXPECT_THAT(AfterPass("fuse_activation", b.Build()), HasOps({"Conv"}));
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"

#include "engine/graph/graph.h"
#include "engine/passes/pass.h"

namespace octet {

/// How googletest prints a graph when an expectation about it fails.
void PrintTo(const Graph& graph, std::ostream* out);

using Ints = std::vector<int64_t>;

/// The seed of random constants and inputs: OCTET_TEST_SEED, or a fixed one. Failures print it.
uint32_t TestSeed();

class GraphBuilder {
 public:
  explicit GraphBuilder(int opset = 13) : opset_(opset), random_(TestSeed()) {}

  ValueId Input(std::string_view name, Shape shape, DType dtype = DType::kF32);
  /// A graph input that holds typed integers.
  ValueId TypedInput(std::string_view name, Shape shape, DType dtype, QuantParams quant);

  template <typename T>
  ValueId Constant(Shape shape, std::vector<T> values) {
    return graph_.AddConstant("c", Tensor::From<T>(std::move(shape), std::span<const T>(values)));
  }
  template <typename T>
  ValueId Scalar(T value) {
    return graph_.AddConstant("c", Tensor::Scalar<T>(value));
  }
  ValueId IntList(const Ints& values) {
    return Constant<int64_t>(Shape{std::ssize(values)}, values);
  }
  /// F32 elements, uniform in [low, high).
  ValueId Random(Shape shape, float low = -1.0F, float high = 1.0F);
  /// Integers, uniform in [low, high].
  ValueId RandomInts(DType dtype, Shape shape, int low, int high);

  using Attrs = std::map<std::string, AttributeValue>;
  /// Adds "Conv", "com.microsoft:QGemm" or "octet:MatMul"; output types and shapes are inferred.
  ValueId Op(std::string_view op, std::vector<ValueId> inputs, Attrs attributes = {}) {
    return Ops(op, std::move(inputs), 1, std::move(attributes)).front();
  }
  std::vector<ValueId> Ops(std::string_view op, std::vector<ValueId> inputs, size_t outputs,
                           Attrs attributes = {});
  /// The opset of the nodes that follow.
  GraphBuilder& Opset(int opset) {
    opset_ = opset;
    return *this;
  }

  /// QuantizeLinear and DequantizeLinear with scalar parameters. u8.
  ValueId Quantize(ValueId x, float scale, uint8_t zero_point);
  ValueId Dequantize(ValueId x, float scale, uint8_t zero_point);
  /// Dequantize(Quantize(x)): how a Q/DQ model marks an activation.
  ValueId FakeQuantize(ValueId x, float scale, uint8_t zero_point) {
    return Dequantize(Quantize(x, scale, zero_point), scale, zero_point);
  }
  /// octet:Convert to a stored type.
  ValueId Convert(ValueId x, DType dtype, std::optional<QuantParams> quant = std::nullopt);
  /// DequantizeLinear of random I8 integers with one scale per index of `axis`.
  ValueId QuantizedWeights(Shape shape, int64_t axis);

  void Output(ValueId id, std::string_view name = "");
  /// The graph, with shapes inferred and verified; a test failure when it is broken.
  Graph Build();

 private:
  Graph graph_;
  int opset_;
  int nodes_ = 0;
  std::mt19937 random_;
};

/// The graph after one pass (and what RunPasses does around it: dead nodes, verifier, shapes).
Graph AfterPass(std::string_view pass, Graph graph, const PassContext& context = {});
/// The same for several passes, in this order.
Graph AfterPasses(const std::vector<std::string_view>& passes, Graph graph,
                  const PassContext& context = {});
/// The graph after RunPasses.
Graph Optimised(Graph graph, const PassContext& context = {});

/// Sets every unknown extent of the inputs, and infers shapes.
Graph WithUnknownExtents(Graph graph, int64_t extent);

/// Random inputs that fit the graph: F32 in [-2, 2), integers over their whole range (I32 and I64:
/// 0 or 1).
std::vector<Tensor> RandomInputs(const Graph& graph, uint32_t seed = TestSeed());

/// Names of the operators in order, Octet's own with their domain: {"Conv", "octet:MatMul"}.
std::vector<std::string> OpNames(const Graph& graph);
int CountOps(const Graph& graph, std::string_view op);
/// The only node of this operator; a test failure when there is not exactly one.
const Node& TheOnly(const Graph& graph, std::string_view op);

MATCHER_P(HasOps, ops, "has these operators in order: " + ::testing::PrintToString(ops)) {
  *result_listener << "it has " << ::testing::PrintToString(OpNames(arg));
  return OpNames(arg) == std::vector<std::string>(ops.begin(), ops.end());
}
inline auto HasOps(std::initializer_list<const char*> ops) {
  return HasOps(std::vector<std::string>(ops.begin(), ops.end()));
}
MATCHER_P(HasNo, op, std::string("has no ") + op) { return CountOps(arg, op) == 0; }
MATCHER_P2(HasExactly, count, op, "has exactly " + std::to_string(count) + " " + op) {
  *result_listener << "it has " << CountOps(arg, op);
  return CountOps(arg, op) == count;
}

/// What two graphs answer to the same inputs, by reference kernels. Floats agree when
/// |got - expected| <= atol + rtol |expected|; integers when they differ by at most `steps`.
struct Tolerance {
  float rtol = 1e-4F;
  float atol = 1e-5F;
  int steps = 0;
};
::testing::AssertionResult SameAnswers(const Graph& expected, const Graph& got,
                                       std::span<const Tensor> inputs,
                                       const Tolerance& tolerance = {});
/// SameAnswers on RandomInputs.
::testing::AssertionResult SameAnswers(const Graph& expected, const Graph& got,
                                       const Tolerance& tolerance = {});

}  // namespace octet
