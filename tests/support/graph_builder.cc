#include "tests/support/graph_builder.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {

void PrintTo(const Graph& graph, std::ostream* out) { *out << "\n" << Dump(graph); }

uint32_t TestSeed() {
  const char* seed = std::getenv("OCTET_TEST_SEED");
  return seed == nullptr ? 20240607U : static_cast<uint32_t>(std::strtoul(seed, nullptr, 10));
}

ValueId GraphBuilder::Input(std::string_view name, Shape shape, DType dtype) {
  Value value;
  value.name = name;
  value.dtype = dtype;
  value.shape = std::move(shape);
  graph_.inputs.push_back(graph_.AddValue(std::move(value)));
  return graph_.inputs.back();
}

ValueId GraphBuilder::TypedInput(std::string_view name, Shape shape, DType dtype,
                                 QuantParams quant) {
  const ValueId id = Input(name, std::move(shape), dtype);
  graph_.mutable_value(id).quant = std::move(quant);
  return id;
}

ValueId GraphBuilder::Random(Shape shape, float low, float high) {
  Tensor tensor(DType::kF32, std::move(shape));
  std::uniform_real_distribution<float> uniform(low, high);
  for (float& f : tensor.mutable_span<float>()) f = uniform(random_);
  return graph_.AddConstant("c", std::move(tensor));
}

ValueId GraphBuilder::RandomInts(DType dtype, Shape shape, int low, int high) {
  Tensor wide(DType::kI32, shape);
  std::uniform_int_distribution<int32_t> uniform(low, high);
  for (int32_t& i : wide.mutable_span<int32_t>()) i = uniform(random_);
  Tensor tensor(dtype, std::move(shape));
  ConvertTensor(wide.view(), tensor.mutable_view());
  return graph_.AddConstant("c", std::move(tensor));
}

std::vector<ValueId> GraphBuilder::Ops(std::string_view op, std::vector<ValueId> inputs,
                                       size_t outputs, Attrs attributes) {
  Node node;
  const size_t colon = op.find(':');
  node.domain = colon == op.npos ? "" : op.substr(0, colon);
  node.op = colon == op.npos ? op : op.substr(colon + 1);
  node.version = colon == op.npos ? opset_ : 1;
  node.name = Format("{}_{}", node.op, nodes_++);
  node.inputs = std::move(inputs);
  for (size_t i = 0; i < outputs; ++i) {
    Value value;
    value.name = graph_.UniqueName(Format("{}_out", node.name));
    node.outputs.push_back(graph_.AddValue(std::move(value)));
  }
  for (auto& [name, value] : attributes) node.attributes.Set(name, std::move(value));
  std::vector<ValueId> results = node.outputs;
  graph_.AddNode(std::move(node));
  return results;
}

ValueId GraphBuilder::Quantize(ValueId x, float scale, uint8_t zero_point) {
  return Op("QuantizeLinear", {x, Scalar(scale), Scalar(zero_point)});
}

ValueId GraphBuilder::Dequantize(ValueId x, float scale, uint8_t zero_point) {
  return Op("DequantizeLinear", {x, Scalar(scale), Scalar(zero_point)});
}

ValueId GraphBuilder::Convert(ValueId x, DType dtype, std::optional<QuantParams> quant) {
  const ValueId y = Op("octet:Convert", {x});
  graph_.mutable_value(y).dtype = dtype;
  graph_.mutable_value(y).quant = std::move(quant);
  return y;
}

ValueId GraphBuilder::QuantizedWeights(Shape shape, int64_t axis) {
  const int64_t channels = shape[static_cast<int>(axis)];
  const ValueId integers = RandomInts(DType::kI8, shape, -127, 127);
  const ValueId scales = Random({channels}, 0.002F, 0.01F);
  const ValueId zeros = RandomInts(DType::kI8, {channels}, 0, 0);
  return Op("DequantizeLinear", {integers, scales, zeros}, {{"axis", axis}});
}

void GraphBuilder::Output(ValueId id, std::string_view name) {
  if (!name.empty()) graph_.mutable_value(id).name = name;
  graph_.outputs.push_back(id);
}

Graph GraphBuilder::Build() {
  absl::Status status = Verify(graph_);
  if (status.ok()) status = InferShapes(graph_);
  if (!status.ok()) ADD_FAILURE() << status << "\n" << Dump(graph_);
  return graph_;
}

Graph AfterPass(std::string_view pass, Graph graph, const PassContext& context) {
  return AfterPasses({pass}, std::move(graph), context);
}

Graph AfterPasses(const std::vector<std::string_view>& passes, Graph graph,
                  const PassContext& context) {
  for (const std::string_view name : passes) {
    const auto all = AllPasses();
    const auto found = std::ranges::find(all, name, &Pass::name);
    if (found == all.end()) {
      ADD_FAILURE() << "no such pass: " << name;
      return graph;
    }
    absl::Status status = found->run(graph, context).status();
    graph.RemoveDead();
    if (status.ok()) status = Verify(graph);
    if (status.ok()) status = InferShapes(graph);
    if (!status.ok()) ADD_FAILURE() << "after " << name << ": " << status << "\n" << Dump(graph);
  }
  return graph;
}

Graph Optimised(Graph graph, const PassContext& context) {
  const auto trace = RunPasses(graph, context);
  if (!trace.ok()) ADD_FAILURE() << trace.status() << "\n" << Dump(graph);
  return graph;
}

Graph WithUnknownExtents(Graph graph, int64_t extent) {
  for (const ValueId id : graph.inputs) {
    Value& value = graph.mutable_value(id);
    for (int i = 0; value.shape && i < value.shape->rank(); ++i) {
      if ((*value.shape)[i] == kUnknownDim) (*value.shape)[i] = extent;
    }
  }
  if (const absl::Status status = InferShapes(graph); !status.ok())
    ADD_FAILURE() << status << "\n" << Dump(graph);
  return graph;
}

std::vector<Tensor> RandomInputs(const Graph& graph, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Tensor> inputs;
  for (const ValueId id : graph.inputs) {
    const Value& value = graph.value(id);
    Tensor wide(DType::kF32, *value.shape);
    const float low = IsFloat(value.dtype) ? -2.0F : value.dtype == DType::kI8 ? -128.0F : 0.0F;
    const float high = IsFloat(value.dtype) ? 2.0F : IsInt8(value.dtype) ? low + 255.9F : 1.9F;
    std::uniform_real_distribution<float> uniform(low, high);
    for (float& f : wide.mutable_span<float>())
      f = IsFloat(value.dtype) ? uniform(random) : std::floor(uniform(random));
    Tensor input(value.dtype, *value.shape);
    ConvertTensor(wide.view(), input.mutable_view());
    inputs.push_back(std::move(input));
  }
  return inputs;
}

std::vector<std::string> OpNames(const Graph& graph) {
  std::vector<std::string> names;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    names.push_back(node.domain.empty() ? node.op : Format("{}:{}", node.domain, node.op));
  }
  return names;
}

int CountOps(const Graph& graph, std::string_view op) {
  return static_cast<int>(std::ranges::count(OpNames(graph), op));
}

const Node& TheOnly(const Graph& graph, std::string_view op) {
  static const Node none;
  const Node* found = &none;
  const auto names = OpNames(graph);
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == op) found = &graph.node(graph.order()[i]);
  }
  if (CountOps(graph, op) != 1)
    ADD_FAILURE() << "expected one " << op << " in" << testing::PrintToString(graph);
  return *found;
}

namespace {

testing::AssertionResult Compare(const Tensor& expected, const Tensor& got,
                                 const Tolerance& tolerance) {
  if (expected.spec() != got.spec()) {
    return testing::AssertionFailure()
           << "expected " << DTypeName(expected.dtype()) << expected.shape().ToString() << ", got "
           << DTypeName(got.dtype()) << got.shape().ToString();
  }
  Tensor a(DType::kF32, expected.shape());
  Tensor b(DType::kF32, got.shape());
  ConvertTensor(expected.view(), a.mutable_view());
  ConvertTensor(got.view(), b.mutable_view());
  const bool real = IsFloat(expected.dtype());
  for (int64_t i = 0; i < a.elements(); ++i) {
    const float x = a.span<float>()[i];
    const float y = b.span<float>()[i];
    const float allowed =
        real ? tolerance.atol + tolerance.rtol * std::abs(x) : static_cast<float>(tolerance.steps);
    if (x == y || std::abs(x - y) <= allowed || (std::isnan(x) && std::isnan(y))) continue;
    return testing::AssertionFailure()
           << "element " << i << " of " << a.elements() << ": expected " << x << ", got " << y;
  }
  return testing::AssertionSuccess();
}

}  // namespace

testing::AssertionResult SameAnswers(const Graph& expected, const Graph& got,
                                     std::span<const Tensor> inputs, const Tolerance& tolerance) {
  const auto a = Evaluate(expected, inputs);
  const auto b = Evaluate(got, inputs);
  if (!a.ok())
    return testing::AssertionFailure() << "expected graph: " << a.status() << "\n"
                                       << Dump(expected);
  if (!b.ok())
    return testing::AssertionFailure() << "rewritten graph: " << b.status() << "\n" << Dump(got);
  for (size_t i = 0; i < a->size(); ++i) {
    const auto same = Compare((*a)[i], (*b)[i], tolerance);
    if (same) continue;
    return testing::AssertionFailure()
           << "output " << i << ", seed " << TestSeed() << ": " << same.message() << "\nbefore:\n"
           << Dump(expected) << "after:\n"
           << Dump(got);
  }
  return testing::AssertionSuccess();
}

testing::AssertionResult SameAnswers(const Graph& expected, const Graph& got,
                                     const Tolerance& tolerance) {
  return SameAnswers(expected, got, RandomInputs(expected), tolerance);
}

}  // namespace octet
