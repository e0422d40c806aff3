#include "engine/passes/reals_as_f32.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/ops/onnx_dtype.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

// Attributes that number an element type.
constexpr std::array<std::string_view, 3> kTypeAttributes = {"to", "dtype", "output_datatype"};

Tensor InF32(const Tensor& reals) {
  Tensor f32(DType::kF32, reals.shape());
  ConvertTensor(reals.view(), f32.mutable_view());
  if (reals.dtype() != DType::kF64) return f32;
  const std::span<const double> from = reals.span<double>();
  const std::span<float> to = f32.mutable_span<float>();
  for (size_t i = 0; i < from.size(); ++i) {
    if (std::isinf(to[i]) && std::isfinite(from[i]))
      to[i] = std::copysign(std::numeric_limits<float>::max(), to[i]);
  }
  return f32;
}

class Retyping {
 public:
  explicit Retyping(bool (*taken)(DType)) : taken_(taken) {}

  int Retype(Graph& graph) const {
    int count = 0;
    for (ValueId id = 0; id < graph.value_count(); ++id) {
      const Value& value = graph.value(id);
      const bool unused = graph.producer(id) == kNone && graph.consumers(id).empty() &&
                          !graph.is_graph_input(id) && !graph.is_graph_output(id);
      if (unused || !taken_(value.dtype)) continue;
      ++count;
      Value& changed = graph.mutable_value(id);
      if (changed.is_constant()) changed.constant = InF32(changed.constant);
      changed.dtype = DType::kF32;
    }
    for (const NodeId id : graph.OrderSnapshot()) {
      count += RetypeAttributes(graph.mutable_node(id));
      DropCast(graph, id);
    }
    return count;
  }

 private:
  int RetypeAttributes(Node& node) const {
    std::vector<std::pair<std::string, AttributeValue>> changes;
    for (const auto& [name, value] : node.attributes) {
      if (const auto* tensor = std::get_if<Tensor>(&value)) {
        if (taken_(tensor->dtype())) changes.emplace_back(name, InF32(*tensor));
      } else if (const auto* number = std::get_if<int64_t>(&value)) {
        const std::optional<DType> dtype = DTypeOfOnnx(*number);
        if (dtype && taken_(*dtype) && std::ranges::contains(kTypeAttributes, name))
          changes.emplace_back(name, kOnnxFloat);
      } else if (const auto* type = std::get_if<ValueType>(&value)) {
        if (taken_(type->dtype)) changes.emplace_back(name, ValueType{type->kind, DType::kF32});
      } else if (const auto* body = std::get_if<Subgraph>(&value)) {
        Graph changed = **body;
        if (Retype(changed) > 0)
          changes.emplace_back(name, std::make_shared<const Graph>(std::move(changed)));
      }
    }
    for (auto& [name, value] : changes) node.attributes.Set(name, std::move(value));
    return static_cast<int>(changes.size());
  }

  static void DropCast(Graph& graph, NodeId id) {
    const Node& node = graph.node(id);
    if (!node.is("Cast") && !node.is("CastLike")) return;
    const bool keeps = graph.value(node.inputs[0]).dtype == DType::kF32 &&
                       graph.value(node.outputs[0]).dtype == DType::kF32;
    if (keeps) Bypass(graph, id);
  }

  bool (*taken_)(DType);
};

class InterfaceRestorer {
 public:
  InterfaceRestorer(Graph& graph, absl::FunctionRef<Node(DType)> convert)
      : graph_(graph), convert_(convert) {}

  void Input(ValueId& slot, DType dtype) {
    const ValueId inner = slot;
    if (!IsOtherReal(inner, dtype)) return;
    const ValueId outer = TakeName(inner, dtype);
    slot = outer;
    // Where the input is an output, too, nothing comes in between.
    std::ranges::replace(graph_.outputs, inner, outer);
    if (graph_.consumers(inner).empty()) return;
    graph_.InsertNodeBefore(graph_.order().front(), Between(outer, inner, outer));
  }

  void Output(ValueId& slot, DType dtype) {
    const ValueId inner = slot;
    if (!IsOtherReal(inner, dtype)) return;
    const ValueId outer = TakeName(inner, dtype);
    slot = outer;
    const NodeId producer = graph_.producer(inner);
    Node node = Between(inner, outer, outer);
    if (producer == kNone) {
      graph_.AddNode(std::move(node));
    } else {
      graph_.InsertNodeAfter(producer, std::move(node));
    }
  }

 private:
  bool IsOtherReal(ValueId inner, DType dtype) const {
    return IsFloat(dtype) && dtype != DType::kF32 && graph_.value(inner).dtype != dtype;
  }

  // A value of this type with the inner one's name, which gets another.
  ValueId TakeName(ValueId inner, DType dtype) {
    const std::string name = graph_.value(inner).name;
    const std::optional<Shape> shape = graph_.value(inner).shape;
    std::string twin = graph_.UniqueName(name + "_f32");
    graph_.mutable_value(inner).name = std::move(twin);
    return graph_.AddValue({.name = name, .dtype = dtype, .shape = shape});
  }

  Node Between(ValueId from, ValueId to, ValueId outer) const {
    Node node = convert_(graph_.value(to).dtype);
    node.name = graph_.value(outer).name;
    node.inputs = {from};
    node.outputs = {to};
    return node;
  }

  Graph& graph_;
  absl::FunctionRef<Node(DType)> convert_;
};

}  // namespace

int StoreRealsAsF32(Graph& graph, bool (*taken)(DType dtype)) {
  return Retyping(taken).Retype(graph);
}

InterfaceTypes InterfaceTypesOf(const Graph& graph) {
  InterfaceTypes types;
  for (const ValueId id : graph.inputs) types.inputs.push_back(graph.value(id).dtype);
  for (const ValueId id : graph.outputs) types.outputs.push_back(graph.value(id).dtype);
  return types;
}

void RestoreInterface(Graph& graph, const InterfaceTypes& types,
                      absl::FunctionRef<Node(DType to)> convert) {
  InterfaceRestorer restorer(graph, convert);
  for (size_t i = 0; i < types.inputs.size(); ++i) restorer.Input(graph.inputs[i], types.inputs[i]);
  for (size_t i = 0; i < types.outputs.size(); ++i)
    restorer.Output(graph.outputs[i], types.outputs[i]);
}

}  // namespace octet
