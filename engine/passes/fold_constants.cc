// fold_constants: evaluates what depends on constants alone.
//
//   c0:f32 (constant) --\                                        Shape(x:f32[8,3]) -> i64[2]
//                        Add --> y:f32          =>  y (constant)                    => i64[2] {8, 3} (constant)
//   c1:f32 (constant) --/
//
// DequantizeLinear of 8-bit constants stays: import_qdq makes typed weights of it. But for one in blocks, which no kernel takes the
// integers of, unless 4 bits hold them (pack_four_bits): it becomes reals, once and not each run. Biases (I32) become F32, and
// so do weights stored as F16 or BF16 behind a Cast: storage precisions, computed in F32 or BF16 later.
// Nodes that make a constant much larger than what they read (Expand, ConstantOfShape) stay when it is big, unless a
// layer multiplies by it: weights are packed once, and what stays a node is computed, and multiplied by slowly, each run.
// Strings stay with the nodes that make and read them.
#include <algorithm>
#include <optional>
#include <span>
#include <vector>

#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "engine/passes/four_bit_weights.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// A constant up to this size may be made out of nothing.
constexpr size_t kAlwaysFoldBytes = size_t{1} << 20;
// A larger one may be this many times as large as the constants that it comes from (F16 -> F32 is 2).
constexpr size_t kMayGrow = 2;
// Weights that are made out of nothing, all of a graph together: as much as a file could hold written out.
constexpr size_t kMadeWeightsBytes = size_t{1} << 30;
// Other constants by which a graph may grow, beside once more what it has: F16 -> F32.
constexpr size_t kMadeBytes = size_t{1} << 26;
// Shapes and the like, which never count.
constexpr size_t kSmallBytes = size_t{1} << 12;
// Changes of shape behind which a layer is looked for: real models have one or two, a hostile one any number.
constexpr size_t kMaxMovements = 16;

bool ReadsOnlyConstants(const Graph& graph, const Node& node) {
  return std::ranges::all_of(
      node.inputs, [&](ValueId id) { return id == kNone || graph.value(id).is_constant(); });
}

// Shape and Size depend on the extents of their input alone.
bool AsksForKnownExtents(const Graph& graph, const Node& node) {
  if (!node.is("Shape") && !node.is("Size")) return false;
  return node.input(0) != kNone && graph.value(node.input(0)).has_static_shape();
}

bool IsInBlocks(const Node& node) {
  return node.is("DequantizeLinear") && node.attributes.IntOr("block_size", 0) != 0;
}

bool IsQuantizedWeight(const Graph& graph, const Node& node) {
  return node.is("DequantizeLinear") && node.input(0) != kNone && !IsInBlocks(node) &&
         IsInt8(graph.value(node.input(0)).dtype);
}

// What a layer multiplies by, as it is or behind changes of shape.
bool IsWeights(const Graph& graph, ValueId id) {
  std::vector<ValueId> found = {id};
  for (size_t i = 0; i < found.size(); ++i) {
    for (const NodeId reader : graph.consumers(found[i])) {
      const Node& node = graph.node(reader);
      const bool multiplies =
          node.is("Conv") || node.is("ConvTranspose") || node.is("Gemm") || node.is("MatMul");
      if (multiplies && node.input(1) == found[i]) return true;
      const bool moves = node.is("Reshape") || node.is("Transpose");
      if (moves && node.input(0) == found[i] && found.size() <= kMaxMovements)
        found.push_back(node.output(0));
    }
  }
  return false;
}

// By how much a graph's constants may still grow.
class Budget {
 public:
  explicit Budget(Graph& graph) : graph_(graph) {
    size_t held = 0;
    for (ValueId id = 0; id < graph.value_count(); ++id) {
      if (graph.value(id).is_constant()) held += graph.value(id).constant.bytes();
    }
    const size_t made = graph.made_bytes + graph.made_weight_bytes;
    most_ = kMadeBytes + (held > made ? held - made : 0);
  }

  size_t weights_left() const {
    return kMadeWeightsBytes - std::min(kMadeWeightsBytes, graph_.made_weight_bytes);
  }
  void TakeWeights(size_t bytes) { graph_.made_weight_bytes += bytes; }

  // Whether there is room for `written` bytes instead of the constants that the node alone reads; takes it.
  bool Take(const Node& node, size_t written) {
    if (written <= kSmallBytes) return true;
    size_t freed = 0;
    for (const ValueId id : node.inputs) {
      if (id != kNone && graph_.SoleConsumer(id) != kNone && graph_.value(id).is_constant())
        freed += graph_.value(id).constant.bytes();
    }
    const size_t grown = written > freed ? written - freed : 0;
    if (graph_.made_bytes + grown > most_) return false;
    graph_.made_bytes += grown;
    return true;
  }

 private:
  Graph& graph_;
  size_t most_ = 0;
};

// What the node makes is taken off the budget.
bool MayFold(const Graph& graph, const Node& node, Budget& budget) {
  const OpDef* def = FindOp(node);
  if (def == nullptr || def->kernel == nullptr || def->traits.no_fold ||
      IsQuantizedWeight(graph, node))
    return false;
  if (!ReadsOnlyConstants(graph, node) && !AsksForKnownExtents(graph, node)) return false;
  if (TouchesStrings(graph, node) && !AsksForKnownExtents(graph, node)) return false;
  size_t read = 0;
  for (const ValueId id : node.inputs) {
    if (id != kNone && graph.value(id).is_constant()) read += graph.value(id).constant.bytes();
  }
  // What a Constant holds is there, as an initializer would be.
  const bool is_there = node.is("Constant");
  const size_t usual = is_there ? SIZE_MAX : std::max(kAlwaysFoldBytes, kMayGrow * read);
  const bool is_weights = node.outputs.size() == 1 && node.outputs[0] != kNone &&
                          (IsInBlocks(node) || IsWeights(graph, node.outputs[0]));
  const size_t most = is_weights ? std::max(usual, budget.weights_left()) : usual;
  size_t written = 0;
  for (const ValueId id : node.outputs) {
    if (id == kNone) continue;
    const Value& value = graph.value(id);
    // A graph output keeps its node: somebody has to write it into the answer.
    if (!value.has_static_shape() || value.dtype == DType::kUndefined || graph.is_graph_output(id))
      return false;
    if (!FitsInto(*value.shape, SizeOf(value.dtype), most)) return false;
    written += TensorSpec{value.dtype, *value.shape}.bytes();
  }
  if (written > most) return false;
  if (is_there || (written <= usual && budget.Take(node, written))) return true;
  if (!is_weights || written > budget.weights_left()) return false;
  budget.TakeWeights(written);
  return true;
}

// Whether a node whose outputs' extents only the data decide reads constants alone. Its outputs are no larger than what
// constants it reads, but for the coordinates of NonZero.
bool MayEvaluate(const Graph& graph, const Node& node, Budget& budget) {
  const OpDef* def = FindOp(node);
  if (def == nullptr || def->evaluate == nullptr || def->kernel != nullptr) return false;
  if (def->traits.no_fold || node.inputs.empty() || !ReadsOnlyConstants(graph, node)) return false;
  if (TouchesStrings(graph, node)) return false;
  size_t read = 0;
  for (const ValueId id : node.inputs) {
    if (id != kNone) read += graph.value(id).constant.bytes();
  }
  const bool answers = std::ranges::any_of(
      node.outputs, [&](ValueId id) { return id != kNone && graph.is_graph_output(id); });
  return read <= kAlwaysFoldBytes && !answers && budget.Take(node, read);
}

absl::Status EvaluateInto(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  std::vector<Datum> read(node.inputs.size());
  std::vector<const Datum*> inputs;
  for (size_t i = 0; i < read.size(); ++i) {
    if (node.inputs[i] != kNone) read[i] = Datum::Of(graph.value(node.inputs[i]).constant);
    inputs.push_back(node.inputs[i] == kNone ? nullptr : &read[i]);
  }
  absl::StatusOr<std::vector<Datum>> results = FindOp(node)->evaluate(node, inputs);
  if (!results.ok()) return Annotate(results.status(), Describe(node));
  graph.RemoveNode(id);
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] == kNone) continue;
    Value& value = graph.mutable_value(node.outputs[i]);
    value.constant = std::move((*results)[i].tensor);
    value.shape = value.constant.shape();
  }
  return absl::OkStatus();
}

absl::Status Fold(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  OCTET_ASSIGN_OR_RETURN(const Kernel kernel, MakeReferenceKernel(graph, node));
  std::vector<ConstTensorView> inputs;
  for (const ValueId v : node.inputs) {
    if (v == kNone) {
      inputs.push_back({});
    } else if (const Value& value = graph.value(v); value.is_constant()) {
      inputs.push_back(value.constant.view());
    } else {
      inputs.push_back({nullptr, {value.dtype, *value.shape}});
    }
  }
  std::vector<Tensor> results;
  std::vector<TensorView> outputs;
  for (const ValueId v : node.outputs) {
    results.push_back(v == kNone ? Tensor() : Tensor(graph.value(v).dtype, *graph.value(v).shape));
    outputs.push_back(v == kNone ? TensorView() : results.back().mutable_view());
  }
  OCTET_RETURN_IF_ERROR(Annotate(kernel(inputs, outputs), Describe(node)));
  const std::vector<ValueId> values = node.outputs;
  graph.RemoveNode(id);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] != kNone) graph.mutable_value(values[i]).constant = std::move(results[i]);
  }
  return absl::OkStatus();
}

// What a walk has made known so far: constants, and the shapes that follow from them.
class Findings {
 public:
  explicit Findings(const Graph& graph) : found_(graph.value_count()) {}

  void Add(std::span<const ValueId> values) {
    for (const ValueId id : values) {
      if (id != kNone) found_[id] = true;
    }
  }

  // Infers the node anew where it reads one, so that what waits for its shapes need not wait for another walk: in a network whose layers
  // each slice by the shape of what the last one made, that would be a walk for each layer.
  absl::Status PassOn(Graph& graph, NodeId node) {
    const auto found = [&](ValueId id) { return id != kNone && found_[id]; };
    if (std::ranges::none_of(graph.node(node).inputs, found)) return absl::OkStatus();
    std::vector<std::optional<Shape>> before;
    for (const ValueId id : graph.node(node).outputs)
      before.push_back(id == kNone ? std::nullopt : graph.value(id).shape);
    OCTET_RETURN_IF_ERROR(InferNode(graph, node));
    for (size_t i = 0; i < before.size(); ++i) {
      const ValueId id = graph.node(node).outputs[i];
      if (id != kNone && graph.value(id).shape != before[i]) found_[id] = true;
    }
    return absl::OkStatus();
  }

 private:
  std::vector<bool> found_;
};

}  // namespace

absl::StatusOr<int> FoldConstants(Graph& graph, const PassContext& context) {
  int folded = 0;
  const FourBitProducts products = FourBitProductsOf(context);
  Budget budget(graph);
  Findings findings(graph);
  for (const NodeId id : graph.OrderSnapshot()) {
    OCTET_RETURN_IF_ERROR(findings.PassOn(graph, id));
    const std::vector<ValueId> outputs = graph.node(id).outputs;
    if (MayEvaluate(graph, graph.node(id), budget)) {
      OCTET_RETURN_IF_ERROR(EvaluateInto(graph, id));
    } else if (!StaysInFourBits(graph, id, products) && MayFold(graph, graph.node(id), budget)) {
      OCTET_RETURN_IF_ERROR(Fold(graph, id));
    } else {
      continue;
    }
    findings.Add(outputs);
    ++folded;
  }
  return folded;
}

}  // namespace octet
