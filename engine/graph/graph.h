// The model as Octet rewrites it: values and nodes by id.
//
// Values carry a *stored* element type. A value with `quant` set stands for reals through
// real = scale * (q - zero_point): its integers are "typed int8 values", and a node that reads or writes
// such a value computes on the reals that it stands for (ops/reference_step.h is the oracle of that
// sentence). A value stored as BF16 or F16 stands for its widened reals in the same way. So one Conv
// node means int8, bf16 or fp32 convolution by the types of its values alone, and "Q/DQ -> int8" is a
// change of types, not of operators.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/attributes.h"
#include "engine/graph/precision.h"
#include "engine/tensor/quant_params.h"
#include "engine/tensor/tensor.h"

namespace octet {

using ValueId = int32_t;
using NodeId = int32_t;
/// Stands for an absent optional input or output, and for "no producer".
inline constexpr int32_t kNone = -1;

/// ONNX's default operator domain ("ai.onnx"), spelled as the empty string; and Octet's own, for
/// operators that only passes create (see engine/README.md for each one's definition).
inline constexpr std::string_view kOnnxDomain = "";
inline constexpr std::string_view kMicrosoftDomain = "com.microsoft";
inline constexpr std::string_view kMlDomain = "ai.onnx.ml";
inline constexpr std::string_view kOctetDomain = "octet";

/// How many of a node's last inputs its sub-graphs capture: an attribute that only the reader writes. They are the last
/// inputs of each sub-graph, too, in the same order, so that a capture is an edge like any other.
inline constexpr std::string_view kCaptures = "octet_captures";

/// The key of an ONNX node's metadata that says in which arithmetic a node of a mixed int8 file computes, and the value that the
/// reader knows. Others are somebody else's, or of a later version, and are passed over, as ONNX asks of metadata.
inline constexpr std::string_view kComputeKey = "octet.compute";
inline constexpr std::string_view kComputeBf16 = "bf16";

/// One tensor of the graph (or sequence, or optional): an input, a constant, or one output of one node.
struct Value {
  std::string name;
  ValueKind kind = ValueKind::kTensor;
  DType dtype = DType::kUndefined;  ///< Of its tensors' elements; kUndefined until inferred.
  std::optional<Shape>
      shape;  ///< nullopt while even the rank is unknown; extents may be kUnknownDim.
  std::optional<QuantParams>
      quant;        ///< Set on typed int8 values (dtype U8 or I8, or I32 for a bias).
  Tensor constant;  ///< The elements when the value is constant, else an empty handle.

  bool is_tensor() const { return kind == ValueKind::kTensor; }
  bool is_constant() const { return !constant.empty_handle(); }
  bool has_static_shape() const { return shape && shape->is_static(); }
};

/// What a fused node does to its result before it is stored, in order, computed in float.
struct PostOp {
  enum class Kind : uint8_t {
    kRelu,
    kLeakyRelu,  ///< alpha
    kClip,       ///< [alpha, beta]
    kSigmoid,
    kHardSigmoid,  ///< max(0, min(1, alpha * x + beta))
    kHardSwish,
    kSwish,  ///< x * sigmoid(alpha * x)
    kTanh,
    kElu,  ///< alpha
    kSoftplus,
    kGeluErf,
    kGeluTanh,
    kAdd,  ///< + node.inputs[operand]
    kMul,  ///< * node.inputs[operand]
  };
  Kind kind;
  float alpha = 0;
  float beta = 0;
  int operand =
      kNone;  ///< Index into node.inputs for kAdd and kMul, broadcast to the node's output.
  bool operator==(const PostOp&) const = default;
};
std::string_view PostOpName(PostOp::Kind kind);

/// One operation. Inputs and outputs may contain kNone for absent optional ones.
struct Node {
  std::string name;
  std::string op;      ///< "Conv".
  std::string domain;  ///< kOnnxDomain for ONNX's own.
  int version = 1;     ///< Opset of `domain` that the model imports; selects the definition.
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  Attributes attributes;
  std::vector<PostOp> post_ops;
  /// Stays in float where the model runs in int8, and asks for BF16 arithmetic there (kComputeKey); lower_bf16 gives it the types.
  bool in_bf16 = false;

  ValueId input(size_t i) const { return i < inputs.size() ? inputs[i] : kNone; }
  ValueId output(size_t i) const { return i < outputs.size() ? outputs[i] : kNone; }
  bool is(std::string_view op_name, std::string_view op_domain = kOnnxDomain) const {
    return op == op_name && domain == op_domain;
  }
};

/// Values and nodes by dense id; ids stay valid until Compact(). Copying is cheap in bytes: constants
/// are shared. Thread-safety: const use is safe from several threads.
class Graph {
 public:
  std::string name;
  std::vector<ValueId> inputs;  ///< Without initializers.
  std::vector<ValueId> outputs;
  std::map<std::string, std::string> metadata;  ///< ONNX metadata_props.
  /// widen_reals has run: what is stored as BF16 or F16 inside is so by a later pass, not by the model.
  bool reals_widened = false;
  /// Bytes by which folding has made constants more than they were, over all runs of the passes: for layers to multiply by,
  /// and others.
  size_t made_weight_bytes = 0;
  size_t made_bytes = 0;

  ValueId AddValue(Value value);
  /// Adds a constant value named after `hint`, made unique.
  ValueId AddConstant(std::string_view hint, Tensor tensor,
                      std::optional<QuantParams> quant = std::nullopt);
  /// Adds a node at the end of order(); its outputs become produced by it.
  NodeId AddNode(Node node);
  /// Adds a node just before `position` in order().
  NodeId InsertNodeBefore(NodeId position, Node node);
  NodeId InsertNodeAfter(NodeId position, Node node);

  int value_count() const { return static_cast<int>(values_.size()); }
  const Value& value(ValueId id) const { return values_[id].value; }
  /// For names, types, shapes, quantization, constants; edges change through the functions below.
  Value& mutable_value(ValueId id) {
    if (values_[id].listed) MarkUnlisted(id);
    return values_[id].value;
  }
  const Node& node(NodeId id) const { return nodes_[id]; }
  /// For attributes, post-ops, op, name and version; edges change through the functions below.
  Node& mutable_node(NodeId id) { return nodes_[id]; }

  /// Live nodes, producers before consumers (after Sort(), and kept so by the Insert functions).
  std::span<const NodeId> order() const { return order_; }
  /// A snapshot of order() for loops that add or remove nodes; skip those for which !alive(id).
  std::vector<NodeId> OrderSnapshot() const { return order_; }
  bool alive(NodeId id) const { return alive_[id]; }

  NodeId producer(ValueId id) const { return values_[id].producer; }
  /// Nodes that read the value, once per input slot that reads it, in no particular order.
  std::span<const NodeId> consumers(ValueId id) const { return values_[id].consumers; }
  bool is_graph_output(ValueId id) const;
  bool is_graph_input(ValueId id) const;
  /// The only node that reads the value, when there is exactly one reading slot and the value is no
  /// graph output; else kNone.
  NodeId SoleConsumer(ValueId id) const;
  /// By name, kNone when there is none. Linear: for tests and tools.
  ValueId FindValue(std::string_view name) const;
  NodeId FindNode(std::string_view name) const;

  void SetInput(NodeId node, size_t slot, ValueId value);
  size_t AppendInput(NodeId node, ValueId value);
  void SetOutput(NodeId node, size_t slot, ValueId value);
  /// Every reader of `from`, and the graph's outputs, read `to` instead. A graph output's name moves
  /// with it, so that the graph's interface stays the same; where `to` cannot take the name because it is a
  /// graph input or another graph output, an Identity of it takes the name.
  void ReplaceUses(ValueId from, ValueId to);
  /// Removes the node; its outputs lose their producer.
  void RemoveNode(NodeId id);
  /// Removes nodes whose outputs nobody reads, and constants that nobody reads. Returns how many nodes.
  int RemoveDead();
  /// Restores producers-before-consumers. INVALID_ARGUMENT naming a node on the cycle when cyclic.
  absl::Status Sort();
  /// A name that no value has yet, and that this function has not given before to somebody who has yet to use it.
  std::string UniqueName(std::string_view hint);

 private:
  NodeId Register(Node node);
  void MarkUnlisted(ValueId id);
  void Unlink(NodeId id);
  ValueId AddIdentity(ValueId of);
  absl::Status CycleError(const std::vector<int>& waiting) const;

  struct Entry {
    Value value;
    NodeId producer = kNone;
    std::vector<NodeId> consumers;
    bool listed = false;  ///< names_ has its name.
  };
  std::vector<Entry> values_;
  std::vector<Node> nodes_;
  std::vector<bool> alive_;
  std::vector<NodeId> order_;
  std::unordered_set<std::string> names_;  ///< Taken, but for those of unlisted_ values.
  std::vector<ValueId> unlisted_;          ///< New, or perhaps renamed.
  int next_unique_ = 0;
};

/// Checks the graph's invariants: ids in range, edges consistent in both directions, one producer per
/// value, order() topological, constants match dtype and shape, quantization has scales that fit the
/// axis, post-op operands exist. INTERNAL naming the node or value on the first violation.
absl::Status Verify(const Graph& graph);

/// A stable text form for tests, `octet inspect` and bisection: one line per node,
/// "%out:f32[1,64,56,56] = Conv(%x, %w) {strides=[1,1]} + relu".
std::string Dump(const Graph& graph);

/// True when a value that the node reads or writes has elements of DType::kString. Nothing but a program (plan/) runs such
/// a node, and no pass computes it.
bool TouchesStrings(const Graph& graph, const Node& node);

/// "Conv 'layer1/conv' (opset 13)": how every message names a node.
std::string Describe(const Node& node);

}  // namespace octet
