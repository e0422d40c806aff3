// fuse_concat: a normalization of what a Concat joins reads the parts where they are, and nothing is joined.
//
//   a:f32, b:f32 -> Concat(last axis) -> c -> Mul(f) + add(g) -> y:u8{s}   =>  a, b -> Concat + mul(f) + add(g) -> y:u8{s}
//   the same with y:f32, and with a, b and y:bf16
//   c, d:f32 -> Concat -> e                                                =>  a, b, d -> Concat -> e
//
// Both together, where c is read by these alone: in a block of a DenseNet each layer normalizes, by constants of its own, what all
// layers before it have made, and what it makes is joined to that.
#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/post_ops.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

/// Inputs of a Concat up to which it takes in those of another: nested ones without end would make lists without end.
constexpr size_t kMostParts = 64;

bool IsJoin(const Graph& graph, const Node& node) {
  if (!node.is("Concat") || !node.post_ops.empty() || !IsPlainReal(graph, node.output(0)))
    return false;
  const DType dtype = graph.value(node.output(0)).dtype;
  const int rank = RankOf(graph, node.output(0));
  const auto axis = rank < 1 ? std::nullopt : NormalizeAxis(node.attributes.IntOr("axis", 0), rank);
  return axis == rank - 1 && std::ranges::all_of(node.inputs, [&](ValueId part) {
           return IsPlainReal(graph, part) && graph.value(part).dtype == dtype;
         });
}

/// The slot of the constant by which a Mul normalizes `joined` (LowerChannelAffine), kNone for other nodes.
int FactorSlot(const Graph& graph, const Node& node, ValueId joined) {
  if (!node.is("Mul")) return kNone;
  const Value& y = graph.value(node.output(0));
  const DType dtype = graph.value(joined).dtype;
  if (IsTypedInt8(y) ? dtype != DType::kF32 : y.quant || y.dtype != dtype) return kNone;
  const int rank = RankOf(graph, joined);
  const int64_t channels = graph.value(joined).shape->back();
  if (rank != RankOf(graph, node.output(0)) || channels == kUnknownDim) return kNone;
  const auto per_channel = [&](int slot) {
    const ValueId operand = node.input(static_cast<size_t>(slot));
    return IsPlainF32(graph, operand) && PerChannel(graph, operand, rank, rank - 1, channels);
  };
  const int factor = node.input(0) == joined ? 1 : 0;
  if (!per_channel(factor)) return kNone;
  bool activates = false;
  for (const PostOp& op : node.post_ops) {
    const bool bounds =
        op.kind == PostOp::Kind::kRelu || (op.kind == PostOp::Kind::kClip && op.alpha <= op.beta);
    if (HasOperand(op.kind) ? activates || !per_channel(op.operand) : !bounds) return kNone;
    activates = activates || bounds;
  }
  return factor;
}

/// Whether all that reads what a Concat joins is better off with the parts.
bool IsTakenApart(const Graph& graph, const Node& join) {
  const ValueId joined = join.output(0);
  if (std::ranges::contains(graph.outputs, joined)) return false;
  bool normalizes = false;
  for (const NodeId reader : graph.consumers(joined)) {
    const Node& node = graph.node(reader);
    if (FactorSlot(graph, node, joined) != kNone) {
      normalizes = true;
      continue;
    }
    const auto times = static_cast<size_t>(std::ranges::count(node.inputs, joined));
    if (!IsJoin(graph, node) ||
        node.inputs.size() + times * (join.inputs.size() - 1) > kMostParts) {
      return false;
    }
  }
  return normalizes && join.inputs.size() <= kMostParts;
}

/// Returns the node that is there in place of `reader`.
NodeId ReadParts(Graph& graph, NodeId reader, const Node& join) {
  const ValueId joined = join.output(0);
  Node node = graph.node(reader);
  const int factor = FactorSlot(graph, node, joined);
  std::vector<ValueId> inputs;
  if (factor == kNone) {
    for (const ValueId part : node.inputs) {
      if (part == joined) {
        inputs.insert(inputs.end(), join.inputs.begin(), join.inputs.end());
      } else {
        inputs.push_back(part);
      }
    }
    node.inputs = std::move(inputs);
    return Replace(graph, reader, std::move(node));
  }
  inputs = join.inputs;
  const auto operand = [&](PostOp op, int slot) {
    op.operand = static_cast<int>(inputs.size());
    inputs.push_back(node.input(static_cast<size_t>(slot)));
    return op;
  };
  std::vector<PostOp> post_ops = {operand({PostOp::Kind::kMul}, factor)};
  for (const PostOp& op : node.post_ops)
    post_ops.push_back(HasOperand(op.kind) ? operand(op, op.operand) : op);
  Node normalized = MakeNode("Concat", node, std::move(inputs), {});
  normalized.attributes.Set("axis", static_cast<int64_t>(RankOf(graph, joined) - 1));
  normalized.post_ops = std::move(post_ops);
  return Replace(graph, reader, std::move(normalized));
}

}  // namespace

absl::StatusOr<int> FuseConcat(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  std::unordered_map<NodeId, NodeId> replaced;
  for (NodeId id : graph.OrderSnapshot()) {
    for (auto now = replaced.find(id); now != replaced.end(); now = replaced.find(id))
      id = now->second;
    if (!graph.alive(id) || !IsJoin(graph, graph.node(id))) continue;
    const Node join = graph.node(id);
    if (!IsTakenApart(graph, join)) continue;
    const auto consumers = graph.consumers(join.output(0));
    const std::set<NodeId> readers(consumers.begin(), consumers.end());
    for (const NodeId reader : readers) replaced[reader] = ReadParts(graph, reader, join);
    graph.RemoveNode(id);
    ++count;
  }
  return count;
}

}  // namespace octet
