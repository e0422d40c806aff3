// push_transposes: moves every Transpose towards the outputs, until it meets one that undoes it.
//
//   .. -> Conv -> Transpose:f32[N,C,H,W] -> Relu -> Transpose:f32[N,H,W,C] -> Conv -> ..
//     =>  .. -> Conv -> Relu:f32[N,H,W,C] -> Conv -> ..
//
// How each operator is passed: transpose_rules.h. At the end, what is left is made cheap: equal ones are merged, those
// behind a widening octet:Convert go before it, and those that move only extents of 1 become a Reshape.
#include <algorithm>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"
#include "engine/passes/transpose_rules.h"

namespace octet {
namespace {

// Each round lets a Transpose sink as far as it can and then cancels pairs; residual branches need a few.
constexpr int kMaxPushes = 12;

class TransposePusher {
 public:
  explicit TransposePusher(Graph& graph) : graph_(graph) {}

  int Run() {
    int total = WriteOutPerms();
    for (int round = 0; round < kMaxPushes; ++round) {
      int count = 0;
      for (const NodeId id : graph_.OrderSnapshot()) {
        if (graph_.alive(id)) count += Visit(id);
      }
      graph_.RemoveDead();
      total += count;
      if (count == 0) break;
    }
    for (const NodeId id : graph_.OrderSnapshot()) {
      if (!graph_.alive(id) || !graph_.node(id).is("Transpose")) continue;
      total += MergeEqual(id) || Narrow(id) || Flatten(id);
    }
    return total;
  }

 private:
  // Without the attribute, a Transpose reverses the axes: written out, so that the rest need not know.
  int WriteOutPerms() {
    int count = 0;
    for (const NodeId id : graph_.order()) {
      Node& node = graph_.mutable_node(id);
      if (!node.is("Transpose") || node.attributes.has("perm")) continue;
      const int rank = RankOf(graph_, node.input(0));
      if (rank < 0) continue;
      Permutation perm;
      for (int i = rank - 1; i >= 0; --i) perm.push_back(i);
      node.attributes.Set("perm", perm);
      ++count;
    }
    return count;
  }

  int Visit(NodeId id) {
    if (graph_.node(id).is("Transpose")) return Merge(id);
    for (const ValueId input : graph_.node(id).inputs) {
      const Permutation perm = TransposedBy(graph_, input);
      if (perm.empty() || IsIdentity(perm) || RankOf(graph_, input) != std::ssize(perm)) continue;
      return PassThrough(graph_, id, perm);
    }
    return 0;
  }

  // Transpose(Transpose(x)) -> one, or none.
  int Merge(NodeId id) {
    const Permutation perm = TransposedBy(graph_, graph_.node(id).output(0));
    if (!perm.empty() && IsIdentity(perm)) return Bypass(graph_, id);
    const ValueId x = graph_.node(id).input(0);
    const Permutation first = TransposedBy(graph_, x);
    if (first.size() != perm.size() || perm.empty()) return 0;
    const Permutation both = Compose(first, perm);
    const ValueId source = graph_.node(graph_.producer(x)).input(0);
    graph_.SetInput(id, 0, source);
    graph_.mutable_node(id).attributes.Set("perm", both);
    if (IsIdentity(both)) Bypass(graph_, id);
    return 1;
  }

  bool MergeEqual(NodeId id) {
    const ValueId output = graph_.node(id).output(0);
    const auto order = graph_.order();
    const auto at = std::ranges::find(order, id);
    for (const NodeId other : graph_.consumers(graph_.node(id).input(0))) {
      if (other == id || !graph_.node(other).is("Transpose")) continue;
      const ValueId same = graph_.node(other).output(0);
      if (TransposedBy(graph_, same) != TransposedBy(graph_, output)) continue;
      if (std::ranges::find(order, other) > at || !MayReplace(graph_, output, same)) continue;
      graph_.RemoveNode(id);
      graph_.ReplaceUses(output, same);
      return true;
    }
    return false;
  }

  // x:u8 -> Convert:f32 -> Transpose  =>  x -> Transpose:u8 -> Convert:f32
  bool Narrow(NodeId id) {
    const Node transpose = graph_.node(id);
    const NodeId convert = ProducerIf(graph_, transpose.input(0), "Convert", kOctetDomain);
    if (convert == kNone || graph_.SoleConsumer(transpose.input(0)) != id) return false;
    const ValueId x = graph_.node(convert).input(0);
    const Value& narrow = graph_.value(x);
    if (SizeOf(narrow.dtype) >= SizeOf(graph_.value(transpose.output(0)).dtype)) return false;
    if (narrow.quant && !narrow.quant->per_tensor()) return false;
    const ValueId moved = AddValue(graph_, narrow.name + "_t", narrow.dtype,
                                   graph_.value(transpose.output(0)).shape, narrow.quant);
    Node before = MakeNode("Transpose", transpose, {x}, {moved});
    before.attributes = transpose.attributes;
    const NodeId inserted = graph_.InsertNodeBefore(id, std::move(before));
    Replace(graph_, id, MakeNode("Convert", graph_.node(convert), {moved}, {}, kOctetDomain));
    Flatten(inserted);
    return true;
  }

  bool Flatten(NodeId id) {
    const Node transpose = graph_.node(id);
    const auto& shape = graph_.value(transpose.input(0)).shape;
    const Permutation perm = TransposedBy(graph_, transpose.output(0));
    if (!shape || perm.empty() || !MovesOnlyOnes(*shape, perm)) return false;
    const Shape target = Permute(*shape, perm);
    if (std::ranges::count(target, kUnknownDim) > 1 || std::ranges::find(target, 0) != target.end())
      return false;
    const ValueId extents =
        AddInts(graph_, transpose.name + "_shape", {target.begin(), target.end()});
    Replace(graph_, id, MakeNode("Reshape", transpose, {transpose.input(0), extents}, {}));
    return true;
  }

  Graph& graph_;
};

}  // namespace

absl::StatusOr<int> PushTransposes(Graph& graph, const PassContext& /*context*/) {
  return TransposePusher(graph).Run();
}

}  // namespace octet
