#include "engine/passes/batch_dims.h"

#include <algorithm>
#include <array>

#include "engine/ops/op.h"
#include "engine/passes/match.h"

namespace octet {
namespace {

// Operators whose output has the extent 0 of their input 0, whatever their attributes say.
constexpr std::array kKeepFirst = {
    std::string_view("Conv"),
    std::string_view("ConvTranspose"),
    std::string_view("FourBitMatMul"),
    std::string_view("MaxPool"),
    std::string_view("AveragePool"),
    std::string_view("GlobalAveragePool"),
    std::string_view("GlobalMaxPool"),
    std::string_view("BatchNormalization"),
    std::string_view("LayerNormalization"),
    std::string_view("Softmax"),
    std::string_view("QuantizeLinear"),
    std::string_view("DequantizeLinear"),
    std::string_view("Convert"),
    std::string_view("Cast"),
};

// Their axis tells whether they touch extent 0.
constexpr std::array kByAxis = {std::string_view("Concat"), std::string_view("Split"),
                                std::string_view("Gather")};

bool UnknownFirst(const Graph& graph, ValueId value) {
  if (value == kNone || RankOf(graph, value) < 1) return false;
  return (*graph.value(value).shape)[0] == kUnknownDim;
}

// The first of inputs [0, count) with an unknown extent 0 that reaches the output; kNone when two of different origins
// meet there: one of them may turn out as 1.
ValueId OnlyUnknown(const Graph& graph, const Node& node, size_t count,
                    const std::vector<ValueId>& origin) {
  ValueId from = kNone;
  for (size_t i = 0; i < std::min(count, node.inputs.size()); ++i) {
    const ValueId v = node.inputs[i];
    if (!UnknownFirst(graph, v) || !SameRank(graph, v, node.output(0))) continue;
    if (from != kNone && origin[from] != origin[v]) return kNone;
    from = v;
  }
  return from;
}

// Concat, Split and Gather along another axis: all of them agree in extent 0.
ValueId HandedByAxis(const Graph& graph, const Node& node) {
  const auto axis =
      NormalizeAxis(node.attributes.IntOr("axis", 0), std::max(RankOf(graph, node.input(0)), 1));
  if (!axis || *axis == 0) return kNone;
  const size_t count = node.is("Concat") ? node.inputs.size() : 1;
  for (size_t i = 0; i < count; ++i) {
    if (UnknownFirst(graph, node.inputs[i])) return node.inputs[i];
  }
  return kNone;
}

// A Slice or Pad that names its axes and extents by constants, and leaves axis 0 alone.
bool KeepsFirst(const Graph& graph, const Node& node) {
  const auto rank = static_cast<int64_t>(RankOf(graph, node.input(0)));
  if (node.is("Slice")) {
    if (node.version < 10) return false;
    const auto axes = IntsOf(graph, node.input(3));
    return axes && std::ranges::none_of(*axes, [&](int64_t a) { return a == 0 || a == -rank; });
  }
  const auto pads = IntsOf(graph, node.input(1));
  return node.version >= 11 && node.input(3) == kNone && pads && std::ssize(*pads) == 2 * rank &&
         (*pads)[0] == 0 && (*pads)[rank] == 0;
}

// The input whose extent 0 the node's outputs have, or kNone.
ValueId Handed(const Graph& graph, const Node& node, const std::vector<ValueId>& origin) {
  const auto listed = [&](const auto& names) {
    return std::ranges::find(names, std::string_view(node.op)) != names.end();
  };
  if (listed(kByAxis)) return HandedByAxis(graph, node);
  if (node.is("MatMul", kOctetDomain) && RankOf(graph, node.output(0)) > 2)
    return OnlyUnknown(graph, node, 2, origin);
  const OpDef* def = FindOp(node);
  if (def == nullptr) return kNone;
  if (def->traits.elementwise_broadcast)
    return OnlyUnknown(graph, node, node.inputs.size(), origin);
  const ValueId first = node.input(0);
  if (!UnknownFirst(graph, first)) return kNone;
  if (listed(kKeepFirst) || def->traits.elementwise_unary || node.is("MatMul", kOctetDomain))
    return first;
  if (node.is("Slice") || node.is("Pad")) return KeepsFirst(graph, node) ? first : kNone;
  if (node.is("Transpose")) {
    const auto perm = node.attributes.Ints("perm", {});
    if (perm.ok() && !perm->empty() && perm->front() == 0) return first;
  }
  return kNone;
}

}  // namespace

BatchDims::BatchDims(const Graph& graph) : origin_(graph.value_count()) {
  for (ValueId id = 0; id < graph.value_count(); ++id) origin_[id] = id;
  for (const NodeId id : graph.order()) {
    const Node& node = graph.node(id);
    const ValueId from = Handed(graph, node, origin_);
    if (from == kNone) continue;
    for (const ValueId out : node.outputs) {
      if (out != kNone) origin_[out] = origin_[from];
    }
  }
}

bool BatchDims::SameShape(const Graph& graph, ValueId a, ValueId b) const {
  const auto& x = graph.value(a).shape;
  const auto& y = graph.value(b).shape;
  if (!x || !y || x->rank() != y->rank()) return false;
  for (int i = 0; i < x->rank(); ++i) {
    if ((*x)[i] != (*y)[i]) return false;
    if ((*x)[i] != kUnknownDim) continue;
    const auto known = [&](ValueId v) { return v < static_cast<ValueId>(origin_.size()); };
    if (i != 0 || !known(a) || !known(b) || origin_[a] != origin_[b]) return false;
  }
  return true;
}

}  // namespace octet
