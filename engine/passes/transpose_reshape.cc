// How a Transpose passes a Reshape: axes that the Reshape splits or merges move as blocks.
//
//   x[N,H,W,C] -> Transpose:[N,C,H,W] -> Reshape:[N,2,C/2,H,W]
//     =>  x -> Reshape:[N,H,W,2,C/2] -> Transpose:[N,2,C/2,H,W]
//   x[N,H,W,C] -> Transpose:[N,C,H,W] -> Reshape:[N,C,HW]
//     =>  x -> Reshape:[N,HW,C] -> Transpose:[N,C,HW]
//   x[N,H,W,2,D] -> Transpose:[N,D,2,H,W] -> Reshape:[N,D*2,H,W]             (the second half of a channel shuffle)
//     =>  x -> Transpose:[N,H,W,D,2] -> Reshape:[N,H,W,D*2] -> Transpose:[N,D*2,H,W]
//   x[N,H,W,C] -> Transpose:[N,C,H,W] -> Reshape:[N,CHW] -> octet:MatMul(B[CHW,M])
//     =>  x -> Reshape:[N,HWC] -> octet:MatMul(B[HWC,M])                      (B is constant: its rows move instead)
#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/passes/match.h"
#include "engine/passes/reshape_groups.h"
#include "engine/passes/rewrite.h"
#include "engine/passes/transpose_rules.h"

namespace octet {
namespace {

// What becomes of Transpose(perm) -> Reshape: Transpose(before) -> Reshape to `middle` -> Transpose(behind).
struct Exchange {
  Permutation before;
  Shape middle;
  Permutation behind;
};

// The source axes that a group reads, in the order in which the Transpose hands them on.
Permutation SourcesOf(const AxisGroup& group, const Permutation& perm) {
  return {perm.begin() + group.in_begin, perm.begin() + group.in_end};
}

Exchange Plan(const std::vector<AxisGroup>& groups, const Permutation& perm, const Shape& out) {
  // Blocks in the order of their first axis in the source.
  std::vector<size_t> order(groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto first = [&](size_t g) { return std::ranges::min(SourcesOf(groups[g], perm)); };
  std::ranges::sort(order, {}, first);
  Exchange exchange;
  std::vector<int64_t> position(static_cast<size_t>(out.rank()));
  for (const size_t g : order) {
    for (const int64_t axis : SourcesOf(groups[g], perm)) exchange.before.push_back(axis);
    for (int o = groups[g].out_begin; o < groups[g].out_end; ++o) {
      position[o] = exchange.middle.rank();
      exchange.middle.push_back(out[o]);
    }
  }
  exchange.behind = position;
  return exchange;
}

void SetTarget(Graph& graph, NodeId id, const Shape& shape) {
  const ValueId target =
      AddInts(graph, graph.node(id).name + "_shape", {shape.begin(), shape.end()});
  graph.SetInput(id, 1, target);
  Node& node = graph.mutable_node(id);
  node.op = "Reshape";
  node.version = kPassOpset;
  node.attributes.Erase("axis");
  node.attributes.Erase("allowzero");
}

// Reorders the elements [begin of the group] of B's K axis from the Transpose's order to the source's.
// `last`: nobody reads B any more.
Tensor MoveRows(const Tensor& b, bool transposed, const Shape& block, const Permutation& order,
                bool last) {
  Shape wide;
  Permutation perm;
  const int64_t columns = b.shape()[transposed ? 0 : 1];
  if (transposed) {
    wide.push_back(columns);
    perm.push_back(0);
  }
  for (size_t i = 0; i < order.size(); ++i) {
    wide.push_back(block[static_cast<int>(i)]);
    perm.push_back(order[i] + (transposed ? 1 : 0));
  }
  if (!transposed) {
    wide.push_back(columns);
    perm.push_back(static_cast<int64_t>(order.size()));
  }
  const Tensor seen = b.Reshaped(wide);
  return (last ? PermuteInPlace(seen, perm) : Permute(seen, perm)).Reshaped(b.shape());
}

// The last case of the drawing. The rows that one Reshape group gathers are permuted inside of it.
bool MoveIntoWeights(Graph& graph, NodeId id, const std::vector<AxisGroup>& groups,
                     const Permutation& perm) {
  const ValueId flat = graph.node(id).output(0);
  const NodeId product = graph.SoleConsumer(flat);
  if (product == kNone || !graph.node(product).is("MatMul", kOctetDomain)) return false;
  const Node& mac = graph.node(product);
  const Tensor* b = ConstantOf(graph, mac.input(1));
  if (b == nullptr || b->shape().rank() != 2 || mac.input(0) != flat || RankOf(graph, flat) < 2)
    return false;
  const AxisGroup last = groups.back();
  if (last.out_end - last.out_begin != 1) return false;
  const Permutation sources = SourcesOf(last, perm);
  Permutation order(sources.size());  // Of the block's axes, as the source has them.
  std::iota(order.begin(), order.end(), int64_t{0});
  std::ranges::sort(order, {}, [&](int64_t i) { return sources[i]; });
  // With that order, the Transpose must be gone.
  Permutation rest(perm.begin(), perm.begin() + last.in_begin);
  for (const int64_t i : order) rest.push_back(sources[i]);
  if (!IsIdentity(rest)) return false;
  const Shape& seen = *graph.value(graph.node(id).input(0)).shape;
  Shape block;
  for (int i = last.in_begin; i < last.in_end; ++i) block.push_back(seen[i]);
  const bool transposed = mac.attributes.IntOr("trans_b", 0) != 0;
  const Value& old = graph.value(mac.input(1));
  if (!block.is_static() || block.elements() != b->shape()[transposed ? 1 : 0]) return false;
  if (old.quant && !old.quant->per_tensor() && old.quant->axis != (transposed ? 0 : 1))
    return false;
  const bool sole = graph.SoleConsumer(mac.input(1)) == product && b->owner().use_count() == 1;
  const std::string name = old.name;
  const std::optional<QuantParams> quant = old.quant;
  graph.SetInput(product, 1,
                 graph.AddConstant(name, MoveRows(*b, transposed, block, order, sole), quant));
  TransposeInput(graph, id, 0, Inverse(perm));
  SetTarget(graph, id, Shape(*graph.value(flat).shape));
  return true;
}

}  // namespace

bool PassThroughReshape(Graph& graph, NodeId id, const Permutation& perm) {
  const Node& node = graph.node(id);
  const auto& seen = graph.value(node.input(0)).shape;
  const auto& written = graph.value(node.output(0)).shape;
  if (!seen || !written || !node.post_ops.empty()) return false;
  const auto groups = GroupAxes(*seen, *written);
  if (!groups) return false;
  for (const AxisGroup& group : *groups) {
    if (group.in_end - group.in_begin > 1 && group.out_end - group.out_begin > 1) return false;
  }
  const Exchange exchange = Plan(*groups, perm, *written);
  // Nothing would get past: the elements of one block are in another order.
  if (IsIdentity(exchange.behind) && !IsIdentity(exchange.before)) {
    return MoveIntoWeights(graph, id, *groups, perm);
  }
  TransposeInput(graph, id, 0, Inverse(perm));
  TransposeInput(graph, id, 0, exchange.before);
  SetTarget(graph, id, exchange.middle);
  TransposeOutput(graph, id, 0, exchange.behind);
  return true;
}

}  // namespace octet
