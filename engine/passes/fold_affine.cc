// fold_affine: factors and addends behind each other are one of each.
//
//   x -> Mul(a) -> Mul(c) -> y               =>  x -> Mul(a * c) -> y
//   x -> Add(b) -> Add(d) -> y               =>  x -> Add(b + d) -> y
//   x -> Add(b) -> Mul(c) -> y               =>  x -> Mul(c) -> Add(b * c) -> y      (unless x is an input as it came)
//
// An input is exact, and so is its difference from a constant of its size: a year less 2000, a time less another one. Scaled first, both
// are rounded, and what they cancel to is mostly error. What layers compute has such an error already.
//
// So a normalization and the scale and shift behind it become one Mul and one Add, which fold into the layers beside them.
#include <algorithm>
#include <cmath>

#include "engine/ops/broadcast.h"
#include "engine/ops/function.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

/// A Mul or Add of a value and a float constant.
struct Term {
  ValueId x = kNone;
  ValueId constant = kNone;
  bool product = false;
};

std::optional<Term> TermOf(const Graph& graph, const Node* node) {
  if (node == nullptr || (!node->is("Mul") && !node->is("Add"))) return std::nullopt;
  if (!node->post_ops.empty() || node->inputs.size() != 2) return std::nullopt;
  // Attributes of older ones say how they broadcast.
  if (node->version < kOldestKeptOpset) return std::nullopt;
  for (const size_t slot : {0, 1}) {
    const ValueId constant = node->input(1 - slot);
    const ValueId x = node->input(slot);
    if (ConstantOf(graph, constant) == nullptr || graph.value(x).is_constant()) continue;
    if (!IsPlainF32(graph, x) || !IsPlainF32(graph, constant)) continue;
    return Term{x, constant, node->is("Mul")};
  }
  return std::nullopt;
}

// The constant a * b or a + b; kNone where it would be larger than both, and where a float does not hold it: a product of factors too
// small is 0, though x may be as large as they are small.
ValueId Combine(Graph& graph, const Node& origin, ValueId a, ValueId b, bool product) {
  const Shape shapes[] = {*graph.value(a).shape, *graph.value(b).shape};
  const auto shape = Broadcast(shapes[0], shapes[1]);
  if (!shape || shape->elements() > std::max(shapes[0].elements(), shapes[1].elements()))
    return kNone;
  const BroadcastPlan plan(*shape, shapes);
  const auto left = graph.value(a).constant.span<float>();
  const auto right = graph.value(b).constant.span<float>();
  std::vector<float> combined(static_cast<size_t>(shape->elements()));
  bool holds = true;
  plan.ForEachRow(0, plan.elements(), [&](int64_t out, std::span<const int64_t> in, int64_t n) {
    for (int64_t k = 0; k < n; ++k) {
      const float l = left[in[0] + k * plan.stride(0)];
      const float r = right[in[1] + k * plan.stride(1)];
      const float both = product ? l * r : l + r;
      holds = holds && std::isfinite(both) && (!product || std::isnormal(both) || l == 0 || r == 0);
      combined[out + k] = both;
    }
  });
  if (!holds) return kNone;
  return AddFloats(graph, origin.name + "_folded", *shape, std::move(combined));
}

// Elements of the graph's inputs, at most converted or moved.
bool IsAsItCame(const Graph& graph, ValueId value) {
  while (!graph.is_graph_input(value)) {
    const Node* node = ProducerOf(graph, value);
    if (node == nullptr || node->inputs.empty() || node->input(0) == kNone) return false;
    const bool converts = node->is("Cast") || node->is("Convert", kOctetDomain);
    if (!converts && !MovesElements(*node)) return false;
    value = node->input(0);
  }
  return true;
}

bool FoldAffineAt(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  const auto outer = TermOf(graph, &node);
  if (!outer || graph.SoleConsumer(outer->x) != id) return false;
  const NodeId before = graph.producer(outer->x);
  const auto inner = TermOf(graph, ProducerOf(graph, outer->x));
  if (!inner || (inner->product && !outer->product)) return false;
  if (!inner->product && outer->product && IsAsItCame(graph, inner->x)) return false;
  const ValueId combined = Combine(graph, node, inner->constant, outer->constant, outer->product);
  if (combined == kNone) return false;
  if (inner->product == outer->product) {
    Replace(graph, id, MakeNode(node.op, node, {inner->x, combined}, {}));
  } else {
    const ValueId scaled = AddValue(graph, node.name + "_scaled", DType::kF32);
    graph.InsertNodeBefore(id, MakeNode("Mul", node, {inner->x, outer->constant}, {scaled}));
    Replace(graph, id, MakeNode("Add", node, {scaled, combined}, {}));
  }
  graph.RemoveNode(before);
  return true;
}

}  // namespace

absl::StatusOr<int> FoldAffine(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  // Each fold has one node less, or moves an Add behind a Mul: it ends.
  for (bool found = true; found;) {
    found = false;
    for (const NodeId id : graph.OrderSnapshot()) {
      if (!graph.alive(id) || !FoldAffineAt(graph, id)) continue;
      found = true;
      ++count;
    }
  }
  return count;
}

}  // namespace octet
