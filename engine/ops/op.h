// What one operator is to Octet. A family of operators is one file in this folder that ends in a table
// of OpDefs; op_list.h names the tables. Registry, documentation and conformance tests follow from it.
#pragma once

#include <climits>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/ops/step.h"
#include "engine/tensor/datum.h"

namespace octet {

/// What shape inference sees of a node, and where it puts its findings. Extents may be unknown.
class InferContext {
 public:
  InferContext(Graph& graph, NodeId node) : graph_(graph), id_(node) {}

  const Node& node() const { return graph_.node(id_); }
  const Attributes& attributes() const { return node().attributes; }
  /// Inputs of the operator itself: post-op operands, which follow them, do not count.
  size_t input_count() const;
  size_t output_count() const { return node().outputs.size(); }
  bool has_input(size_t i) const { return i < input_count() && node().input(i) != kNone; }
  /// Requires: has_input(i).
  const Value& input(size_t i) const { return graph_.value(node().input(i)); }
  /// The logical element type: F32 for a value with `quant`, else the stored one.
  DType dtype(size_t i) const { return input(i).quant ? DType::kF32 : input(i).dtype; }
  const std::optional<Shape>& shape(size_t i) const { return input(i).shape; }
  /// What is known so far of output `i`. Requires: the output is present.
  const Value& output(size_t i) const { return graph_.value(node().output(i)); }
  /// The elements of a constant input, or null when absent or not constant.
  const Tensor* constant(size_t i) const;
  /// The elements of a constant integer input (I32 or I64) as int64; nullopt when not constant.
  std::optional<std::vector<int64_t>> ConstantInts(size_t i) const;

  /// Records dtype and shape (nullopt: unknown rank) of an output, which may be absent. Known facts are refined, never
  /// forgotten. INVALID_ARGUMENT naming the node when they contradict what the model declares, or are of no tensor
  /// (negative extents, more elements or axes than any memory holds). An output with
  /// `quant`, or stored as BF16/F16 by a pass, keeps its stored dtype.
  absl::Status SetOutput(size_t i, DType dtype, std::optional<Shape> shape);
  /// The same for an output that may be of another kind; only tensors have a shape.
  absl::Status SetOutput(size_t i, ValueType type, std::optional<Shape> shape);
  /// INVALID_ARGUMENT when the node has an output that its operator did not set: nobody would compute it.
  absl::Status CheckOutputsAreSet() const;
  /// The inputs that are not constant and whose elements were asked for: what the outputs' shapes wait for. Bit i is
  /// input i.
  uint64_t asked() const { return asked_; }
  /// For what infers sub-graphs with the node's inputs.
  const Graph& graph() const { return graph_; }
  /// INVALID_ARGUMENT "<message>" prefixed with Describe(node).
  absl::Status Error(std::string_view message) const;

 private:
  Graph& graph_;
  NodeId id_;
  mutable uint64_t asked_ = 0;
  size_t set_outputs_ = 0;  ///< Outputs [0, set_outputs_) are the operator's.
};

/// Checks attributes, input count, element types and ranks, and infers the outputs.
using InferFn = absl::Status (*)(InferContext&);

/// What a kernel is made from: every shape static. Inputs that are constant show their elements
/// (`data` set), the others only their spec; an absent optional input has dtype kUndefined.
struct KernelContext {
  const Node& node;
  std::span<const ConstTensorView> inputs;
  std::span<const TensorSpec> outputs;
};

/// The reference computation: row-major, dense, plain C++ that can be read beside the specification. It
/// sees element types as ONNX defines them, but F16 and BF16 as F32; typed int8, bf16 values and post-ops are
/// wrapped around it by ops/reference_step.h. Attributes are parsed when the kernel is made, never when it runs.
/// Strings that it writes may point into its inputs and into what it holds itself: whoever runs it copies them.
/// Thread-safety: a Kernel is called from several threads at once.
using Kernel = std::function<absl::Status(std::span<const ConstTensorView> inputs,
                                          std::span<const TensorView> outputs)>;
using MakeKernelFn = absl::StatusOr<Kernel> (*)(const KernelContext&);

/// Computes outputs that only the data decide: extents that follow from elements, sequences, optionals. One input per
/// input slot, null where absent; one output per output slot. Element types, ranks and attributes have been inferred;
/// kinds and everything else are the data's. Strings of the outputs may point into the inputs.
/// Errors: INVALID_ARGUMENT for data that the operator does not take.
using EvaluateFn = absl::StatusOr<std::vector<Datum>> (*)(const Node& node,
                                                          std::span<const Datum* const> inputs);

/// Makes the fast step of a node, or UNIMPLEMENTED with the reason when this node cannot have one
/// (the certificate shows the reason and the reference kernel runs).
using LowerFn = absl::StatusOr<std::unique_ptr<Step>> (*)(const LowerContext&);

class FunctionBody;
/// Writes what an operator means in terms of others (ops/function.h).
using ExpandFn = absl::Status (*)(FunctionBody&);

/// Facts that passes use instead of lists of operator names of their own.
struct OpTraits {
  /// out[i] depends on in[i] alone, one input that matters, same shape (Relu, Clip, Sigmoid, ...).
  bool elementwise_unary = false;
  /// Elementwise over inputs with multidirectional broadcasting (Add, Mul, Where, ...).
  bool elementwise_broadcast = false;
  /// Output 0 has input 0's elements in the same row-major order (Reshape, Flatten, Identity, ...): the
  /// plan aliases the buffers.
  bool view = false;
  /// Moves or selects input elements without arithmetic, so quantized integers pass through unchanged
  /// (Reshape, Transpose, Slice, Gather, MaxPool, ...).
  bool data_movement = false;
  /// The kernel takes any stored element type as it is (Cast, Shape, Size): nothing is widened for it.
  bool any_types = false;
  /// The kernel takes typed values as their integers (octet:Table).
  bool stored_integers = false;
  /// Not to be folded into a constant (random, or larger than its inputs on purpose).
  bool no_fold = false;
  /// Takes and makes sequences and optionals, too.
  bool any_kind = false;
  /// Takes and makes tensors of strings, too: others never see them.
  bool strings = false;
  /// Runs sub-graphs (If, Loop, Scan, SequenceMap): plan/control_flow.h knows how.
  bool control = false;
  /// The fast form takes inputs without elements, too: a past of no positions, a part of a Concat.
  bool lowers_empty = false;
};

/// One operator over a range of opset versions.
struct OpDef {
  std::string_view domain;
  std::string_view name;
  int since = 1;        ///< First opset of the domain with this definition.
  int until = INT_MAX;  ///< Last opset with this definition.
  InferFn infer = nullptr;
  MakeKernelFn kernel = nullptr;
  LowerFn lower = nullptr;
  OpTraits traits = {};
  /// Null for operators with a kernel of their own. With `lower` beside it the node stays whole, and this says what it means.
  ExpandFn expand = nullptr;
  EvaluateFn evaluate = nullptr;  ///< Instead of a kernel; Identity and Cast have both.
};

/// The definition that `node` selects by domain, op and version; null when Octet has none.
const OpDef* FindOp(const Node& node);
const OpDef* FindOp(std::string_view domain, std::string_view op, int version);
/// All definitions, in list order: for the documentation table and the conformance runner.
std::span<const OpDef* const> AllOps();
/// UNIMPLEMENTED "unsupported operator com.microsoft:Attention (opset 1), node 'x'".
absl::Status UnsupportedOperator(const Node& node);

/// The inputs of a node (bit i is input i) that are not constant and whose elements its shapes follow from.
/// Requires: InferShapes has run on the graph.
absl::StatusOr<uint64_t> InputsThatDecideShapes(Graph& graph, NodeId node);

/// Runs infer for one node, or for every node in order. Errors: as InferFn, or UnsupportedOperator.
absl::Status InferNode(Graph& graph, NodeId node);
absl::Status InferShapes(Graph& graph);

}  // namespace octet
