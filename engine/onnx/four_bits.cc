#include "engine/onnx/four_bits.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <onnx/onnx_pb.h>

#include "engine/onnx/tensor_proto.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Clip of 8-bit integers, QuantizeLinear along an axis.
constexpr int kLeastOpset = 13;

// What reads or writes 4 bits in ONNX 21 and 22.
constexpr std::array<std::string_view, 18> kOperators = {
    "Cast", "CastLike", "Constant",  "ConstantOfShape", "DequantizeLinear", "Flatten", "Identity",
    "If",   "Loop",     "Pad",       "QuantizeLinear",  "Reshape",          "Scan",    "Shape",
    "Size", "Squeeze",  "Transpose", "Unsqueeze"};
// Of these, what hands on elements of its first input.
constexpr std::array<std::string_view, 7> kMovements = {
    "Flatten", "Identity", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze"};

bool IsQuantize(const Node& node) {
  return node.is("QuantizeLinear") || node.is("QuantizeLinear", kMicrosoftDomain);
}

bool IsTable(const Node& node) { return node.is("GatherBlockQuantized", kMicrosoftDomain); }

bool MayHaveFourBits(const Node& node) {
  if (node.domain == kOnnxDomain) return std::ranges::contains(kOperators, node.op);
  return IsQuantize(node) || node.is("DequantizeLinear", kMicrosoftDomain) || IsTable(node);
}

// The attribute, when it names a type of 4 bits.
std::optional<DType> NamedBy(const Node& node, std::string_view attribute) {
  const int64_t number = node.attributes.IntOr(attribute, 0);
  if (number == onnx::TensorProto::INT4) return DType::kI8;
  if (number == onnx::TensorProto::UINT4) return DType::kU8;
  return std::nullopt;
}

// A node beside the file's own node or value `beside`.
Node Added(std::string_view op, std::string_view beside, int opset, std::vector<ValueId> inputs,
           ValueId output) {
  Node node;
  node.name = Format("{}/{}", beside, op);
  node.op = op;
  node.version = opset;
  node.inputs = std::move(inputs);
  node.outputs = {output};
  return node;
}

// A constant of the 8-bit type.
ValueId AddNumber(Graph& graph, std::string_view beside, DType dtype, int number) {
  return graph.AddConstant(beside, dtype == DType::kI8
                                       ? Tensor::Scalar(static_cast<int8_t>(number))
                                       : Tensor::Scalar(static_cast<uint8_t>(number)));
}

// A value beside `of`, of the type given.
ValueId AddBeside(Graph& graph, ValueId of, DType dtype) {
  const std::string name = graph.UniqueName(graph.value(of).name);
  return graph.AddValue({.name = name, .dtype = dtype});
}

void AddClip(Graph& graph, std::string_view beside, int opset, ValueId from, ValueId to,
             DType held_as) {
  const bool is_signed = held_as == DType::kI8;
  const ValueId low = AddNumber(graph, beside, held_as, is_signed ? -8 : 0);
  const ValueId high = AddNumber(graph, beside, held_as, is_signed ? 7 : 15);
  graph.AddNode(Added("Clip", beside, opset, {from, low, high}, to));
}

// The node rounds to 8 bits, and a Clip behind it to 4.
void BoundResult(Graph& graph, NodeId id, DType held_as, int opset) {
  const Node node = graph.node(id);
  if (node.domain == kOnnxDomain) opset = std::max(node.version, kLeastOpset);
  const ValueId y = node.outputs[0];
  const ValueId wide = AddBeside(graph, y, held_as);
  if (IsQuantize(node)) {
    graph.SetOutput(id, 0, wide);
    if (NamedBy(node, "output_dtype"))
      graph.mutable_node(id).attributes.Set("output_dtype", int64_t{DTypeToOnnx(held_as)});
  } else {
    graph.RemoveNode(id);
    const ValueId reals = AddBeside(graph, y, DType::kF32);
    Node cast = Added("Cast", node.name, opset, {node.input(0)}, reals);
    cast.attributes.Set("to", int64_t{onnx::TensorProto::FLOAT});
    graph.AddNode(std::move(cast));
    const ValueId one = graph.AddConstant(node.name, Tensor::Scalar(1.0F));
    const ValueId zero = AddNumber(graph, node.name, held_as, 0);
    graph.AddNode(Added("QuantizeLinear", node.name, opset, {reals, one, zero}, wide));
  }
  AddClip(graph, node.name, opset, wide, y, held_as);
}

}  // namespace

std::optional<DType> FourBits::HeldAs(ValueId value) const {
  const auto found = held_as_.find(value);
  return found == held_as_.end() ? std::nullopt : std::optional(found->second);
}

// The 4-bit type to which the node rounds.
std::optional<DType> FourBits::MadeBy(const Node& node) const {
  const ValueId y = node.output(0);
  if (y == kNone) return std::nullopt;
  // Of a node with other inputs than it has, its operator tells.
  if (node.is("Cast")) return node.inputs.size() == 1 ? NamedBy(node, "to") : std::nullopt;
  if (node.is("CastLike") && node.inputs.size() != 2) return std::nullopt;
  std::optional<DType> made;
  if (node.is("CastLike")) {
    made = HeldAs(node.input(1));
  } else if (IsQuantize(node)) {
    made = node.input(2) != kNone ? HeldAs(node.input(2)) : NamedBy(node, "output_dtype");
  } else {
    return std::nullopt;
  }
  // The other operand may come out of a sub-graph, which says nothing of its types: then the file's declaration does.
  return made ? made : HeldAs(y);
}

absl::Status FourBits::CheckOperator(const Graph& graph, const Node& node) const {
  if (IsTable(node) && node.input(0) != kNone && !HeldAs(node.input(0))) {
    return Unimplemented("{}: unsupported element type of '{}': expected INT4 or UINT4",
                         Describe(node), graph.value(node.input(0)).name);
  }
  if (held_as_.empty() || MayHaveFourBits(node)) return absl::OkStatus();
  for (const auto& list : {node.inputs, node.outputs}) {
    for (const ValueId id : list) {
      const std::optional<DType> held_as = HeldAs(id);
      if (!held_as) continue;
      return Unimplemented("{}: value '{}': unsupported element type: {}", Describe(node),
                           graph.value(id).name, FourBitName(*held_as));
    }
  }
  return absl::OkStatus();
}

// Readers read what the input holds within 4 bits; an output of the model that is the input itself stays so.
void FourBits::BoundInputs(Graph& graph, int opset) const {
  for (const ValueId input : std::vector<ValueId>(graph.inputs)) {
    const std::optional<DType> held_as = HeldAs(input);
    const std::span<const NodeId> consumers = graph.consumers(input);
    if (!held_as || consumers.empty()) continue;
    const std::vector<NodeId> readers(consumers.begin(), consumers.end());
    const ValueId bounded = AddBeside(graph, input, *held_as);
    for (const NodeId reader : readers) {
      for (size_t slot = 0; slot < graph.node(reader).inputs.size(); ++slot) {
        if (graph.node(reader).inputs[slot] == input) graph.SetInput(reader, slot, bounded);
      }
    }
    const std::string name = graph.value(input).name;
    AddClip(graph, name, opset, input, bounded, *held_as);
  }
}

absl::Status FourBits::Rewrite(Graph& graph, bool is_body, int opset) {
  const std::vector<NodeId> nodes = graph.OrderSnapshot();
  std::vector<std::pair<NodeId, DType>> makers;
  for (const NodeId id : nodes) {
    const Node& node = graph.node(id);
    const ValueId y = node.output(0);
    const std::optional<DType> made = MadeBy(node);
    const bool moves = node.domain == kOnnxDomain && std::ranges::contains(kMovements, node.op);
    const std::optional<DType> moved = moves ? HeldAs(node.input(0)) : std::nullopt;
    if (y != kNone && (made || moved)) Mark(y, made ? *made : *moved);
    OCTET_RETURN_IF_ERROR(CheckOperator(graph, node));
    if (made) makers.emplace_back(id, *made);
  }
  opset = std::max(opset, kLeastOpset);
  if (!is_body) BoundInputs(graph, opset);
  for (const auto& [id, held_as] : makers) BoundResult(graph, id, held_as, opset);
  return graph.order().size() == nodes.size() ? absl::OkStatus() : graph.Sort();
}

}  // namespace octet
