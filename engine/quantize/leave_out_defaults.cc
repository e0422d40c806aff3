#include "engine/quantize/leave_out_defaults.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/ops/op.h"
#include "engine/passes/quantization.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

void LeaveOutTypes(Graph& graph) {
  Graph bare = graph;
  std::vector<ValueId> inner;
  for (const NodeId id : graph.order()) {
    for (const ValueId output : graph.node(id).outputs) {
      if (output == kNone || graph.is_graph_output(output)) continue;
      inner.push_back(output);
      bare.mutable_value(output).dtype = DType::kUndefined;
      bare.mutable_value(output).shape.reset();
    }
  }
  if (!InferShapes(bare).ok()) return;
  for (const ValueId id : inner) {
    const Value& found = bare.value(id);
    Value& value = graph.mutable_value(id);
    if (found.dtype != value.dtype || found.shape != value.shape) continue;
    value.dtype = DType::kUndefined;
    value.shape.reset();
  }
}

bool IsDefault(const Attributes& attributes, std::string_view name, int64_t each) {
  const auto values = attributes.Ints(name, {});
  return values.ok() && std::ranges::all_of(*values, [&](int64_t v) { return v == each; });
}

void LeaveOutConvs(Graph& graph, NodeId id) {
  Node& node = graph.mutable_node(id);
  for (const std::string_view ones : {"dilations", "strides"}) {
    if (IsDefault(node.attributes, ones, 1)) node.attributes.Erase(ones);
  }
  if (IsDefault(node.attributes, "pads", 0)) node.attributes.Erase("pads");
  if (node.attributes.IntOr("group", 1) == 1) node.attributes.Erase("group");
  // The weights have it; behind DequantizeLinear shape inference has left theirs.
  if (!node.is("ConvInteger") && node.attributes.has("kernel_shape")) {
    const std::optional<Shape>& weights = graph.value(node.inputs[1]).shape;
    const auto kernel = node.attributes.Ints("kernel_shape", {});
    if (weights && kernel.ok() && weights->rank() > 2 &&
        std::ranges::equal(*kernel, weights->dims().subspan(2)))
      node.attributes.Erase("kernel_shape");
  }
}

void LeaveOutGemms(Node& node) {
  for (const std::string_view one : {"alpha", "beta"}) {
    const auto factor = node.attributes.Float(one, 1);
    if (factor.ok() && *factor == 1) node.attributes.Erase(one);
  }
  for (const std::string_view as_is : {"transA", "transB"}) {
    if (node.attributes.IntOr(as_is, 0) == 0) node.attributes.Erase(as_is);
  }
}

// One end of a Clip; nothing where it is computed.
std::optional<float> ClipEnd(const Graph& graph, const Node& clip, size_t slot, float open) {
  const ValueId id = clip.input(slot);
  if (id == kNone) return open;
  const Value& value = graph.value(id);
  if (!value.is_constant() || value.constant.dtype() != DType::kF32 ||
      value.constant.elements() != 1)
    return std::nullopt;
  return value.constant.span<float>()[0];
}

// True when a Clip cuts nothing that the rounding of its only reader to 8 bits would not cut: its ends are the integers' own.
bool IsRoundedAnyway(const Graph& graph, NodeId id) {
  const Node& clip = graph.node(id);
  const NodeId reader = graph.SoleConsumer(clip.outputs[0]);
  if (reader == kNone || !graph.node(reader).is("QuantizeLinear")) return false;
  const DType dtype = graph.value(graph.node(reader).outputs[0]).dtype;
  const auto params = ParamsOf(graph, graph.node(reader));
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto low = ClipEnd(graph, clip, 1, -kInfinity);
  const auto high = ClipEnd(graph, clip, 2, kInfinity);
  if ((dtype != DType::kU8 && dtype != DType::kI8) || !params || !params->per_tensor() || !low ||
      !high || !(*low < *high))
    return false;
  const IntRange range = RangeOf(dtype);
  const auto rounded = [&](float end) {
    return QuantizeOne(end, params->scales[0], params->zero_points[0], range);
  };
  return rounded(*low) == range.min && rounded(*high) == range.max;
}

// What the Clip read goes by its result's name then, which is what readers of the file compare.
void LeaveOutClips(Graph& graph) {
  for (const NodeId id : graph.OrderSnapshot()) {
    if (!graph.node(id).is("Clip") || !IsRoundedAnyway(graph, id)) continue;
    const ValueId x = graph.node(id).inputs[0];
    const ValueId y = graph.node(id).outputs[0];
    const NodeId producer = graph.producer(x);
    if (producer == kNone || graph.SoleConsumer(x) != id) continue;
    const auto slot = std::ranges::find(graph.node(producer).outputs, x);
    const auto at = static_cast<size_t>(slot - graph.node(producer).outputs.begin());
    graph.RemoveNode(id);
    graph.SetOutput(producer, at, y);
  }
  graph.RemoveDead();
}

}  // namespace

void LeaveOutDefaults(Graph& graph) {
  LeaveOutClips(graph);
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.is("Conv") || node.is("ConvTranspose") || node.is("ConvInteger"))
      LeaveOutConvs(graph, id);
    if (node.is("Gemm")) LeaveOutGemms(graph.mutable_node(id));
  }
  LeaveOutTypes(graph);
}

}  // namespace octet
