// A graph of one node, for tests of operators: built in one expression, inferred, computed,
// lowered.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/status.h"

namespace octet::testing {

/// OneNode("Slice", 13).Input(x).Constant(starts).Constant(ends).Run() -> the output tensors.
class OneNode {
 public:
  OneNode(std::string op, int version, std::string_view domain = kOnnxDomain) {
    node_.name = "tested";
    node_.op = std::move(op);
    node_.version = version;
    node_.domain = std::string(domain);
  }

  /// A graph input that holds `tensor` when the node runs.
  OneNode& Input(Tensor tensor, std::optional<QuantParams> quant = std::nullopt) {
    const Shape shape = tensor.shape();
    return AddInput(std::move(tensor), shape, std::move(quant));
  }
  /// A graph input without elements, for shape inference alone.
  OneNode& Spec(DType dtype, std::optional<Shape> shape) {
    Value value{.name = Name("in"), .dtype = dtype, .shape = std::move(shape)};
    const ValueId id = graph_.AddValue(std::move(value));
    graph_.inputs.push_back(id);
    node_.inputs.push_back(id);
    return *this;
  }
  OneNode& Constant(Tensor tensor, std::optional<QuantParams> quant = std::nullopt) {
    node_.inputs.push_back(
        graph_.AddConstant(Name("constant"), std::move(tensor), std::move(quant)));
    return *this;
  }
  OneNode& Ints(std::vector<int64_t> values) {
    const Shape shape{static_cast<int64_t>(values.size())};
    return Constant(Tensor::From<int64_t>(shape, std::span<const int64_t>(values)));
  }
  OneNode& Absent() {
    node_.inputs.push_back(kNone);
    return *this;
  }
  OneNode& Set(std::string name, AttributeValue value) {
    node_.attributes.Set(std::move(name), std::move(value));
    return *this;
  }
  /// Appends a post-op; one with an operand reads the input that was added last.
  OneNode& Post(PostOp op) {
    if (op.kind == PostOp::Kind::kAdd || op.kind == PostOp::Kind::kMul)
      op.operand = static_cast<int>(node_.inputs.size()) - 1;
    node_.post_ops.push_back(op);
    return *this;
  }
  OneNode& Outputs(int count) {
    outputs_ = count;
    return *this;
  }
  /// Declares output 0 before inference, as a model or a pass does.
  OneNode& Declare(DType dtype, std::optional<Shape> shape,
                   std::optional<QuantParams> quant = std::nullopt) {
    declared_ = Value{.dtype = dtype, .shape = std::move(shape), .quant = std::move(quant)};
    return *this;
  }

  /// Builds the graph and infers its shapes.
  absl::StatusOr<Graph> Infer() const {
    Graph graph = graph_;
    Node node = node_;
    for (int i = 0; i < outputs_; ++i) {
      Value value;
      if (i == 0 && declared_) value = *declared_;
      value.name = "out" + std::to_string(i);
      const ValueId id = graph.AddValue(std::move(value));
      node.outputs.push_back(id);
      graph.outputs.push_back(id);
    }
    graph.AddNode(std::move(node));
    OCTET_RETURN_IF_ERROR(InferShapes(graph));
    return graph;
  }
  /// "[1,?,3]", or "unknown" without a rank, of output i; the error's message when inference fails.
  std::string InferredShape(int i = 0) const {
    const absl::StatusOr<Graph> graph = Infer();
    if (!graph.ok()) return std::string(Message(graph.status()));
    const auto& shape = graph->value(graph->outputs[static_cast<size_t>(i)]).shape;
    return shape ? shape->ToString() : "unknown";
  }
  /// Computes the outputs with the reference kernel.
  absl::StatusOr<std::vector<Tensor>> Run() const {
    OCTET_ASSIGN_OR_RETURN(const Graph graph, Infer());
    return Evaluate(graph, tensors_);
  }
  const std::vector<Tensor>& tensors() const { return tensors_; }

 private:
  std::string Name(std::string_view prefix) const {
    return std::string(prefix) + std::to_string(node_.inputs.size());
  }
  OneNode& AddInput(Tensor tensor, const Shape& shape, std::optional<QuantParams> quant) {
    Value value{
        .name = Name("in"), .dtype = tensor.dtype(), .shape = shape, .quant = std::move(quant)};
    const ValueId id = graph_.AddValue(std::move(value));
    graph_.inputs.push_back(id);
    node_.inputs.push_back(id);
    tensors_.push_back(std::move(tensor));
    return *this;
  }

  Graph graph_;
  Node node_;
  std::vector<Tensor> tensors_;
  int outputs_ = 1;
  std::optional<Value> declared_;
};

/// Elements of a tensor as a vector, for EXPECT_THAT.
template <typename T>
std::vector<T> Elements(const Tensor& tensor) {
  const auto span = tensor.span<T>();
  return {span.begin(), span.end()};
}

/// 0, 1, 2, ... in `shape`.
template <typename T>
Tensor Iota(Shape shape) {
  Tensor tensor(DTypeOf<T>, std::move(shape));
  T next{0};
  for (T& element : tensor.mutable_span<T>()) element = next, next = static_cast<T>(next + 1);
  return tensor;
}

}  // namespace octet::testing
