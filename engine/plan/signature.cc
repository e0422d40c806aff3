#include "engine/plan/signature.h"

#include <algorithm>

#include "engine/ops/op.h"
#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Whether what a Softmax makes shares of lies along its last axis.
bool SharesLastAxis(const Graph& graph, const Node& softmax) {
  // Before opset 13 all axes from this one on are one row.
  const int64_t axis = softmax.attributes.IntOr("axis", softmax.version < 13 ? 1 : -1);
  const std::optional<Shape>& shape = graph.value(softmax.outputs[0]).shape;
  return axis == -1 || (shape && axis == shape->rank() - 1);
}

// Whether a view has the rows of its input along the last axis.
bool KeepsRows(const Graph& graph, const Node& node) {
  const std::optional<Shape>& from = graph.value(node.inputs[0]).shape;
  const std::optional<Shape>& to = graph.value(node.outputs[0]).shape;
  return from && to && from->rank() > 0 && to->rank() > 0 && to->back() != kUnknownDim &&
         from->back() == to->back();
}

// Upwards over what changes no element, and one Softmax whose rows are the output's, to the 8-bit value that the output is
// dequantized from, or is itself.
std::optional<OutputStep> StepOf(const Graph& graph, ValueId output) {
  ValueId id = output;
  bool softmax = false;
  bool rows = true;  // Those of the value are still the output's.
  while (true) {
    const Value& value = graph.value(id);
    if (value.quant && value.quant->per_tensor() && IsInt8(value.dtype))
      return OutputStep{id == output ? 1 : value.quant->scales[0], softmax};
    if (graph.producer(id) == kNone) return std::nullopt;
    const Node& node = graph.node(graph.producer(id));
    const OpDef* def = FindOp(node);
    const bool moves =
        def != nullptr && (def->traits.view || def->traits.data_movement) && node.op != "Concat";
    const bool first_softmax =
        node.is("Softmax") && !softmax && rows && SharesLastAxis(graph, node);
    if (!node.post_ops.empty() || (!moves && !first_softmax && !node.is("Convert", kOctetDomain)))
      return std::nullopt;
    rows = rows && (!moves || (def->traits.view && KeepsRows(graph, node)));
    softmax = softmax || first_softmax;
    id = node.inputs[0];
  }
}

std::vector<TensorInfo> InfoOf(const Graph& graph, std::span<const ValueId> ids) {
  std::vector<TensorInfo> infos;
  for (const ValueId id : ids) {
    const Value& value = graph.value(id);
    infos.push_back({.name = value.name,
                     .dtype = value.dtype,
                     .shape = value.shape.value_or(Shape{}),
                     .kind = value.kind,
                     .rank_known = value.shape.has_value()});
  }
  return infos;
}

bool HasOpenBatch(const TensorInfo& info) {
  return info.shape.rank() > 0 && info.shape[0] == kUnknownDim;
}

bool Fits(const Shape& expected, const Shape& got) {
  if (expected.rank() != got.rank()) return false;
  for (int axis = 0; axis < got.rank(); ++axis) {
    if (expected[axis] == kUnknownDim ? got[axis] < 0 : expected[axis] != got[axis]) return false;
  }
  return IsPossible(got);
}

}  // namespace

Signature MakeSignature(const Graph& graph) {
  Signature signature;
  signature.inputs = InfoOf(graph, graph.inputs);
  signature.outputs = InfoOf(graph, graph.outputs);
  for (size_t i = 0; i < graph.outputs.size(); ++i)
    signature.outputs[i].step = StepOf(graph, graph.outputs[i]);
  signature.batches = !signature.inputs.empty() &&
                      std::ranges::all_of(signature.inputs, HasOpenBatch) &&
                      std::ranges::all_of(signature.outputs, HasOpenBatch);
  return signature;
}

absl::Status CheckShapes(const Signature& signature, std::span<const Shape> shapes) {
  if (shapes.size() != signature.inputs.size()) {
    return InvalidArgument("wrong number of inputs: expected {}, got {}", signature.inputs.size(),
                           shapes.size());
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    const TensorInfo& input = signature.inputs[i];
    if (!input.rank_known) {
      if (IsPossible(shapes[i])) continue;
      return InvalidArgument("input '{}': impossible shape: {}", input.name, shapes[i].ToString());
    }
    if (!Fits(input.shape, shapes[i])) {
      return InvalidArgument("input '{}': expected shape {}, got {}", input.name,
                             input.shape.ToString(), shapes[i].ToString());
    }
    if (signature.batches && shapes[i][0] < 1) {
      return InvalidArgument("input '{}': expected a batch of at least 1, got {}", input.name,
                             shapes[i][0]);
    }
    if (signature.batches && shapes[i][0] != shapes[0][0]) {
      return InvalidArgument("input '{}': expected batch {} like input '{}', got {}", input.name,
                             shapes[0][0], signature.inputs[0].name, shapes[i][0]);
    }
  }
  return absl::OkStatus();
}

void BindShapes(Graph& graph, std::span<const Shape> shapes) {
  for (size_t i = 0; i < shapes.size(); ++i) {
    Value& value = graph.mutable_value(graph.inputs[i]);
    if (value.is_tensor()) value.shape = shapes[i];
  }
}

}  // namespace octet
