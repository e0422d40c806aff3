// remove_no_ops: takes out nodes that hand their input through, and merges movements that follow each other.
//
//   x -> Identity -> y, x:f32 -> Cast(f32) -> y, x[2,3] -> Reshape[2,3] -> y, x -> Concat(x alone) -> y, ..   =>  x
//   x -> Reshape -> Reshape(constant) -> y          =>  x -> Reshape(constant) -> y
//   x -> Transpose(p) -> Transpose(q) -> y          =>  x -> Transpose(p o q) -> y
//   x[2,3], e[2,0], z[2,5] -> Concat(1) -> y        =>  x, z -> Concat(1) -> y
//
// Also: Dropout at inference, Transpose of the identity, Expand, Slice and Tile to the same extents, Pad by nothing,
// octet:Convert to the same stored type.
#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"
#include "engine/passes/transpose_rules.h"

namespace octet {
namespace {

bool Unread(const Graph& graph, ValueId id) {
  return id == kNone || (graph.consumers(id).empty() && !graph.is_graph_output(id));
}

bool SameStorage(const Graph& graph, const Node& node) {
  const Value& x = graph.value(node.input(0));
  const Value& y = graph.value(node.output(0));
  return x.dtype == y.dtype && x.quant == y.quant && x.dtype != DType::kUndefined;
}

// Operators that leave their input as it is when the extents stay the same: a Slice that takes all may still go
// backwards, so it is not among them.
constexpr std::array kByShape = {
    std::string_view("Reshape"),   std::string_view("Flatten"), std::string_view("Squeeze"),
    std::string_view("Unsqueeze"), std::string_view("Expand"),  std::string_view("Tile"),
};

// Equal known extents; one unknown extent on both sides follows from the equal number of elements of a Reshape.
bool KeepsShape(const Graph& graph, const Node& node) {
  const auto& x = graph.value(node.input(0)).shape;
  const auto& y = graph.value(node.output(0)).shape;
  if (!x || !y || *x != *y) return false;
  if (x->is_static()) return true;
  const bool counts = node.is("Reshape") || node.is("Flatten");
  return counts && std::ranges::count(*x, kUnknownDim) == 1 && std::ranges::find(*x, 0) == x->end();
}

bool PadsNothing(const Graph& graph, const Node& node) {
  std::optional<std::vector<int64_t>> pads;
  if (node.version >= 11) {
    pads = IntsOf(graph, node.input(1));
  } else if (const auto ints = node.attributes.Ints("pads", {}); ints.ok()) {
    pads = *ints;
  }
  return pads && std::ranges::all_of(*pads, [](int64_t p) { return p == 0; });
}

bool SlicesEverything(const Graph& graph, const Node& node) {
  if (!SameStaticShape(graph, node.input(0), node.output(0))) return false;
  if (node.version < 10 || node.input(4) == kNone) return true;
  const auto steps = IntsOf(graph, node.input(4));
  return steps && std::ranges::all_of(*steps, [](int64_t s) { return s > 0; });
}

bool DropsNothing(const Graph& graph, const Node& node) {
  if (!Unread(graph, node.output(1))) return false;
  if (node.version < 12 || node.input(2) == kNone) return true;
  const auto training = IntsOf(graph, node.input(2));
  return training && !training->empty() && training->front() == 0;
}

bool IsNoOp(const Graph& graph, const Node& node) {
  if (node.inputs.empty() || node.input(0) == kNone || node.output(0) == kNone ||
      !node.post_ops.empty())
    return false;
  if (!SameStorage(graph, node)) return false;
  if (node.is("Identity") || node.is("Cast") || node.is("Convert", kOctetDomain)) return true;
  if (node.domain != kOnnxDomain) return false;
  if (node.op == "Dropout") return DropsNothing(graph, node);
  if (node.op == "Concat") return node.inputs.size() == 1;
  if (node.op == "Sum" || node.op == "Max" || node.op == "Min") return node.inputs.size() == 1;
  if (node.op == "Slice") return SlicesEverything(graph, node);
  if (node.op == "Pad") return PadsNothing(graph, node);
  if (node.op == "Transpose") {
    const Permutation perm = TransposedBy(graph, node.output(0));
    return !perm.empty() && IsIdentity(perm);
  }
  return std::ranges::find(kByShape, std::string_view(node.op)) != kByShape.end() &&
         KeepsShape(graph, node);
}

// Operators that write input 0's elements in their order, with one output: a Reshape behind one needs only x.
bool OnlyReshapes(const Node& node) {
  if (node.domain != kOnnxDomain || node.outputs.size() != 1) return false;
  return node.op == "Reshape" || node.op == "Flatten" || node.op == "Squeeze" ||
         node.op == "Unsqueeze";
}

// Reshape -> Reshape: the second alone, to its own extents.
bool MergeReshapes(Graph& graph, NodeId id) {
  if (!OnlyReshapes(graph.node(id))) return false;
  const Node* first = ProducerOf(graph, graph.node(id).input(0));
  if (first == nullptr || !OnlyReshapes(*first)) return false;
  const auto& shape = graph.value(graph.node(id).output(0)).shape;
  if (!shape || std::ranges::count(*shape, kUnknownDim) > 1) return false;
  if (std::ranges::find(*shape, 0) != shape->end()) return false;
  const Node node = graph.node(id);
  const ValueId x = first->input(0);
  const ValueId target = AddInts(graph, node.name + "_shape", {shape->begin(), shape->end()});
  Replace(graph, id, MakeNode("Reshape", node, {x, target}, {}));
  return true;
}

bool MergeTransposes(Graph& graph, NodeId id) {
  const Permutation second = TransposedBy(graph, graph.node(id).output(0));
  const Permutation first = TransposedBy(graph, graph.node(id).input(0));
  if (second.empty() || first.size() != second.size()) return false;
  const ValueId x = graph.node(graph.producer(graph.node(id).input(0))).input(0);
  graph.SetInput(id, 0, x);
  graph.mutable_node(id).attributes.Set("perm", Compose(first, second));
  return true;
}

bool AddsNothing(const Graph& graph, ValueId part, int64_t axis) {
  const auto& shape = graph.value(part).shape;
  const auto own = shape ? NormalizeAxis(axis, shape->rank()) : std::nullopt;
  return own && (*shape)[*own] == 0;
}

// Where no part has an extent along the axis, the first one stays.
NodeId DropEmptyParts(Graph& graph, NodeId id) {
  Node joined = graph.node(id);
  const int64_t axis = joined.attributes.IntOr("axis", 0);
  std::erase_if(joined.inputs, [&](ValueId part) { return AddsNothing(graph, part, axis); });
  if (joined.inputs.empty()) joined.inputs = {graph.node(id).input(0)};
  if (joined.inputs.size() == graph.node(id).inputs.size()) return kNone;
  return Replace(graph, id, std::move(joined));
}

int Sweep(Graph& graph) {
  int count = 0;
  for (NodeId id : graph.OrderSnapshot()) {
    const bool transpose = graph.node(id).is("Transpose");
    if (MergeReshapes(graph, id) || (transpose && MergeTransposes(graph, id))) ++count;
    if (graph.alive(id) && graph.node(id).is("Concat") && graph.node(id).post_ops.empty()) {
      if (const NodeId shorter = DropEmptyParts(graph, id); shorter != kNone) {
        id = shorter;
        ++count;
      }
    }
    if (graph.alive(id) && IsNoOp(graph, graph.node(id)) && Bypass(graph, id)) ++count;
  }
  return count;
}

}  // namespace

absl::StatusOr<int> RemoveNoOps(Graph& graph, const PassContext& /*context*/) {
  constexpr int kMaxSweeps = 8;  // What merging two nodes leaves may be a no-op itself.
  int total = 0;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    const int count = Sweep(graph);
    if (count == 0) break;
    graph.RemoveDead();
    total += count;
  }
  return total;
}

}  // namespace octet
