// import_qdq: QuantizeLinear and DequantizeLinear say what integers stand for; typed values say the same.
//
//   x:f32 -> QuantizeLinear(s, z) -> q:u8 -> Split -> a:u8, b:u8 -> DequantizeLinear(s, z) -> y:f32
//     =>  x -> octet:Convert -> q:u8{s,z} -> Split -> a:u8{s,z}, b:u8{s,z} -> octet:Convert -> y:f32
//
//   DequantizeLinear(c)  =>  an F32 constant, unless a Conv, octet:MatMul, LSTM, GRU or RNN may take the integers as its
//                            weights
//
// In two steps. Which integers become typed: 8-bit values that hang together through data movement form a class; it
// qualifies when every member is written by QuantizeLinear, data movement or the graph's inputs, and read by
// DequantizeLinear, data movement or the graph's outputs, all with one scale and zero point. Then what to do: the
// members get these, and the operators at the borders become octet:Convert. absorb_converts does the rest.
#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/ops/op.h"
#include "engine/ops/resize.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/quantization.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// 8-bit values that must be typed alike, as a union-find forest.
class IntegerClasses {
 public:
  explicit IntegerClasses(const Graph& graph)
      : graph_(graph), parent_(graph.value_count()), facts_(graph.value_count()) {
    std::iota(parent_.begin(), parent_.end(), 0);
    for (const NodeId id : graph.order()) Visit(graph.node(id));
  }

  /// What the value's integers stand for, when its class qualifies.
  const QuantParams* Params(ValueId value) {
    if (!IsMember(value)) return nullptr;
    const Facts& facts = facts_[Root(value)];
    return facts.qualifies && facts.params ? &*facts.params : nullptr;
  }

 private:
  struct Facts {
    bool qualifies = true;
    std::optional<QuantParams> params;
  };

  bool IsMember(ValueId id) const {
    if (id == kNone) return false;
    const Value& value = graph_.value(id);
    return IsInt8(value.dtype) && !value.quant && !value.is_constant();
  }

  ValueId Root(ValueId id) {
    while (parent_[id] != id) id = parent_[id] = parent_[parent_[id]];
    return id;
  }

  void Reject(ValueId id) {
    if (IsMember(id)) facts_[Root(id)].qualifies = false;
  }

  void Learn(ValueId id, const std::optional<QuantParams>& params) {
    if (!IsMember(id)) return;
    Facts& facts = facts_[Root(id)];
    if (!params || !params->per_tensor() || (facts.params && *facts.params != *params)) {
      facts.qualifies = false;
    } else {
      facts.params = params;
    }
  }

  void Join(ValueId a, ValueId b) {
    a = Root(a);
    b = Root(b);
    if (a == b) return;
    const Facts other = facts_[b];
    parent_[b] = a;
    facts_[a].qualifies =
        facts_[a].qualifies && other.qualifies && graph_.value(a).dtype == graph_.value(b).dtype;
    if (other.params) Learn(a, other.params);
  }

  void Visit(const Node& node) {
    if (node.is("QuantizeLinear") && IsPlainF32(graph_, node.input(0))) {
      return Learn(node.output(0), ParamsOf(graph_, node));
    }
    if (node.is("DequantizeLinear") && IsPlainF32(graph_, node.output(0))) {
      return Learn(node.input(0), ParamsOf(graph_, node));
    }
    // Pad writes integers of its own.
    const bool moves = node.op != "Pad" && (MovesElements(node) || ResizesByCopying(node));
    ValueId first = kNone;
    bool constants = false;
    for (const auto& list : {node.inputs, node.outputs}) {
      for (const ValueId id : list) {
        if (id != kNone && graph_.value(id).is_constant() && IsInt8(graph_.value(id).dtype))
          constants = true;
        if (!IsMember(id)) continue;
        if (!moves) Reject(id);
        if (moves && first != kNone) Join(first, id);
        first = id;
      }
    }
    if (constants) Reject(first);
  }

  const Graph& graph_;
  std::vector<ValueId> parent_;
  std::vector<Facts> facts_;
};

int TypeClasses(Graph& graph) {
  IntegerClasses classes(graph);
  std::vector<std::pair<ValueId, QuantParams>> typed;
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    if (const QuantParams* params = classes.Params(id)) typed.emplace_back(id, *params);
  }
  for (const auto& [id, params] : typed) graph.mutable_value(id).quant = params;
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    const Node& node = graph.node(id);
    const bool quantizes = node.is("QuantizeLinear") && IsTyped(graph.value(node.output(0)));
    const bool dequantizes = node.is("DequantizeLinear") && IsTyped(graph.value(node.input(0))) &&
                             !graph.value(node.input(0)).is_constant();
    if (!quantizes && !dequantizes) continue;
    Replace(graph, id, MakeNode("Convert", node, {node.input(0)}, {}, kOctetDomain));
    ++count;
  }
  return count;
}

// A layer reads the value as its weights, and may take the integers.
bool IsReadAsWeights(const Graph& graph, ValueId value) {
  return std::ranges::any_of(graph.consumers(value), [&](NodeId reader) {
    const Node& node = graph.node(reader);
    if (IsRecurrent(node)) return node.input(1) == value || node.input(2) == value;
    // A ConvTranspose of extents that are still open is none yet.
    return (IsMac(node) || node.is("ConvTranspose")) && node.input(1) == value;
  });
}

}  // namespace

absl::StatusOr<int> ImportQdq(Graph& graph, const PassContext& /*context*/) {
  int count = TypeClasses(graph);
  for (const NodeId id : graph.OrderSnapshot()) {
    const Node& node = graph.node(id);
    if (!node.is("DequantizeLinear") || IsReadAsWeights(graph, node.output(0))) continue;
    if (FoldDequantize(graph, id)) ++count;
  }
  return count;
}

}  // namespace octet
