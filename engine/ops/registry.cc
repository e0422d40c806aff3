#include <algorithm>
#include <map>
#include <vector>

#include "engine/ops/op.h"
#include "engine/ops/op_list.h"
#include "engine/ops/post_ops.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Every definition by name. Built once, then read-only.
class Registry {
 public:
  static const Registry& Get() {
    static const Registry* const registry = new Registry;
    return *registry;
  }

  const OpDef* Find(std::string_view domain, std::string_view op, int version) const {
    const auto it = by_name_.find(std::pair(domain, op));
    if (it == by_name_.end()) return nullptr;
    for (const OpDef* def : it->second) {
      if (def->since <= version && version <= def->until) return def;
    }
    return nullptr;
  }

  std::span<const OpDef* const> all() const { return all_; }

 private:
  Registry() {
#define OCTET_ADD_FAMILY(Family) Add(Family##Ops());
    OCTET_OP_FAMILIES(OCTET_ADD_FAMILY)
#undef OCTET_ADD_FAMILY
  }

  void Add(std::span<const OpDef> family) {
    for (const OpDef& def : family) {
      all_.push_back(&def);
      by_name_[std::pair(def.domain, def.name)].push_back(&def);
    }
  }

  std::vector<const OpDef*> all_;
  std::map<std::pair<std::string_view, std::string_view>, std::vector<const OpDef*>> by_name_;
};

bool IsSmallReal(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

absl::Status CheckKinds(const Graph& graph, const Node& node, const OpDef& def) {
  if (def.traits.any_kind) return absl::OkStatus();
  for (const ValueId id : node.inputs) {
    if (id == kNone || graph.value(id).is_tensor()) continue;
    return InvalidArgument("{}: takes tensors, but input '{}' is of kind {}", Describe(node),
                           graph.value(id).name, ValueKindName(graph.value(id).kind));
  }
  return absl::OkStatus();
}

/// What an operator does not know as text it must not take for numbers.
absl::Status CheckStrings(const Graph& graph, const Node& node, const OpDef& def) {
  if (def.traits.strings || !TouchesStrings(graph, node)) return absl::OkStatus();
  return Unimplemented("{}: unsupported element type BYTES (strings)", Describe(node));
}

/// True when a value stored as `stored` can hold what inference calls `inferred`.
bool Holds(const Value& value, DType inferred) {
  if (value.dtype == inferred) return true;
  if (!IsSmallReal(inferred)) return false;
  return value.quant.has_value() || IsSmallReal(value.dtype);
}

}  // namespace

const OpDef* FindOp(std::string_view domain, std::string_view op, int version) {
  return Registry::Get().Find(domain, op, version);
}

const OpDef* FindOp(const Node& node) { return FindOp(node.domain, node.op, node.version); }

std::span<const OpDef* const> AllOps() { return Registry::Get().all(); }

absl::Status UnsupportedOperator(const Node& node) {
  return Unimplemented("unsupported operator {}{}{} (opset {}), node '{}'", node.domain,
                       node.domain.empty() ? "" : ":", node.op, node.version, node.name);
}

absl::StatusOr<uint64_t> InputsThatDecideShapes(Graph& graph, NodeId node) {
  const OpDef* def = FindOp(graph.node(node));
  if (def == nullptr) return UnsupportedOperator(graph.node(node));
  InferContext context(graph, node);
  OCTET_RETURN_IF_ERROR(def->infer(context));
  return context.asked();
}

absl::Status InferNode(Graph& graph, NodeId id) {
  const OpDef* def = FindOp(graph.node(id));
  if (def == nullptr) return UnsupportedOperator(graph.node(id));
  InferContext context(graph, id);
  OCTET_RETURN_IF_ERROR(CheckKinds(graph, graph.node(id), *def));
  OCTET_RETURN_IF_ERROR(CheckStrings(graph, graph.node(id), *def));
  // What an attribute has to say does not know its node.
  if (const absl::Status status = def->infer(context); !status.ok()) {
    const std::string node = Describe(graph.node(id));
    return Message(status).contains(node) ? status : Annotate(status, node);
  }
  OCTET_RETURN_IF_ERROR(context.CheckOutputsAreSet());
  return CheckStrings(graph, graph.node(id), *def);
}

absl::Status InferShapes(Graph& graph) {
  for (const NodeId id : graph.OrderSnapshot()) OCTET_RETURN_IF_ERROR(InferNode(graph, id));
  return absl::OkStatus();
}

size_t InferContext::input_count() const { return OwnInputCount(node()); }

const Tensor* InferContext::constant(size_t i) const {
  if (!has_input(i)) return nullptr;
  if (input(i).is_constant()) return &input(i).constant;
  asked_ |= uint64_t{1} << (i % 64);
  return nullptr;
}

std::optional<std::vector<int64_t>> InferContext::ConstantInts(size_t i) const {
  const Tensor* tensor = constant(i);
  if (tensor == nullptr) return std::nullopt;
  if (tensor->dtype() == DType::kI64) {
    const auto elements = tensor->span<int64_t>();
    return std::vector<int64_t>(elements.begin(), elements.end());
  }
  if (tensor->dtype() == DType::kI32) {
    const auto elements = tensor->span<int32_t>();
    return std::vector<int64_t>(elements.begin(), elements.end());
  }
  return std::nullopt;
}

absl::Status InferContext::SetOutput(size_t i, ValueType type, std::optional<Shape> shape) {
  if (type.kind == ValueKind::kTensor) return SetOutput(i, type.dtype, std::move(shape));
  set_outputs_ = std::max(set_outputs_, i + 1);
  const ValueId id = node().output(i);
  if (id == kNone) return absl::OkStatus();
  Value& value = graph_.mutable_value(id);
  if (value.dtype == DType::kUndefined) value.dtype = type.dtype;
  if (type.dtype != DType::kUndefined && value.dtype != type.dtype) {
    return Error(Format("output '{}' has element type {}, but the model declares {}", value.name,
                        DTypeName(type.dtype), DTypeName(value.dtype)));
  }
  value.kind = type.kind;
  value.shape = std::nullopt;
  return absl::OkStatus();
}

absl::Status InferContext::SetOutput(size_t i, DType dtype, std::optional<Shape> shape) {
  set_outputs_ = std::max(set_outputs_, i + 1);
  if (shape && !IsPossible(*shape)) {
    return Error(Format("output {} has an impossible shape: {}", i, shape->ToString()));
  }
  const ValueId id = node().output(i);
  if (id == kNone) return absl::OkStatus();
  Value& value = graph_.mutable_value(id);
  if (!value.is_tensor()) {
    return Error(Format("output '{}' is a tensor, but the model declares a value of kind {}",
                        value.name, ValueKindName(value.kind)));
  }
  if (value.dtype == DType::kUndefined) {
    value.dtype = dtype;
  } else if (!Holds(value, dtype)) {
    return Error(Format("output '{}' has element type {}, but the model declares {}", value.name,
                        DTypeName(dtype), DTypeName(value.dtype)));
  }
  if (!shape) return absl::OkStatus();
  if (!value.shape) {
    value.shape = std::move(shape);
    return absl::OkStatus();
  }
  bool agrees = value.shape->rank() == shape->rank();
  for (int d = 0; agrees && d < shape->rank(); ++d) {
    int64_t& known = (*value.shape)[d];
    if (known == kUnknownDim) known = (*shape)[d];
    agrees = (*shape)[d] == kUnknownDim || (*shape)[d] == known;
  }
  if (agrees) return absl::OkStatus();
  return Error(Format("output '{}' has shape {}, but the model declares {}", value.name,
                      shape->ToString(), value.shape->ToString()));
}

absl::Status InferContext::CheckOutputsAreSet() const {
  for (size_t i = set_outputs_; i < output_count(); ++i) {
    if (node().output(i) == kNone) continue;
    return Error(Format("the operator has {} outputs, not {}", set_outputs_, output_count()));
  }
  return absl::OkStatus();
}

absl::Status InferContext::Error(std::string_view message) const {
  return InvalidArgument("{}: {}", Describe(node()), message);
}

}  // namespace octet
