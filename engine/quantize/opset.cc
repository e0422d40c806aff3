#include "engine/quantize/opset.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/ops/op.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// An integer-list attribute that became an input at opset `since`.
struct MovedInts {
  std::string_view op;
  std::string_view attribute;
  size_t slot;
  int since;
};
constexpr std::array<MovedInts, 17> kMovedInts = {{
    {"Squeeze", "axes", 1, 13},
    {"Unsqueeze", "axes", 1, 13},
    {"Split", "split", 1, 13},
    {"ReduceSum", "axes", 1, 13},
    {"ReduceL1", "axes", 1, 18},
    {"ReduceL2", "axes", 1, 18},
    {"ReduceLogSum", "axes", 1, 18},
    {"ReduceLogSumExp", "axes", 1, 18},
    {"ReduceMax", "axes", 1, 18},
    {"ReduceMean", "axes", 1, 18},
    {"ReduceMin", "axes", 1, 18},
    {"ReduceProd", "axes", 1, 18},
    {"ReduceSumSquare", "axes", 1, 18},
    {"Pad", "pads", 1, 11},
    {"Slice", "starts", 1, 10},
    {"Slice", "ends", 2, 10},
    {"Slice", "axes", 3, 10},
}};

// A float attribute that became a scalar input at opset `since`.
struct MovedFloat {
  std::string_view op;
  std::string_view attribute;
  size_t slot;
  int since;
};
constexpr std::array<MovedFloat, 3> kMovedFloats = {{
    {"Clip", "min", 1, 11},
    {"Clip", "max", 2, 11},
    {"Pad", "value", 2, 11},
}};

// Nodes that mean something else from opset `since` on, although one definition here covers both, and that no rule moves. Operators
// that only took more types, attributes with the old meaning as their default, or optional inputs are not among them. Source:
// ONNX, Changelog.md.
struct Change {
  std::string_view op;
  int since;
  bool (*concerns)(const Node&) = [](const Node&) { return true; };
};
constexpr std::array<Change, 8> kChanges = {{
    {"BatchNormalization", 9,
     [](const Node& node) { return node.attributes.IntOr("spatial", 1) == 0; }},
    {"Upsample", 9},
    {"TopK", 10},
    {"Resize", 11},
    // Statistics were outputs, whether it trains or not.
    {"BatchNormalization", 14, [](const Node& node) { return node.outputs.size() > 1; }},
    // A window beyond the padded input counted whole.
    {"AveragePool", 19,
     [](const Node& node) {
       return node.attributes.IntOr("count_include_pad", 0) != 0 &&
              node.attributes.IntOr("ceil_mode", 0) != 0;
     }},
    {"DFT", 20},
    {"GroupNormalization", 21},
}};

bool Crosses(const Node& node, int version, int since) {
  return node.version < since && version >= since;
}

bool ChangesMeaning(const Node& node, int version) {
  return std::ranges::any_of(kChanges, [&](const Change& change) {
    return node.op == change.op && Crosses(node, version, change.since) && change.concerns(node);
  });
}

// What went without saying, or by another name, and what is said no more.
void SayAttributes(Node& node, int version) {
  // 1, which there is nothing but now (kChanges); other runtimes refuse a node with an attribute that its opset does not know.
  if (node.op == "BatchNormalization" && Crosses(node, version, 9))
    node.attributes.Erase("spatial");
  if (node.op == "RoiAlign" && Crosses(node, version, 16) &&
      !node.attributes.has("coordinate_transformation_mode"))
    node.attributes.Set("coordinate_transformation_mode", std::string("output_half_pixel"));
  if (node.op == "Split" && Crosses(node, version, 18) && node.input(1) == kNone)
    node.attributes.Set("num_outputs", std::ssize(node.outputs));
  if (node.op == "GridSample" && Crosses(node, version, 20)) {
    const auto mode = node.attributes.String("mode", "");
    if (mode.ok() && *mode == "bilinear") node.attributes.Set("mode", std::string("linear"));
    if (mode.ok() && *mode == "bicubic") node.attributes.Set("mode", std::string("cubic"));
  }
}

void PutInput(Graph& graph, NodeId id, size_t slot, ValueId value) {
  while (graph.node(id).inputs.size() <= slot) graph.AppendInput(id, kNone);
  graph.SetInput(id, slot, value);
}

absl::StatusOr<bool> MoveAttributes(Graph& graph, NodeId id, int version) {
  bool moved = false;
  for (const MovedInts& rule : kMovedInts) {
    const Node& node = graph.node(id);
    if (node.op != rule.op || node.version >= rule.since || version < rule.since) continue;
    if (!node.attributes.has(rule.attribute)) continue;
    OCTET_ASSIGN_OR_RETURN(const std::vector<int64_t> values,
                           node.attributes.Ints(rule.attribute, {}));
    const Shape shape{static_cast<int64_t>(values.size())};
    const ValueId constant =
        graph.AddConstant(rule.attribute, Tensor::From<int64_t>(shape, values));
    PutInput(graph, id, rule.slot, constant);
    graph.mutable_node(id).attributes.Erase(rule.attribute);
    moved = true;
  }
  for (const MovedFloat& rule : kMovedFloats) {
    const Node& node = graph.node(id);
    if (node.op != rule.op || node.version >= rule.since || version < rule.since) continue;
    if (!node.attributes.has(rule.attribute)) continue;
    OCTET_ASSIGN_OR_RETURN(const float value, node.attributes.Float(rule.attribute, 0));
    PutInput(graph, id, rule.slot, graph.AddConstant(rule.attribute, Tensor::Scalar(value)));
    graph.mutable_node(id).attributes.Erase(rule.attribute);
    moved = true;
  }
  return moved;
}

// Before opset 13 Softmax flattens from `axis` (default 1) on: the same when axis is the last one, or when
// everything behind it has extent 1.
bool SoftmaxKeepsMeaning(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const auto& shape = graph.value(node.inputs[0]).shape;
  if (!shape) return false;
  const auto axis = NormalizeAxis(node.attributes.IntOr("axis", 1), shape->rank());
  if (!axis) return false;
  for (int i = *axis + 1; i < shape->rank(); ++i) {
    if ((*shape)[i] != 1) return false;
  }
  graph.mutable_node(id).attributes.Set("axis", int64_t{*axis});
  return true;
}

absl::Status RaiseBodies(Node& node, int version) {
  std::vector<std::pair<std::string, Subgraph>> raised;
  for (const auto& [name, value] : node.attributes) {
    const Subgraph* body = std::get_if<Subgraph>(&value);
    if (body == nullptr || !IsBelowOpset(**body, version)) continue;
    Graph copy = **body;
    OCTET_RETURN_IF_ERROR(RaiseOpset(copy, version));
    raised.emplace_back(name, std::make_shared<const Graph>(std::move(copy)));
  }
  for (auto& [name, body] : raised) node.attributes.Set(name, std::move(body));
  return absl::OkStatus();
}

absl::Status RaiseNode(Graph& graph, NodeId id, int version) {
  const Node& node = graph.node(id);
  OCTET_ASSIGN_OR_RETURN(const bool moved, MoveAttributes(graph, id, version));
  const bool softmax = node.op == "Softmax" || node.op == "LogSoftmax";
  const bool same =
      FindOp(node.domain, node.op, node.version) == FindOp(node.domain, node.op, version);
  // Dropout's ratio and mask mean nothing when a model is only run.
  const bool keeps = moved || same || node.op == "Dropout" || node.op == "Clip" ||
                     (softmax && SoftmaxKeepsMeaning(graph, id));
  if (!keeps || ChangesMeaning(node, version)) {
    return Unimplemented("{}: its meaning changes between opset {} and {}", Describe(node),
                         node.version, version);
  }
  SayAttributes(graph.mutable_node(id), version);
  if (node.op == "Dropout") {
    graph.mutable_node(id).attributes.Erase("ratio");
    // From opset 10 on it is BOOL; nobody reads it as a rule.
    const ValueId mask = node.output(1);
    if (mask != kNone && graph.consumers(mask).empty() && !graph.is_graph_output(mask))
      graph.SetOutput(id, 1, kNone);
  }
  graph.mutable_node(id).version = version;
  return absl::OkStatus();
}

// 0 where there is no node of ONNX's domain.
int HighestOpset(const Graph& graph) {
  int highest = 0;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    if (node.domain == kOnnxDomain) highest = std::max(highest, node.version);
    for (const auto& [name, value] : node.attributes) {
      if (const Subgraph* body = std::get_if<Subgraph>(&value))
        highest = std::max(highest, HighestOpset(**body));
    }
  }
  return highest;
}

}  // namespace

int OnnxOpset(const Graph& graph) {
  const int highest = HighestOpset(graph);
  return highest == 0 ? kQuantizeOpset : highest;
}

bool IsBelowOpset(const Graph& graph, int version) {
  return std::ranges::any_of(graph.order(), [&](NodeId id) {
    const Node& node = graph.node(id);
    if (node.domain == kOnnxDomain && node.version < version) return true;
    return std::ranges::any_of(node.attributes, [&](const auto& attribute) {
      const Subgraph* body = std::get_if<Subgraph>(&attribute.second);
      return body != nullptr && IsBelowOpset(**body, version);
    });
  });
}

absl::Status RaiseOpset(Graph& graph, int version) {
  for (const NodeId id : graph.OrderSnapshot()) {
    OCTET_RETURN_IF_ERROR(RaiseBodies(graph.mutable_node(id), version));
    const Node& node = graph.node(id);
    if (node.domain != kOnnxDomain || node.version >= version) continue;
    OCTET_RETURN_IF_ERROR(RaiseNode(graph, id, version));
  }
  return absl::OkStatus();
}

}  // namespace octet
