#include "engine/quantize/byte_storage.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "engine/ops/op.h"
#include "engine/passes/match.h"
#include "engine/quantize/compensated_rounding.h"
#include "engine/quantize/opset.h"
#include "engine/quantize/short_names.h"
#include "engine/quantize/weights.h"
#include "engine/tensor/format.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// A name, a scale's and the node's own, in the file.
constexpr int64_t kNodeBytes = 64;

// A constant that could be stored, by who reads it.
struct Storable {
  NodeId reader = kNone;
  size_t slot = 0;
  int axis = 0;         ///< Of the scales.
  bool behind = false;  ///< The reader moves bytes.
  std::optional<WeightedNode> weighted;
  bool recurrent = false;  ///< The reader multiplies integers then.
};

// Weights of gates, whose units lie on axis 1. A state has no place where a range of its own could stand: the layer makes
// integers of what it multiplies when it runs.
bool IsOfGates(const Graph& graph, const Node& node, size_t slot) {
  return IsRecurrent(node) && (slot == 1 || slot == 2) &&
         graph.value(node.inputs[slot]).constant.shape().rank() == 3;
}

// Beside weights in bytes a layer that reads integers, be they moved, is one in int8.
bool ReadsIntegers(const Graph& graph, ValueId x) {
  for (NodeId producer = graph.producer(x); producer != kNone; producer = graph.producer(x)) {
    const Node& node = graph.node(producer);
    if (node.is("DequantizeLinear")) return true;
    const OpDef* def = FindOp(node);
    const bool moves =
        node.is("MaxPool") || (def != nullptr && (def->traits.data_movement || def->traits.view));
    if (!moves) return false;
    x = node.inputs[0];
  }
  return false;
}

std::optional<Storable> ByReader(const Graph& graph, NodeId id, size_t slot) {
  const Node& node = graph.node(id);
  const Shape& shape = graph.value(node.inputs[slot]).constant.shape();
  const int last = shape.rank() - 1;
  if (IsOfGates(graph, node, slot)) return Storable{id, slot, 1, false, {}, true};
  if (slot == 1) {
    if (const auto weighted = AsWeighted(graph, id)) {
      if (ReadsIntegers(graph, node.inputs[0])) return std::nullopt;
      return Storable{id, slot, weighted->weight_axis, false, weighted};
    }
  }
  if (last <= 0 || shape.elements() == shape[last]) return std::nullopt;
  if (node.is("Gather") && slot == 0 && node.attributes.IntOr("axis", 0) == 0)
    return Storable{id, slot, last, true, {}};
  if (node.is("Add") || node.is("Sub") || node.is("Mul"))
    return Storable{id, slot, last, false, {}};
  return std::nullopt;
}

bool RowsSurvive(const Tensor& table, const QuantizedWeights& rounded) {
  Tensor back(DType::kF32, table.shape());
  DequantizeTensor(rounded.values.view(), rounded.params, back.mutable_view());
  const int64_t rows = table.shape()[0];
  const int64_t length = rows > 0 ? table.elements() / rows : 0;
  const double most = std::pow(10, -kLeastRowDb / 10);
  for (int64_t row = 0; row < rows; ++row) {
    double signal = 0;
    double noise = 0;
    for (int64_t i = row * length; i < (row + 1) * length; ++i) {
      const double x = table.span<float>()[static_cast<size_t>(i)];
      const double off = x - back.span<float>()[static_cast<size_t>(i)];
      signal += x * x;
      noise += off * off;
    }
    if (noise > most * signal) return false;
  }
  return true;
}

// Whether one node reads a constant, or, where `shared`, layers do to which one DequantizeLinear serves.
bool HasReaders(const Graph& graph, ValueId constant, const Storable& of, bool shared) {
  if (graph.SoleConsumer(constant) == of.reader) return true;
  if (!shared || !of.weighted || graph.is_graph_output(constant)) return false;
  return std::ranges::all_of(graph.consumers(constant), [&](NodeId id) {
    const Node& node = graph.node(id);
    if (node.input(1) != constant || std::ranges::count(node.inputs, constant) != 1) return false;
    const auto other = ByReader(graph, id, 1);
    return other && other->weighted && other->axis == of.axis;
  });
}

std::optional<Storable> AsStorable(const Graph& graph, const QuantizeRecipe& recipe, NodeId id,
                                   size_t slot, bool shared) {
  const Node& node = graph.node(id);
  const ValueId constant = node.input(slot);
  if (constant == kNone || node.domain != kOnnxDomain) return std::nullopt;
  const Value& value = graph.value(constant);
  if (!value.is_constant() || value.constant.dtype() != DType::kF32) return std::nullopt;
  auto storable = ByReader(graph, id, slot);
  if (!storable || !HasReaders(graph, constant, *storable, shared)) return std::nullopt;
  const int64_t elements = value.constant.elements();
  const int64_t scales = recipe.per_channel ? value.constant.shape()[storable->axis] : 1;
  if (elements + 4 * scales + kNodeBytes > 2 * elements) return std::nullopt;
  if (!FindMinMax(value.constant.view()).finite) return std::nullopt;
  if (storable->behind &&
      !RowsSurvive(value.constant,
                   QuantizeWeights(value.constant, storable->axis, recipe.per_channel)))
    return std::nullopt;
  return storable;
}

std::vector<Storable> FindStorable(const Graph& graph, const QuantizeRecipe& recipe, bool shared) {
  std::vector<Storable> found;
  std::set<ValueId> constants;
  for (const NodeId id : graph.order()) {
    for (size_t slot = 0; slot < graph.node(id).inputs.size(); ++slot) {
      const auto storable = AsStorable(graph, recipe, id, slot, shared);
      if (storable && constants.insert(graph.node(id).inputs[slot]).second)
        found.push_back(*storable);
    }
  }
  const auto elements = [&](const Storable& of) {
    return graph.value(graph.node(of.reader).inputs[of.slot]).constant.elements();
  };
  std::ranges::stable_sort(found, std::greater<>(), elements);
  return found;
}

class ByteStorage {
 public:
  ByteStorage(const QuantizeRecipe& recipe, const Statistics& statistics)
      : recipe_(recipe), statistics_(statistics) {}

  void Store(Graph& graph, const Storable& of) const {
    const Node node = graph.node(of.reader);
    const ValueId constant = node.inputs[of.slot];
    const Tensor reals = graph.value(constant).constant;
    const QuantizedWeights rounded = Round(graph, reals, of);
    ShortNames names(graph);
    const std::string name = names.InPlaceOf(graph, constant);
    const ValueId bytes = graph.AddConstant(name, rounded.values);
    const bool scalar = rounded.params.per_tensor();
    const Shape scales{scalar ? Shape{} : Shape{std::ssize(rounded.params.scales)}};
    const ValueId scale =
        graph.AddConstant(names.Next('s'), Tensor::From<float>(scales, rounded.params.scales));
    Node dequantize{.op = "DequantizeLinear", .version = OnnxOpset(graph)};
    if (of.behind) {
      // The last axis of the table is that of the result.
      if (!scalar) dequantize.attributes.Set("axis", int64_t{-1});
      const ValueId y = node.outputs[0];
      const ValueId moved = graph.AddValue(
          {.name = names.Next('q'), .dtype = DType::kI8, .shape = graph.value(y).shape});
      graph.SetInput(of.reader, of.slot, bytes);
      graph.SetOutput(of.reader, 0, moved);
      // 0, but written: ONNX Runtime (1.21) moves such a node behind a Transpose or Reshape, and has integers without a zero point be
      // UINT8 there, so that it refuses the model.
      Tensor zeros(DType::kI8, scales);
      std::ranges::fill(zeros.mutable_span<int8_t>(), int8_t{0});
      dequantize.inputs = {moved, scale, graph.AddConstant(names.Next('z'), std::move(zeros))};
      dequantize.outputs = {y};
      graph.InsertNodeAfter(of.reader, std::move(dequantize));
    } else {
      if (!scalar) dequantize.attributes.Set("axis", int64_t{of.axis});
      const ValueId real =
          graph.AddValue({.name = names.Next('r'), .dtype = DType::kF32, .shape = reals.shape()});
      dequantize.inputs = {bytes, scale};
      dequantize.outputs = {real};
      graph.InsertNodeBefore(of.reader, std::move(dequantize));
      graph.ReplaceUses(constant, real);  // The first reader in order has the node before it.
    }
    graph.RemoveDead();
  }

 private:
  QuantizedWeights Round(const Graph& graph, const Tensor& reals, const Storable& of) const {
    QuantizedWeights rounded = QuantizeWeights(reals, of.axis, recipe_.per_channel);
    const auto patches = statistics_.patches.find(of.reader);
    if (of.weighted && recipe_.compensate && patches != statistics_.patches.end())
      CompensateRounding(reals, LayoutOf(graph, *of.weighted), patches->second, false, rounded);
    return rounded;
  }

  const QuantizeRecipe& recipe_;
  const Statistics& statistics_;
};

QuantizeRecord RecordOf(const Graph& graph, const Storable& of) {
  return {graph.value(graph.node(of.reader).inputs[of.slot]).name, "stored",
          of.recurrent ? "INT8, multiplied by integers that are made when the layer runs"
                       : "INT8, computed in float"};
}

}  // namespace

int64_t ConstantBytes(const Graph& graph) {
  int64_t bytes = 0;
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(id);
    if (value.is_constant() && !graph.consumers(id).empty())
      bytes += static_cast<int64_t>(value.constant.bytes());
  }
  return bytes;
}

absl::Status StoreInBytes(const QuantizeRecipe& recipe, const Statistics& statistics,
                          const AcceptGraph& accept, QuantizeResult& result) {
  const std::vector<Storable> found = FindStorable(result.graph, recipe, false);
  if (found.empty()) return absl::OkStatus();
  const ByteStorage storage(recipe, statistics);
  const Graph original = result.graph;
  Graph all = original;
  for (const Storable& of : found) storage.Store(all, of);
  OCTET_ASSIGN_OR_RETURN(bool accepted, accept(all));
  if (accepted) result.graph = std::move(all);
  size_t stored = accepted ? found.size() : 0;
  for (size_t i = 0; i < found.size(); ++i) {
    bool kept = accepted;
    if (!accepted && i < kMostStored && found.size() > 1) {
      Graph more = result.graph;
      storage.Store(more, found[i]);
      OCTET_ASSIGN_OR_RETURN(kept, accept(more));
      if (kept) result.graph = std::move(more);
      stored += kept ? 1 : 0;
    }
    if (kept) result.records.push_back(RecordOf(original, found[i]));
  }
  result.records.push_back({Format("{} of {} real constants in 8 bits", stored, found.size()),
                            "tried",
                            "what computes with them stays in float, but recurrent layers"});
  return absl::OkStatus();
}

void StoreUnseenInBytes(const QuantizeRecipe& recipe, Graph& graph,
                        std::vector<QuantizeRecord>& records) {
  const Statistics none;
  const ByteStorage storage(recipe, none);
  for (const Storable& of : FindStorable(graph, recipe, true)) {
    if (!of.behind && !of.weighted) continue;
    records.push_back(RecordOf(graph, of));
    storage.Store(graph, of);
  }
}

}  // namespace octet
