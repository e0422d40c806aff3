// Text forms of a graph and its parts.
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "absl/strings/escaping.h"

#include "engine/graph/graph.h"
#include "engine/tensor/format.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

// Constants and attributes of up to this many elements show them.
constexpr int64_t kShownElements = 8;

std::string_view ShortName(DType dtype) {
  switch (dtype) {
    case DType::kUndefined:
      return "?";
    case DType::kBool:
      return "bool";
    case DType::kU8:
      return "u8";
    case DType::kI8:
      return "i8";
    case DType::kU16:
      return "u16";
    case DType::kI16:
      return "i16";
    case DType::kU32:
      return "u32";
    case DType::kI32:
      return "i32";
    case DType::kU64:
      return "u64";
    case DType::kI64:
      return "i64";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    case DType::kF32:
      return "f32";
    case DType::kF64:
      return "f64";
    case DType::kString:
      return "string";
  }
  return "?";
}

// Joins `text(item)` of every item.
template <typename Items, typename Text>
std::string Join(const Items& items, std::string_view separator, const Text& text) {
  std::string joined;
  bool first = true;
  for (const auto& item : items) {
    if (!first) joined += separator;
    first = false;
    joined += text(item);
  }
  return joined;
}

template <typename T>
std::string ToText(const T& value) {
  return Format("{}", value);
}

std::string QualifiedOp(const Node& node) {
  return node.domain.empty() ? node.op : Format("{}:{}", node.domain, node.op);
}

std::string Reference(const Graph& graph, ValueId id) {
  return id == kNone ? "_" : "%" + graph.value(id).name;
}

std::string Typed(const Graph& graph, ValueId id) {
  if (id == kNone) return "_";
  const Value& value = graph.value(id);
  if (!value.is_tensor())
    return Format("%{}:{}({})", value.name, ValueKindName(value.kind), ShortName(value.dtype));
  return Format("%{}:{}{}{}", value.name, ShortName(value.dtype),
                value.shape ? value.shape->ToString() : "[*]",
                value.quant ? value.quant->ToString() : "");
}

template <typename T>
std::string ElementsAs(const Tensor& tensor) {
  Tensor converted(DTypeOf<T>, tensor.shape());
  ConvertTensor(tensor.view(), converted.mutable_view());
  return Join(converted.span<T>(), ", ", ToText<T>);
}

// The beginning of a string, with what cannot be printed as escapes.
std::string Quoted(std::string_view text) {
  constexpr size_t kShownCharacters = 32;
  const std::string shown = absl::CHexEscape(std::string(text.substr(0, kShownCharacters)));
  return Format("'{}{}'", shown, text.size() > kShownCharacters ? "..." : "");
}

std::string Elements(const Tensor& tensor) {
  if (tensor.elements() > kShownElements) return "...";
  if (tensor.dtype() == DType::kString) return Join(tensor.span<std::string_view>(), ", ", Quoted);
  if (tensor.dtype() == DType::kF64) return ElementsAs<double>(tensor);
  if (tensor.dtype() == DType::kU64) return ElementsAs<uint64_t>(tensor);
  return IsFloat(tensor.dtype()) ? ElementsAs<float>(tensor) : ElementsAs<int64_t>(tensor);
}

struct AttributeText {
  std::string operator()(int64_t v) const { return ToText(v); }
  std::string operator()(float v) const { return ToText(v); }
  std::string operator()(const std::string& v) const { return Format("'{}'", v); }
  std::string operator()(const Subgraph& v) const {
    return Format("graph '{}' of {} nodes", v->name, v->order().size());
  }
  std::string operator()(const ValueType& v) const {
    return Format("{} of {}", ValueKindName(v.kind), ShortName(v.dtype));
  }
  std::string operator()(const Tensor& v) const {
    return Format("{}{}({})", ShortName(v.dtype()), v.shape().ToString(), Elements(v));
  }
  template <typename T>
  std::string operator()(const std::vector<T>& v) const {
    return Format("[{}]", Join(v, ",", ToText<T>));
  }
};

std::string AttributeList(const Attributes& attributes) {
  if (attributes.size() == 0) return "";
  const auto text = [](const auto& entry) {
    return Format("{}={}", entry.first, std::visit(AttributeText(), entry.second));
  };
  return Format(" {{{}}}", Join(attributes, ", ", text));
}

std::string PostOpText(const Graph& graph, const Node& node, const PostOp& post_op) {
  using Kind = PostOp::Kind;
  const std::string_view name = PostOpName(post_op.kind);
  switch (post_op.kind) {
    case Kind::kAdd:
    case Kind::kMul: {
      const ValueId operand = post_op.operand < 0 ? kNone : node.input(post_op.operand);
      return Format("{}({})", name, Reference(graph, operand));
    }
    case Kind::kLeakyRelu:
    case Kind::kSwish:
    case Kind::kElu:
      return Format("{}({})", name, post_op.alpha);
    case Kind::kClip:
    case Kind::kHardSigmoid:
      return Format("{}({}, {})", name, post_op.alpha, post_op.beta);
    default:
      return std::string(name);
  }
}

std::string NodeLine(const Graph& graph, const Node& node) {
  std::string line = Format(
      "  {} = {}({}){}", Join(node.outputs, ", ", [&](ValueId id) { return Typed(graph, id); }),
      QualifiedOp(node), Join(node.inputs, ", ", [&](ValueId id) { return Reference(graph, id); }),
      AttributeList(node.attributes));
  for (const PostOp& post_op : node.post_ops) line += " + " + PostOpText(graph, node, post_op);
  if (node.in_bf16) line += " in bf16";
  return line;
}

// The sub-graphs of a node, which follow the graph that it stands in.
std::string Bodies(const Node& node) {
  std::string text;
  for (const auto& [name, value] : node.attributes) {
    if (const Subgraph* body = std::get_if<Subgraph>(&value))
      text += Format("{} of {}: {}", name, Describe(node), Dump(**body));
  }
  return text;
}

}  // namespace

std::string_view PostOpName(PostOp::Kind kind) {
  using Kind = PostOp::Kind;
  switch (kind) {
    case Kind::kRelu:
      return "relu";
    case Kind::kLeakyRelu:
      return "leaky_relu";
    case Kind::kClip:
      return "clip";
    case Kind::kSigmoid:
      return "sigmoid";
    case Kind::kHardSigmoid:
      return "hard_sigmoid";
    case Kind::kHardSwish:
      return "hard_swish";
    case Kind::kSwish:
      return "swish";
    case Kind::kTanh:
      return "tanh";
    case Kind::kElu:
      return "elu";
    case Kind::kSoftplus:
      return "softplus";
    case Kind::kGeluErf:
      return "gelu_erf";
    case Kind::kGeluTanh:
      return "gelu_tanh";
    case Kind::kAdd:
      return "add";
    case Kind::kMul:
      return "mul";
  }
  return "unknown";
}

std::string_view ValueKindName(ValueKind kind) {
  switch (kind) {
    case ValueKind::kTensor:
      return "tensor";
    case ValueKind::kSequence:
      return "sequence";
    case ValueKind::kOptionalTensor:
      return "optional tensor";
    case ValueKind::kOptionalSequence:
      return "optional sequence";
  }
  return "unknown";
}

std::string Describe(const Node& node) {
  return Format("{} '{}' (opset {})", QualifiedOp(node), node.name, node.version);
}

std::string Dump(const Graph& graph) {
  std::string text = Format("graph '{}'\n", graph.name);
  for (const ValueId id : graph.inputs) text += Format("input {}\n", Typed(graph, id));
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(id);
    if (!value.is_constant()) continue;
    text += Format("constant {} ({})\n", Typed(graph, id), Elements(value.constant));
  }
  for (const NodeId id : graph.order()) text += NodeLine(graph, graph.node(id)) + "\n";
  for (const ValueId id : graph.outputs) text += Format("output {}\n", Typed(graph, id));
  for (const NodeId id : graph.order()) text += Bodies(graph.node(id));
  return text;
}

}  // namespace octet
