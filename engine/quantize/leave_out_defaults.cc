#include "engine/quantize/leave_out_defaults.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "engine/ops/op.h"

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

void LeaveOutAttributes(Node& node) {
  for (const std::string_view ones : {"dilations", "strides"}) {
    if (IsDefault(node.attributes, ones, 1)) node.attributes.Erase(ones);
  }
  if (IsDefault(node.attributes, "pads", 0)) node.attributes.Erase("pads");
  if (node.attributes.IntOr("group", 1) == 1) node.attributes.Erase("group");
}

}  // namespace

void LeaveOutDefaults(Graph& graph) {
  LeaveOutTypes(graph);
  for (const NodeId id : graph.order()) {
    if (graph.node(id).is("Conv") || graph.node(id).is("ConvInteger"))
      LeaveOutAttributes(graph.mutable_node(id));
  }
}

}  // namespace octet
