#include "engine/passes/transpose_rules.h"

#include <algorithm>
#include <array>
#include <vector>

#include "engine/ops/op.h"
#include "engine/passes/match.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

using Ints = std::vector<int64_t>;

template <size_t N>
bool OneOf(const Node& node, const std::array<std::string_view, N>& names) {
  return std::ranges::find(names, std::string_view(node.op)) != names.end();
}

constexpr std::array kUnary = {std::string_view("Convert"), std::string_view("Cast"),
                               std::string_view("Identity"), std::string_view("Dropout")};
// What takes `channels_last`.
constexpr std::array kChannelOps = {std::string_view("MaxPool"),
                                    std::string_view("AveragePool"),
                                    std::string_view("LpPool"),
                                    std::string_view("GlobalAveragePool"),
                                    std::string_view("GlobalMaxPool"),
                                    std::string_view("GlobalLpPool"),
                                    std::string_view("LRN"),
                                    std::string_view("InstanceNormalization"),
                                    std::string_view("GroupNormalization"),
                                    std::string_view("GridSample")};
constexpr std::array kReductions = {std::string_view("ReduceMean"), std::string_view("ReduceSum"),
                                    std::string_view("ReduceMax"),  std::string_view("ReduceMin"),
                                    std::string_view("ReduceProd"), std::string_view("ReduceL2")};
constexpr std::array kArgReductions = {std::string_view("ArgMax"), std::string_view("ArgMin")};

// Axes of a node, normalized: an attribute, or a constant input; `given` is false when there are none.
struct Axes {
  bool known = false;
  bool given = false;
  Ints axes;
};
Axes AxesOf(const Graph& graph, const Node& node, size_t slot, int rank) {
  Axes result;
  if (node.input(slot) != kNone) {
    const auto ints = IntsOf(graph, node.input(slot));
    if (!ints) return result;
    result.axes = *ints;
    result.given = true;
  } else if (node.attributes.has("axes")) {
    const auto ints = node.attributes.Ints("axes", {});
    if (!ints.ok()) return result;
    result.axes = *ints;
    result.given = true;
  }
  for (int64_t& axis : result.axes) {
    const auto normal = NormalizeAxis(axis, rank);
    if (!normal) return result;
    axis = *normal;
  }
  result.known = true;
  return result;
}

void SetAxes(Graph& graph, NodeId id, size_t slot, const Ints& axes) {
  if (graph.node(id).attributes.has("axes")) {
    graph.mutable_node(id).attributes.Set("axes", axes);
  } else {
    graph.SetInput(id, slot, AddInts(graph, graph.node(id).name + "_axes", axes));
  }
}

Ints MapAxes(const Ints& axes, const Permutation& perm) {
  Ints mapped;
  for (const int64_t axis : axes) mapped.push_back(perm[axis]);
  return mapped;
}

// The perm behind an operator that removes `axes` (of the transposed value): the other axes in their order.
Permutation WithoutAxes(const Permutation& perm, const Ints& axes) {
  Permutation left;
  for (size_t i = 0; i < perm.size(); ++i) {
    if (std::ranges::find(axes, static_cast<int64_t>(i)) == axes.end()) left.push_back(perm[i]);
  }
  Permutation sorted = left;
  std::ranges::sort(sorted);
  for (int64_t& axis : left) axis = std::ranges::find(sorted, axis) - sorted.begin();
  return left;
}

void ReadUntransposed(Graph& graph, NodeId id, size_t slot, const Permutation& perm) {
  TransposeInput(graph, id, slot, Inverse(perm));
}

// Gives output `slot` a value of its own behind which a Transpose writes what was there; its extents are unknown
// when the operator changes the rank, and inferred afterwards.
void WriteTransposed(Graph& graph, NodeId id, size_t slot, const Permutation& perm) {
  TransposeOutput(graph, id, slot, perm);
}

// All readers of `value` undo Transpose(perm).
bool CancelsBehind(const Graph& graph, ValueId value, const Permutation& perm) {
  if (graph.is_graph_output(value) || graph.consumers(value).empty()) return false;
  return std::ranges::all_of(graph.consumers(value), [&](NodeId reader) {
    if (!graph.node(reader).is("Transpose")) return false;
    const Permutation next = TransposedBy(graph, graph.node(reader).output(0));
    return next.size() == perm.size() && IsIdentity(Compose(perm, next));
  });
}

// Operators whose inputs `slots` and output 0 have one order of axes. Worth it when no more Transposes are made (before
// inputs that have none, and behind) than are lost.
bool PassSeveral(Graph& graph, NodeId id, const std::vector<size_t>& slots,
                 const Permutation& perm) {
  const Node& node = graph.node(id);
  const int rank = static_cast<int>(perm.size());
  if (node.outputs.size() != 1 || RankOf(graph, node.output(0)) != rank) return false;
  int lost = 0;
  int made = CancelsBehind(graph, node.output(0), perm) ? 0 : 1;
  for (const size_t slot : slots) {
    if (!InputTakesTranspose(graph, id, slot, rank)) return false;
    const ValueId input = node.input(slot);
    if (input == kNone || graph.value(input).is_constant()) continue;
    const Permutation own = TransposedBy(graph, input);
    if (own == perm) {
      ++lost;
    } else if (own.empty()) {
      ++made;
    }
  }
  if (made > lost) return false;
  for (const size_t slot : slots) ReadUntransposed(graph, id, slot, perm);
  WriteTransposed(graph, id, 0, perm);
  return true;
}

bool PassUnary(Graph& graph, NodeId id, const Permutation& perm) {
  ReadUntransposed(graph, id, 0, perm);
  for (size_t i = 0; i < graph.node(id).outputs.size(); ++i) WriteTransposed(graph, id, i, perm);
  return true;
}

bool PassAlongAxis(Graph& graph, NodeId id, int64_t fallback, const Permutation& perm) {
  const int rank = static_cast<int>(perm.size());
  const auto axis = NormalizeAxis(graph.node(id).attributes.IntOr("axis", fallback), rank);
  if (!axis) return false;
  graph.mutable_node(id).attributes.Set("axis", perm[*axis]);
  return PassUnary(graph, id, perm);
}

bool PassConcat(Graph& graph, NodeId id, const Permutation& perm) {
  const auto axis =
      NormalizeAxis(graph.node(id).attributes.IntOr("axis", 0), static_cast<int>(perm.size()));
  std::vector<size_t> slots(graph.node(id).inputs.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    slots[i] = i;
    // Concatenated constants have the full rank already; of one element, TransposeInput leaves their shape alone.
    if (RankOf(graph, graph.node(id).input(i)) != static_cast<int>(perm.size())) return false;
  }
  if (!axis || !PassSeveral(graph, id, slots, perm)) return false;
  graph.mutable_node(id).attributes.Set("axis", perm[*axis]);
  return true;
}

// Softmax before opset 13 flattens to two axes: the same as along one axis when all behind it have extent 1.
bool PassSoftmax(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const int rank = static_cast<int>(perm.size());
  if (node.version >= 13) return PassAlongAxis(graph, id, -1, perm);
  const auto axis = NormalizeAxis(node.attributes.IntOr("axis", 1), rank);
  if (!axis) return false;
  const Shape& shape = *graph.value(node.input(0)).shape;
  for (int i = *axis + 1; i < rank; ++i) {
    if (shape[i] != 1) return false;
  }
  graph.mutable_node(id).version = kPassOpset;
  return PassAlongAxis(graph, id, 1, perm);
}

bool PassSlice(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const bool inputs = node.version >= 10;
  Axes axes =
      AxesOf(graph, node, inputs ? 3 : graph.node(id).inputs.size(), static_cast<int>(perm.size()));
  if (!axes.known) return false;
  if (!axes.given) {
    // One start per axis, from the first on.
    size_t count = 0;
    if (inputs) {
      const auto starts = graph.value(node.input(1)).shape;
      if (!starts || !starts->is_static()) return false;
      count = static_cast<size_t>(starts->elements());
    } else if (const auto starts = node.attributes.Ints("starts", {}); starts.ok()) {
      count = starts->size();
    }
    for (size_t i = 0; i < count; ++i) axes.axes.push_back(static_cast<int64_t>(i));
  }
  const Ints mapped = MapAxes(axes.axes, perm);
  if (inputs) {
    SetAxes(graph, id, 3, mapped);
  } else {
    graph.mutable_node(id).attributes.Set("axes", mapped);
  }
  return PassUnary(graph, id, perm);
}

bool PassPad(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const size_t rank = perm.size();
  if (node.version >= 18 && node.input(3) != kNone) {
    const Axes axes = AxesOf(graph, node, 3, static_cast<int>(rank));
    if (!axes.known) return false;
    SetAxes(graph, id, 3, MapAxes(axes.axes, perm));
    return PassUnary(graph, id, perm);
  }
  std::optional<Ints> pads;
  if (node.version >= 11) {
    pads = IntsOf(graph, node.input(1));
  } else if (const auto ints = node.attributes.Ints("pads", {}); ints.ok()) {
    pads = *ints;
  }
  if (!pads || pads->size() != 2 * rank) return false;
  Ints moved(2 * rank);
  for (size_t i = 0; i < rank; ++i) {
    moved[perm[i]] = (*pads)[i];
    moved[rank + perm[i]] = (*pads)[rank + i];
  }
  if (node.version >= 11) {
    graph.SetInput(id, 1, AddInts(graph, node.name + "_pads", moved));
  } else {
    graph.mutable_node(id).attributes.Set("pads", moved);
  }
  return PassUnary(graph, id, perm);
}

// Scales or sizes of all axes, or of `axes`.
bool PassResize(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const size_t rank = perm.size();
  const auto mode = node.attributes.String("coordinate_transformation_mode", "");
  if (!mode.ok() || *mode == "tf_crop_and_resize") return false;
  if (node.is("Upsample") && node.version < 9) return false;
  const auto listed = node.attributes.Ints("axes", {});
  if (!listed.ok()) return false;
  if (!listed->empty()) {
    const Axes axes = AxesOf(graph, node, node.inputs.size(), static_cast<int>(rank));
    if (!axes.known) return false;
    graph.mutable_node(id).attributes.Set("axes", MapAxes(axes.axes, perm));
    return PassUnary(graph, id, perm);
  }
  constexpr size_t kSizes = 3;
  const size_t scales_slot = node.is("Upsample") || node.version < 11 ? 1 : 2;
  const auto scales = FloatsOf(graph, node.input(scales_slot));
  if (scales && scales->size() == rank) {
    std::vector<float> moved(rank);
    for (size_t i = 0; i < rank; ++i) moved[perm[i]] = (*scales)[i];
    graph.SetInput(id, scales_slot,
                   AddFloats(graph, node.name + "_scales", Shape{std::ssize(moved)}, moved));
    return PassUnary(graph, id, perm);
  }
  // Which of several inputs counts is not known while one of them is computed.
  if (node.input(scales_slot) != kNone && (!scales || !scales->empty())) return false;
  const auto sizes = scales_slot == 1 ? std::nullopt : IntsOf(graph, node.input(kSizes));
  if (!sizes || sizes->size() != rank) return false;
  Ints moved(rank);
  for (size_t i = 0; i < rank; ++i) moved[perm[i]] = (*sizes)[i];
  graph.SetInput(id, kSizes, AddInts(graph, node.name + "_sizes", moved));
  return PassUnary(graph, id, perm);
}

bool PassChannelOp(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const int rank = static_cast<int>(perm.size());
  if (perm != ToChannelsFirst(rank)) return false;
  if (std::ranges::find(node.outputs, kNone) != node.outputs.end()) return false;
  if (node.attributes.IntOr("channels_last", 0) != 0 || node.attributes.has("auto_pad"))
    return false;
  graph.mutable_node(id).attributes.Set("channels_last", int64_t{1});
  return PassUnary(graph, id, perm);
}

// Removes or keeps (extent 1) the axes; the node's own list of them is set by the caller.
bool PassRemoving(Graph& graph, NodeId id, const Ints& axes, bool keeps, const Permutation& perm) {
  if (keeps) return PassUnary(graph, id, perm);
  ReadUntransposed(graph, id, 0, perm);
  WriteTransposed(graph, id, 0, WithoutAxes(perm, axes));
  return true;
}

bool PassReduction(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const bool keeps = node.attributes.IntOr("keepdims", 1) != 0;
  const Axes axes = AxesOf(graph, node, 1, static_cast<int>(perm.size()));
  if (!axes.known || !axes.given || axes.axes.empty()) return false;
  SetAxes(graph, id, 1, MapAxes(axes.axes, perm));
  return PassRemoving(graph, id, axes.axes, keeps, perm);
}

bool PassArgReduction(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const auto axis = NormalizeAxis(node.attributes.IntOr("axis", 0), static_cast<int>(perm.size()));
  if (!axis) return false;
  const bool keeps = node.attributes.IntOr("keepdims", 1) != 0;
  graph.mutable_node(id).attributes.Set("axis", perm[*axis]);
  return PassRemoving(graph, id, {*axis}, keeps, perm);
}

bool PassSqueeze(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  Axes axes = AxesOf(graph, node, 1, static_cast<int>(perm.size()));
  if (!axes.known) return false;
  if (!axes.given) {
    const Value& x = graph.value(node.input(0));
    if (!x.has_static_shape()) return false;
    for (int i = 0; i < x.shape->rank(); ++i) {
      if ((*x.shape)[i] == 1) axes.axes.push_back(i);
    }
  } else {
    SetAxes(graph, id, 1, MapAxes(axes.axes, perm));
  }
  return PassRemoving(graph, id, axes.axes, false, perm);
}

bool PassGather(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const int index_rank = RankOf(graph, node.input(1));
  const auto axis = NormalizeAxis(node.attributes.IntOr("axis", 0), static_cast<int>(perm.size()));
  if (!axis || index_rank < 0) return false;
  // Axes of the gathered value, untransposed: those before perm[axis], the index's, those behind.
  const int64_t cut = perm[*axis];
  Permutation behind;
  for (int i = 0; i < static_cast<int>(perm.size()); ++i) {
    if (i == *axis) {
      for (int k = 0; k < index_rank; ++k) behind.push_back(cut + k);
    } else {
      behind.push_back(perm[i] < cut ? perm[i] : perm[i] + index_rank - 1);
    }
  }
  graph.mutable_node(id).attributes.Set("axis", cut);
  ReadUntransposed(graph, id, 0, perm);
  WriteTransposed(graph, id, 0, behind);
  return true;
}

bool PassBroadcast(Graph& graph, NodeId id, const Permutation& perm) {
  std::vector<size_t> slots(graph.node(id).inputs.size());
  for (size_t i = 0; i < slots.size(); ++i) slots[i] = i;
  return PassSeveral(graph, id, slots, perm);
}

bool PassLayerNorm(Graph& graph, NodeId id, const Permutation& perm) {
  const int rank = static_cast<int>(perm.size());
  const auto axis = NormalizeAxis(graph.node(id).attributes.IntOr("axis", -1), rank);
  if (axis != rank - 1 || perm.back() != rank - 1 || graph.node(id).outputs.size() != 1)
    return false;
  return PassUnary(graph, id, perm);
}

bool IsPerTensorQuantizer(const Graph& graph, const Node& node) {
  if (!node.is("QuantizeLinear") && !node.is("DequantizeLinear")) return false;
  const Tensor* scale = ConstantOf(graph, node.input(1));
  return scale != nullptr && scale->elements() == 1;
}

}  // namespace

Permutation TransposedBy(const Graph& graph, ValueId value) {
  const NodeId id = ProducerIf(graph, value, "Transpose");
  if (id == kNone) return {};
  const auto perm = graph.node(id).attributes.Ints("perm", {});
  return perm.ok() ? *perm : Permutation();
}

bool PassThrough(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const OpDef* def = FindOp(node);
  if (def == nullptr) return false;
  if (node.is("Concat")) return PassConcat(graph, id, perm);
  if (def->traits.elementwise_broadcast || node.is("PRelu")) return PassBroadcast(graph, id, perm);
  // From here on the Transpose is on the first input, and the others are no activations.
  if (TransposedBy(graph, node.input(0)) != perm) return false;
  if (def->traits.elementwise_unary || OneOf(node, kUnary)) return PassUnary(graph, id, perm);
  if (IsPerTensorQuantizer(graph, node)) return PassUnary(graph, id, perm);
  if (OneOf(node, kChannelOps)) return PassChannelOp(graph, id, perm);
  if (OneOf(node, kReductions)) return PassReduction(graph, id, perm);
  if (OneOf(node, kArgReductions)) return PassArgReduction(graph, id, perm);
  if (node.is("Split")) return PassAlongAxis(graph, id, 0, perm);
  if (node.is("Softmax") || node.is("LogSoftmax")) return PassSoftmax(graph, id, perm);
  if (node.is("Slice")) return PassSlice(graph, id, perm);
  if (node.is("Pad")) return PassPad(graph, id, perm);
  if (node.is("Resize") || node.is("Upsample")) return PassResize(graph, id, perm);
  if (node.is("Squeeze")) return PassSqueeze(graph, id, perm);
  if (node.is("Gather")) return PassGather(graph, id, perm);
  if (node.is("LayerNormalization")) return PassLayerNorm(graph, id, perm);
  if (node.is("Reshape") || node.is("Flatten")) return PassThroughReshape(graph, id, perm);
  return false;
}

}  // namespace octet
