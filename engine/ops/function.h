// Operators that are defined by other operators, as ONNX's functions are: old opsets' forms, and what exporters and
// optimizers fuse. Shape inference, reference kernel and graph rewrite all follow from one body.
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/op.h"

namespace octet {

/// The opset that operators of opsets below it are rewritten to. Source: ONNX, Changelog.md.
inline constexpr int kOldestKeptOpset = 7;
/// The opset of the other bodies' operators, but for those that are younger.
inline constexpr int kFunctionOpset = 13;

/// The body of one node as a graph of its own, written by the operator's ExpandFn.
class FunctionBody {
 public:
  using Attribute = std::pair<std::string_view, AttributeValue>;

  /// Runs the ExpandFn of `node`'s operator on `inputs` (absent: nullopt). Requires: the operator is a function.
  /// Errors: those of the ExpandFn, and of inference over the body.
  static absl::StatusOr<FunctionBody> Make(const Node& node,
                                           std::vector<std::optional<Value>> inputs);

  const Node& node() const { return node_; }
  const Attributes& attributes() const { return node_.attributes; }
  bool has(size_t i) const { return input(i) != kNone; }
  ValueId input(size_t i) const { return i < inputs_.size() ? inputs_[i] : kNone; }
  /// Those of the node's attributes that are named and given, for an operator that has them, too.
  std::vector<Attribute> Given(std::initializer_list<std::string_view> names) const;
  /// INVALID_ARGUMENT unless the node has between `min` and `max` inputs, the first `min` of them present.
  absl::Status ExpectInputs(size_t min, size_t max) const;
  const Value& value(ValueId id) const { return graph_.value(id); }
  /// -1 while unknown.
  int rank(ValueId id) const;
  /// kUnknownDim when it, or the rank, is not known, or no such axis exists. Negative axes count from the end.
  int64_t extent(ValueId id, int axis) const;
  /// Whether somebody reads output `i`.
  bool wants(size_t i) const { return node_.output(i) != kNone; }

  /// Adds "Add" of ONNX's domain, or "octet:Swish", and infers it. An error is told when the body is complete.
  ValueId Op(std::string_view op, std::vector<ValueId> inputs,
             const std::vector<Attribute>& attributes = {}) {
    return Ops(op, std::move(inputs), 1, attributes).front();
  }
  std::vector<ValueId> Ops(std::string_view op, std::vector<ValueId> inputs, size_t outputs,
                           const std::vector<Attribute>& attributes = {});
  /// Errors of the node that makes `made` name it as this part of node(). Requires: made by Op.
  void Name(ValueId made, std::string_view part);
  /// The body is this one node, a changed copy of node(): the outputs are its outputs.
  void Become(Node node);
  ValueId Scalar(float value);
  ValueId Floats(Shape shape, std::span<const float> values);
  ValueId Ints(std::span<const int64_t> values);
  ValueId Ints(std::initializer_list<int64_t> values) {
    return Ints(std::span<const int64_t>(values.begin(), values.size()));
  }
  ValueId Constant(Tensor tensor);

  /// Output `i` of the node is `value`.
  void Output(size_t i, ValueId value);
  /// The body cannot be written before more of the extents are known; the outputs are of this type, but for the second one
  /// where `second` is given.
  absl::Status Later(DType dtype, DType second = DType::kUndefined);

  bool postponed() const { return later_ != DType::kUndefined; }
  DType postponed_dtype(size_t output) const {
    return output == 1 && second_later_ != DType::kUndefined ? second_later_ : later_;
  }
  const Graph& graph() const { return graph_; }
  std::span<const ValueId> inputs() const { return inputs_; }
  /// kNone for outputs that the body does not have.
  ValueId output(size_t i) const { return i < outputs_.size() ? outputs_[i] : kNone; }

 private:
  explicit FunctionBody(const Node& node) : node_(node) {}
  ValueId NewValue(std::string_view op);
  void Add(Node node);
  bool IsComputed(ValueId id) const { return graph_.producer(id) != kNone; }

  Node node_;
  Graph graph_;
  std::vector<ValueId> inputs_;
  std::vector<ValueId> outputs_;
  DType later_ = DType::kUndefined;
  DType second_later_ = DType::kUndefined;
  absl::Status status_;
};

/// Outputs as the body has them.
absl::Status InferFunction(InferContext& context);
/// Evaluates the body by reference kernels, node by node.
absl::StatusOr<Kernel> MakeFunctionKernel(const KernelContext& context);

/// A row of an operator table.
constexpr OpDef Function(std::string_view domain, std::string_view name, ExpandFn expand,
                         int since = 1, int until = INT_MAX) {
  return {.domain = domain,
          .name = name,
          .since = since,
          .until = until,
          .infer = InferFunction,
          .kernel = MakeFunctionKernel,
          .expand = expand};
}
/// The same of an operator that has traits: that takes or makes strings, say.
constexpr OpDef Function(std::string_view domain, std::string_view name, ExpandFn expand,
                         const OpTraits& traits) {
  OpDef def = Function(domain, name, expand);
  def.traits = traits;
  return def;
}

}  // namespace octet
