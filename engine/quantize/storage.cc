#include "engine/quantize/storage.h"

#include <algorithm>
#include <cmath>
#include <ranges>
#include <string>
#include <utility>
#include <vector>

#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op.h"
#include "engine/passes/angles.h"
#include "engine/quantize/opset.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Half a step behind the largest finite number: what rounds to infinity.
constexpr float kHalfOverflows = 65520;
constexpr float kBfloatOverflows = 0x1.FFp127F;
// At most half of the least number above 0: what rounds to 0.
constexpr float kHalfVanishes = 0x1p-25F;

bool IsDivisor(const Graph& graph, ValueId id) {
  return std::ranges::any_of(graph.consumers(id), [&](NodeId reader) {
    return graph.node(reader).is("Div") && graph.node(reader).inputs[1] == id;
  });
}

// The corners of what a Resize cuts out: positions, not weights.
bool IsRegion(const Graph& graph, ValueId id) {
  return std::ranges::any_of(graph.consumers(id), [&](NodeId reader) {
    const Node& node = graph.node(reader);
    return node.is("Resize") && node.version >= 11 && node.input(1) == id;
  });
}

// Finds the constants whose elements shapes depend on: what operators ask for to infer their outputs, such as the scales of a Resize,
// and what goes into that by way of values that no element of an input reaches. Of a value that one does reach no shape is known
// before it is computed, and weights are not to be held for it.
class ShapeDeciders {
 public:
  // `constants`: those in question, which `graph`, a copy, loses.
  ShapeDeciders(Graph graph, const std::vector<ValueId>& constants)
      : graph_(std::move(graph)),
        of_inputs_(static_cast<size_t>(graph_.value_count())),
        decides_(of_inputs_.size()) {
    // An operator asks for what is no constant.
    for (const ValueId id : constants) graph_.mutable_value(id).constant = Tensor();
    for (const ValueId id : graph_.inputs) Mark(of_inputs_, id);
    const std::vector<NodeId> order = graph_.OrderSnapshot();
    for (const NodeId id : order) AskNode(id);
    for (const NodeId id : std::views::reverse(order)) AskBehind(graph_.node(id));
  }

  bool Contains(ValueId id) const { return decides_[static_cast<size_t>(id)]; }

 private:
  static void Mark(std::vector<bool>& values, ValueId id) {
    if (id != kNone) values[static_cast<size_t>(id)] = true;
  }

  static bool ReadsShapeAlone(const Node& node) { return node.is("Shape") || node.is("Size"); }

  void AskNode(NodeId id) {
    // An operator that does without none of them.
    const auto asked = InputsThatDecideShapes(graph_, id);
    const Node& node = graph_.node(id);
    bool of_inputs = false;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] == kNone) continue;
      if (!asked.ok() || (*asked >> (i % 64) & 1) != 0) Mark(decides_, node.inputs[i]);
      of_inputs |= of_inputs_[static_cast<size_t>(node.inputs[i])] && !ReadsShapeAlone(node);
    }
    if (!of_inputs) return;
    for (const ValueId output : node.outputs) Mark(of_inputs_, output);
  }

  void AskBehind(const Node& node) {
    const bool decides = std::ranges::any_of(node.outputs, [&](ValueId id) {
      return id != kNone && decides_[static_cast<size_t>(id)] &&
             !of_inputs_[static_cast<size_t>(id)];
    });
    if (!decides || ReadsShapeAlone(node)) return;
    for (const ValueId input : node.inputs) Mark(decides_, input);
  }

  Graph graph_;
  std::vector<bool> of_inputs_;
  std::vector<bool> decides_;
};

// Why the constant stays in fp32, or nothing. Weights that vanish are far below the rounding error of the others, and lose nothing
// that counts; a divisor that vanishes answers infinity.
std::string ReasonToKeep(const Graph& graph, ValueId id, const ShapeDeciders& deciders,
                         const Angles& angles, DType dtype) {
  if (deciders.Contains(id)) return "fp32: shapes depend on it";
  if (IsRegion(graph, id)) return "fp32: positions depend on it";
  if (angles.IsFactor(graph, id)) return "fp32: angles depend on it";
  const float overflows = dtype == DType::kF16 ? kHalfOverflows : kBfloatOverflows;
  const bool divisor = dtype == DType::kF16 && IsDivisor(graph, id);
  for (const float x : graph.value(id).constant.span<float>()) {
    const float magnitude = std::abs(x);
    if (std::isfinite(x) && magnitude >= overflows)
      return Format("fp32: elements beyond {} would be infinite", overflows);
    if (divisor && magnitude > 0 && magnitude <= kHalfVanishes)
      return Format("fp32: divisors up to {} would be 0", kHalfVanishes);
  }
  return {};
}

}  // namespace

absl::StatusOr<QuantizeResult> StoreWeightsAs(Graph graph, DType dtype) {
  QuantizeResult result;
  const int version = OnnxOpset(graph);
  std::vector<ValueId> constants;
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Value& value = graph.value(id);
    if (value.is_constant() && value.constant.dtype() == DType::kF32 &&
        value.constant.elements() >= 2 && !graph.consumers(id).empty())
      constants.push_back(id);
  }
  const ShapeDeciders deciders(graph, constants);
  const Angles angles(graph);
  for (const ValueId id : constants) {
    const Value& value = graph.value(id);
    if (std::string reason = ReasonToKeep(graph, id, deciders, angles, dtype); !reason.empty()) {
      result.records.push_back({value.name, "kept", std::move(reason)});
      continue;
    }
    Tensor stored(dtype, value.constant.shape());
    ConvertTensor(value.constant.view(), stored.mutable_view());
    result.records.push_back({value.name, "weights", std::string(DTypeName(dtype))});
    // Adding values invalidates references to them.
    const std::string name = value.name;
    const std::optional<Shape> shape = value.shape;
    const ValueId narrow =
        graph.AddConstant(name + "_" + std::string(DTypeName(dtype)), std::move(stored));
    const NodeId first = graph.order().front();
    const ValueId widened = graph.AddValue(
        {.name = graph.UniqueName(name + "_fp32"), .dtype = DType::kF32, .shape = shape});
    graph.ReplaceUses(id, widened);
    Node cast{.name = graph.value(widened).name,
              .op = "Cast",
              .version = version,
              .inputs = {narrow},
              .outputs = {widened}};
    cast.attributes.Set("to", kOnnxFloat);
    graph.InsertNodeBefore(first, std::move(cast));
  }
  if (result.records.empty())
    return InvalidArgument("the model has no fp32 weights to store as {}", DTypeName(dtype));
  graph.RemoveDead();
  result.graph = std::move(graph);
  return result;
}

}  // namespace octet
