#include "engine/train/start.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/ops/op.h"
#include "engine/passes/pass.h"
#include "engine/passes/quantization.h"
#include "engine/quantize/opset.h"
#include "engine/tensor/status.h"
#include "engine/train/network.h"

namespace octet::train {
namespace {

constexpr std::array<std::string_view, 5> kReadingPasses = {
    "raise_opset", "fold_constants", "inline_if", "remove_no_ops", "fold_batch_norm"};

std::string Names(const Graph& graph, const std::vector<ValueId>& ids) {
  std::string names;
  for (const ValueId id : ids)
    names += Format("{}'{}'", names.empty() ? "" : ", ", graph.value(id).name);
  return names;
}

// Extents that are not known agree with all.
bool Agree(const std::optional<Shape>& a, const std::optional<Shape>& b) {
  if (!a || !b) return true;
  if (a->rank() != b->rank()) return false;
  for (int axis = 0; axis < a->rank(); ++axis) {
    const int64_t left = (*a)[axis];
    const int64_t right = (*b)[axis];
    if (left != right && left != kUnknownDim && right != kUnknownDim) return false;
  }
  return true;
}

std::string TypeOf(const Value& value) {
  return Format("{} {}", DTypeName(value.dtype), value.shape ? value.shape->ToString() : "[...]");
}

// The values of `graph` with the names of the fp32 model's, in its order.
absl::StatusOr<std::vector<ValueId>> Matched(const Graph& graph, const std::vector<ValueId>& own,
                                             const Graph& fp32, const std::vector<ValueId>& theirs,
                                             std::string_view what) {
  std::vector<ValueId> matched;
  for (const ValueId id : theirs) {
    const auto found = std::ranges::find_if(
        own, [&](ValueId v) { return graph.value(v).name == fp32.value(id).name; });
    if (found == own.end() || own.size() != theirs.size()) {
      return InvalidArgument("it has the {}s {}, the fp32 model {}", what, Names(graph, own),
                             Names(fp32, theirs));
    }
    const Value& value = graph.value(*found);
    if (value.dtype != fp32.value(id).dtype || !Agree(value.shape, fp32.value(id).shape)) {
      return InvalidArgument("its {} '{}' is {}, the fp32 model's is {}", what, value.name,
                             TypeOf(value), TypeOf(fp32.value(id)));
    }
    matched.push_back(*found);
  }
  return matched;
}

// A constant that others read as well becomes this reader's own.
void Own(Graph& graph, NodeId reader, size_t slot) {
  const ValueId id = graph.node(reader).input(slot);
  if (id == kNone || !graph.value(id).is_constant() || graph.consumers(id).size() < 2) return;
  const std::string name = graph.value(id).name;
  const Tensor constant = graph.value(id).constant;
  graph.SetInput(reader, slot, graph.AddConstant(name, constant));
}

// The DequantizeLinear of a layer's weights, and its bias, are this layer's alone.
void OwnWeights(Graph& graph, NodeId layer) {
  const NodeId shared = DequantizerOfWeights(graph, graph.node(layer));
  if (shared == kNone) return;
  if (graph.consumers(graph.node(shared).outputs[0]).size() > 1) {
    Node copy = graph.node(shared);
    const Value& reals = graph.value(copy.outputs[0]);
    copy.outputs[0] = graph.AddValue(
        {.name = graph.UniqueName(reals.name), .dtype = reals.dtype, .shape = reals.shape});
    copy.name.clear();
    const ValueId own = copy.outputs[0];
    graph.InsertNodeBefore(layer, std::move(copy));
    graph.SetInput(layer, 1, own);
  }
  Own(graph, DequantizerOfWeights(graph, graph.node(layer)), 0);
  Own(graph, layer, 2);
}

bool SameReals(const Graph& graph, ValueId a, ValueId b) {
  if (a == b) return true;
  if (!graph.value(a).is_constant() || !graph.value(b).is_constant()) return false;
  const Tensor& left = graph.value(a).constant;
  const Tensor& right = graph.value(b).constant;
  return left.dtype() == DType::kF32 && right.dtype() == DType::kF32 &&
         std::ranges::equal(left.span<float>(), right.span<float>());
}

// A pair's scale is one constant that nothing else reads: what is learned is written there. A file may have one constant for the scales
// of many nodes, or several constants for those of one pair. Computed scales stay: that they cannot be learned, the network says.
void OwnScale(Graph& graph, NodeId quantize) {
  const ValueId scale = graph.node(quantize).input(1);
  if (scale == kNone || !graph.value(scale).is_constant()) return;
  const std::vector<NodeId> pair = [&] {
    const auto readers = graph.consumers(graph.node(quantize).outputs[0]);
    std::vector<NodeId> nodes(readers.begin(), readers.end());
    std::erase_if(nodes, [&](NodeId id) { return !graph.node(id).is("DequantizeLinear"); });
    nodes.push_back(quantize);
    return nodes;
  }();
  const bool shared = std::ranges::any_of(
      graph.consumers(scale), [&](NodeId id) { return !std::ranges::contains(pair, id); });
  const std::string name = graph.value(scale).name;
  const Tensor constant = graph.value(scale).constant;
  const ValueId own = shared ? graph.AddConstant(name, constant) : scale;
  for (const NodeId id : pair) {
    const ValueId read = graph.node(id).input(1);
    if (read != own && SameReals(graph, read, scale)) graph.SetInput(id, 1, own);
  }
}

// Reals that a layer adds, where the file has 8-bit integers; those of 32 bits are evaluated with other constants.
void FoldBias(Graph& graph, NodeId layer) {
  const ValueId bias = graph.node(layer).input(2);
  const NodeId producer = bias == kNone ? kNone : graph.producer(bias);
  if (producer != kNone) FoldDequantize(graph, producer);
}

}  // namespace

absl::Status ReadForTraining(Graph& graph, std::span<const std::string> disabled_passes) {
  return RunNamedPasses(graph, kReadingPasses, disabled_passes);
}

absl::StatusOr<Graph> ReadStart(const Graph& qdq, const Graph& fp32,
                                std::span<const std::string> disabled_passes) {
  OCTET_RETURN_IF_ERROR(CheckPassNames(disabled_passes));
  Graph graph = qdq;
  OCTET_RETURN_IF_ERROR(ReadForTraining(graph, disabled_passes));
  OCTET_RETURN_IF_ERROR(RaiseOpset(graph, std::max(OnnxOpset(graph), kQuantizeOpset)));
  OCTET_RETURN_IF_ERROR(InferShapes(graph));
  for (const NodeId id : graph.order()) {
    if (graph.node(id).is("DynamicQuantizeLinear"))
      return InvalidArgument("training goes on from a QDQ file; {} finds a range when it runs",
                             Describe(graph.node(id)));
  }
  const bool quantized = std::ranges::any_of(graph.order(), [&](NodeId id) {
    return DequantizerOfWeights(graph, graph.node(id)) != kNone;
  });
  if (!quantized) {
    return InvalidArgument(
        "training goes on from a QDQ file; no Conv, Gemm or MatMul here reads its weights behind "
        "DequantizeLinear");
  }
  Graph teacher = fp32;
  OCTET_RETURN_IF_ERROR(InferShapes(teacher));
  OCTET_ASSIGN_OR_RETURN(std::vector<ValueId> inputs,
                         Matched(graph, graph.inputs, teacher, teacher.inputs, "input"));
  OCTET_RETURN_IF_ERROR(Matched(graph, graph.outputs, teacher, teacher.outputs, "output").status());
  graph.inputs = std::move(inputs);
  for (const NodeId id : graph.OrderSnapshot()) {
    if (graph.node(id).is("QuantizeLinear")) OwnScale(graph, id);
    if (!IsLayer(graph.node(id))) continue;
    FoldBias(graph, id);
    OwnWeights(graph, id);
  }
  graph.RemoveDead();
  OCTET_RETURN_IF_ERROR(Verify(graph));
  return graph;
}

}  // namespace octet::train
