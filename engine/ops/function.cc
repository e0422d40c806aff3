#include "engine/ops/function.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Operators of a body that are younger than the opset that it is written in, as scales of blocks are, too: the opset of their definition.
int BodyOpset(const Node& function, const Node& node) {
  const std::string_view domain = node.domain;
  const std::string_view op = node.op;
  if (domain != kOnnxDomain) return 1;
  if (op == "DequantizeLinear" && node.attributes.has("block_size")) return 21;
  const bool legacy = function.domain == kOnnxDomain && function.version < kOldestKeptOpset;
  if (legacy && FindOp(domain, op, kOldestKeptOpset) != nullptr) return kOldestKeptOpset;
  return FindOp(domain, op, kFunctionOpset) != nullptr ? kFunctionOpset : 20;
}

}  // namespace

absl::StatusOr<FunctionBody> FunctionBody::Make(const Node& node,
                                                std::vector<std::optional<Value>> inputs) {
  FunctionBody body(node);
  for (std::optional<Value>& input : inputs) {
    body.inputs_.push_back(input ? body.graph_.AddValue(*std::move(input)) : kNone);
  }
  body.node_.inputs = body.inputs_;
  const OpDef* def = FindOp(node);
  OCTET_RETURN_IF_ERROR(def->expand(body));
  OCTET_RETURN_IF_ERROR(body.status_);
  for (size_t i = 0; !body.postponed() && i < node.outputs.size(); ++i) {
    if (body.wants(i) && body.output(i) == kNone) return Unimplemented("unsupported output {}", i);
  }
  return body;
}

absl::Status FunctionBody::ExpectInputs(size_t min, size_t max) const {
  size_t present = 0;
  while (has(present)) ++present;
  if (present >= min && inputs_.size() <= max) return absl::OkStatus();
  return InvalidArgument("expected {} to {} inputs, got {}", min, max, inputs_.size());
}

std::vector<FunctionBody::Attribute> FunctionBody::Given(
    std::initializer_list<std::string_view> names) const {
  std::vector<Attribute> given;
  for (const auto& [name, value] : attributes()) {
    if (std::ranges::contains(names, name)) given.emplace_back(name, value);
  }
  return given;
}

int FunctionBody::rank(ValueId id) const {
  return id == kNone || !graph_.value(id).shape ? -1 : graph_.value(id).shape->rank();
}

int64_t FunctionBody::extent(ValueId id, int axis) const {
  const int axes = rank(id);
  if (axis < 0) axis += axes;
  return axis < 0 || axis >= axes ? kUnknownDim : (*graph_.value(id).shape)[axis];
}

std::vector<ValueId> FunctionBody::Ops(std::string_view op, std::vector<ValueId> inputs,
                                       size_t outputs, const std::vector<Attribute>& attributes) {
  Node node;
  const size_t colon = op.find(':');
  node.domain = colon == std::string_view::npos ? kOnnxDomain : op.substr(0, colon);
  node.op = colon == std::string_view::npos ? op : op.substr(colon + 1);
  node.name = node_.name;
  node.inputs = std::move(inputs);
  while (!node.inputs.empty() && node.inputs.back() == kNone) node.inputs.pop_back();
  for (const auto& [name, value] : attributes) node.attributes.Set(std::string(name), value);
  node.version = BodyOpset(node_, node);
  for (size_t i = 0; i < outputs; ++i) node.outputs.push_back(NewValue(node.op));
  std::vector<ValueId> made = node.outputs;
  Add(std::move(node));
  return made;
}

void FunctionBody::Name(ValueId made, std::string_view part) {
  graph_.mutable_node(graph_.producer(made)).name = Format("{}/{}", node_.name, part);
}

void FunctionBody::Become(Node node) {
  node.version = BodyOpset(node_, node);
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    node.outputs[i] = wants(i) ? NewValue(node.op) : kNone;
  }
  outputs_ = node.outputs;
  Add(std::move(node));
}

ValueId FunctionBody::NewValue(std::string_view op) {
  return graph_.AddValue({.name = graph_.UniqueName(Format("{}_{}", node_.name, op))});
}

void FunctionBody::Add(Node node) {
  const NodeId id = graph_.AddNode(std::move(node));
  if (!status_.ok()) return;
  const OpDef* def = FindOp(graph_.node(id));
  if (def == nullptr) {
    status_ = UnsupportedOperator(graph_.node(id));
    return;
  }
  InferContext context(graph_, id);
  status_ = def->infer(context);
  // What stands for an operator with more outputs than it has must not look like a fault of the body.
  if (status_.ok()) status_ = context.CheckOutputsAreSet();
}

ValueId FunctionBody::Scalar(float value) { return Constant(Tensor::Scalar(value)); }

ValueId FunctionBody::Floats(Shape shape, std::span<const float> values) {
  return Constant(Tensor::From<float>(std::move(shape), values));
}

ValueId FunctionBody::Ints(std::span<const int64_t> values) {
  return Constant(Tensor::From<int64_t>(Shape{std::ssize(values)}, values));
}

ValueId FunctionBody::Constant(Tensor tensor) {
  return graph_.AddConstant(node_.name + "_constant", std::move(tensor));
}

void FunctionBody::Output(size_t i, ValueId value) {
  if (outputs_.size() <= i) outputs_.resize(i + 1, kNone);
  // An output is a value of its own: no input, and no other output.
  const bool taken = std::ranges::contains(outputs_, value);
  outputs_[i] = IsComputed(value) && !taken ? value : Op("Identity", {value});
}

absl::Status FunctionBody::Later(DType dtype, DType second) {
  later_ = dtype;
  second_later_ = second;
  return absl::OkStatus();
}

absl::Status InferFunction(InferContext& context) {
  std::vector<std::optional<Value>> inputs;
  for (size_t i = 0; i < context.input_count(); ++i) {
    inputs.push_back(context.has_input(i) ? std::optional(context.input(i)) : std::nullopt);
  }
  OCTET_ASSIGN_OR_RETURN(const FunctionBody body,
                         FunctionBody::Make(context.node(), std::move(inputs)));
  for (size_t i = 0; i < context.output_count(); ++i) {
    if (body.postponed()) {
      OCTET_RETURN_IF_ERROR(context.SetOutput(i, body.postponed_dtype(i), std::nullopt));
    } else if (body.output(i) != kNone) {
      const Value& value = body.value(body.output(i));
      OCTET_RETURN_IF_ERROR(context.SetOutput(i, value.dtype, value.shape));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Kernel> MakeFunctionKernel(const KernelContext& context) {
  std::vector<std::optional<Value>> values;
  for (const ConstTensorView& view : context.inputs) {
    std::optional<Value>& value = values.emplace_back();
    if (view.dtype() == DType::kUndefined) continue;
    value = Value{.name = Format("input{}", values.size()), .dtype = view.dtype()};
    value->shape = view.shape();
    if (view.data == nullptr) continue;
    value->constant = Tensor(view.dtype(), view.shape());
    if (view.bytes() != 0) std::memcpy(value->constant.mutable_data(), view.data, view.bytes());
  }
  OCTET_ASSIGN_OR_RETURN(const FunctionBody body,
                         FunctionBody::Make(context.node, std::move(values)));
  if (body.postponed())
    return Unimplemented("{}: its shape is known only when it runs", Describe(context.node));
  auto graph = std::make_shared<Graph>(body.graph());
  std::vector<size_t> given;
  for (size_t i = 0; i < body.inputs().size(); ++i) {
    const ValueId id = body.inputs()[i];
    if (id == kNone || graph->value(id).is_constant()) continue;
    given.push_back(i);
    graph->inputs.push_back(id);
  }
  std::vector<size_t> wanted;
  for (size_t i = 0; i < context.node.outputs.size(); ++i) {
    if (!body.wants(i)) continue;
    wanted.push_back(i);
    graph->outputs.push_back(body.output(i));
  }
  return Kernel([graph, given, wanted](std::span<const ConstTensorView> inputs,
                                       std::span<const TensorView> outputs) -> absl::Status {
    std::vector<Tensor> tensors;
    for (const size_t i : given) {
      tensors.emplace_back(inputs[i].dtype(), inputs[i].shape(), nullptr, inputs[i].data);
    }
    OCTET_ASSIGN_OR_RETURN(const std::vector<Tensor> results, Evaluate(*graph, tensors));
    for (size_t i = 0; i < wanted.size(); ++i) {
      const TensorView& to = outputs[wanted[i]];
      if (results[i].spec() != to.spec) return Internal("a body's output is not its node's");
      if (to.bytes() != 0) std::memcpy(to.data, results[i].data(), to.bytes());
    }
    return absl::OkStatus();
  });
}

}  // namespace octet
