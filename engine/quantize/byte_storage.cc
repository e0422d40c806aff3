#include "engine/quantize/byte_storage.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "engine/quantize/compensated_rounding.h"
#include "engine/quantize/opset.h"
#include "engine/quantize/short_names.h"
#include "engine/quantize/weights.h"
#include "engine/tensor/format.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr size_t kMostAlone = 16;

// A constant that could be stored, by who reads it.
struct Storable {
  NodeId reader = kNone;
  size_t slot = 0;
  int axis = 0;         ///< Of the scales.
  bool behind = false;  ///< The reader moves bytes.
  std::optional<WeightedNode> weighted;
};

std::optional<Storable> AsStorable(const Graph& graph, NodeId id, size_t slot) {
  const Node& node = graph.node(id);
  const ValueId constant = node.input(slot);
  if (constant == kNone || node.domain != kOnnxDomain) return std::nullopt;
  const Value& value = graph.value(constant);
  if (!value.is_constant() || value.constant.dtype() != DType::kF32 ||
      value.constant.elements() < kLeastStored || graph.SoleConsumer(constant) != id)
    return std::nullopt;
  const int last = value.constant.shape().rank() - 1;
  if (slot == 1) {
    if (const auto weighted = AsWeighted(graph, id))
      return Storable{id, slot, weighted->weight_axis, false, weighted};
  }
  if (node.is("Gather") && slot == 0 && node.attributes.IntOr("axis", 0) == 0 && last > 0)
    return Storable{id, slot, last, true, {}};
  if (node.is("Add") || node.is("Sub") || node.is("Mul"))
    return Storable{id, slot, last, false, {}};
  return std::nullopt;
}

std::vector<Storable> FindStorable(const Graph& graph) {
  std::vector<Storable> found;
  for (const NodeId id : graph.order()) {
    for (size_t slot = 0; slot < graph.node(id).inputs.size(); ++slot) {
      if (const auto storable = AsStorable(graph, id, slot)) found.push_back(*storable);
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
    const Tensor reals = graph.value(node.inputs[of.slot]).constant;
    const QuantizedWeights rounded = Round(reals, of, node);
    ShortNames names(graph);
    const std::string name = names.InPlaceOf(graph, node.inputs[of.slot]);
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
      dequantize.inputs = {moved, scale};
      dequantize.outputs = {y};
      graph.InsertNodeAfter(of.reader, std::move(dequantize));
    } else {
      if (!scalar) dequantize.attributes.Set("axis", int64_t{of.axis});
      const ValueId real =
          graph.AddValue({.name = names.Next('r'), .dtype = DType::kF32, .shape = reals.shape()});
      dequantize.inputs = {bytes, scale};
      dequantize.outputs = {real};
      graph.InsertNodeBefore(of.reader, std::move(dequantize));
      graph.SetInput(of.reader, of.slot, real);
    }
    graph.RemoveDead();
  }

 private:
  QuantizedWeights Round(const Tensor& reals, const Storable& of, const Node& node) const {
    QuantizedWeights rounded = QuantizeWeights(reals, of.axis, recipe_.per_channel);
    const auto patches = statistics_.patches.find(of.reader);
    if (of.weighted && recipe_.compensate && patches != statistics_.patches.end())
      CompensateRounding(reals, {of.axis, node.is("Conv")}, patches->second, false, rounded);
    return rounded;
  }

  const QuantizeRecipe& recipe_;
  const Statistics& statistics_;
};

QuantizeRecord RecordOf(const Graph& graph, const Storable& of) {
  return {graph.value(graph.node(of.reader).inputs[of.slot]).name, "stored",
          "INT8, computed in float"};
}

}  // namespace

absl::Status StoreInBytes(const QuantizeRecipe& recipe, const Statistics& statistics,
                          const AcceptGraph& accept, QuantizeResult& result) {
  const std::vector<Storable> found = FindStorable(result.graph);
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
    if (!accepted && i < kMostAlone && found.size() > 1) {
      Graph more = result.graph;
      storage.Store(more, found[i]);
      OCTET_ASSIGN_OR_RETURN(kept, accept(more));
      if (kept) result.graph = std::move(more);
      stored += kept ? 1 : 0;
    }
    if (kept) result.records.push_back(RecordOf(original, found[i]));
  }
  result.records.push_back({Format("{} of {} real constants in 8 bits", stored, found.size()),
                            "tried", "what computes with them stays in float"});
  return absl::OkStatus();
}

void StoreTablesInBytes(const QuantizeRecipe& recipe, Graph& graph,
                        std::vector<QuantizeRecord>& records) {
  const Statistics none;
  const ByteStorage storage(recipe, none);
  for (const Storable& of : FindStorable(graph)) {
    if (!of.behind) continue;
    records.push_back(RecordOf(graph, of));
    storage.Store(graph, of);
  }
}

}  // namespace octet
