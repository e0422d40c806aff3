// Multiply-adds per operator: the weights of the certificate's shares.
#include <array>

#include "engine/ops/reference_step.h"

namespace octet {
namespace {

/// Shapes of a node, for counting. Unknown shapes read as empty ones.
struct NodeShapes {
  const Graph& graph;
  const Node& node;

  Shape Of(ValueId id) const {
    if (id == kNone || !graph.value(id).has_static_shape()) return Shape{0};
    return *graph.value(id).shape;
  }
  Shape input(size_t i) const { return Of(node.input(i)); }
  Shape output(size_t i) const { return Of(node.output(i)); }
};

int64_t Elements(const Shape& shape, int from, int to) {
  return from < to ? shape.elements(from, to) : 1;
}

/// Every output element takes IC/groups * KH * KW: the weights [OC, IC/g, k...] without axis 0.
int64_t ConvMacs(const NodeShapes& shapes, size_t weights) {
  const Shape w = shapes.input(weights);
  return shapes.output(0).elements() * Elements(w, 1, w.rank());
}

/// Every input element meets OC/groups * KH * KW: all weights, [IC, OC/g, k...] or octet's [OC, IC/g, k...], over IC.
int64_t ConvTransposeMacs(const NodeShapes& shapes) {
  const Shape w = shapes.input(1);
  if (w.rank() < 2) return 0;
  const bool canonical = shapes.node.domain == kOctetDomain;
  const int64_t channels = canonical ? w[1] * shapes.node.attributes.IntOr("group", 1) : w[0];
  return channels == 0 ? 0 : shapes.input(0).elements() * w.elements() / channels;
}

/// Every output element takes K, the last axis of A.
int64_t MatMulMacs(const NodeShapes& shapes) {
  const Shape a = shapes.input(0);
  return a.rank() == 0 ? 0 : shapes.output(0).elements() * a.back();
}

int64_t GemmMacs(const NodeShapes& shapes) {
  const Shape a = shapes.input(0);
  if (a.rank() != 2) return 0;
  const bool trans_a = shapes.node.attributes.IntOr("transA", 0) != 0;
  return shapes.output(0).elements() * a[trans_a ? 0 : 1];
}

/// Directions and gates are in W [D, G*H, I] and R [D, G*H, H]; x is [T, N, I].
int64_t RecurrentMacs(const NodeShapes& shapes) {
  const Shape x = shapes.input(0);
  if (x.rank() != 3) return 0;
  return x[0] * x[1] * (shapes.input(1).elements() + shapes.input(2).elements());
}

struct MacRule {
  std::string_view op;
  int64_t (*count)(const NodeShapes&);
};

constexpr std::array kMacRules = std::to_array<MacRule>({
    {"Conv", [](const NodeShapes& s) { return ConvMacs(s, 1); }},
    {"ConvInteger", [](const NodeShapes& s) { return ConvMacs(s, 1); }},
    {"QLinearConv", [](const NodeShapes& s) { return ConvMacs(s, 3); }},
    {"ConvTranspose", ConvTransposeMacs},
    {"MatMul", MatMulMacs},
    {"FourBitMatMul", MatMulMacs},
    {"MatMulInteger", MatMulMacs},
    {"DynamicQuantizeMatMul", MatMulMacs},
    {"QLinearMatMul", MatMulMacs},
    {"Gemm", GemmMacs},
    {"QGemm", GemmMacs},
    {"LSTM", RecurrentMacs},
    {"GRU", RecurrentMacs},
    {"RNN", RecurrentMacs},
});

}  // namespace

int64_t MultiplyAdds(const Graph& graph, const Node& node) {
  for (const MacRule& rule : kMacRules) {
    if (rule.op == node.op) return rule.count({graph, node});
  }
  return 0;
}

}  // namespace octet
