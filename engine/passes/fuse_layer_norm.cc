// fuse_layer_norm: layer normalization, written out with means and differences.
//
//   m = ReduceMean(x), d = x - m, v = ReduceMean(d * d), n = d / Sqrt(v + epsilon), y = n * scale + bias
//     =>  y = LayerNormalization(x, scale, bias) {axis, epsilon}
//
// scale and bias may be absent. Means run over the last axis, with keepdims. Source: Ba et al. 2016; ONNX
// LayerNormalization (opset 17).
#include <utility>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/product.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

constexpr int kLayerNormOpset = 17;

// The input of a ReduceMean over the last axis that keeps it, else kNone.
ValueId MeanArgument(const Graph& graph, ValueId value) {
  const Node* node = ProducerOf(graph, value);
  if (node == nullptr || !node->is("ReduceMean") || node->attributes.IntOr("keepdims", 1) == 0)
    return kNone;
  const int rank = RankOf(graph, node->input(0));
  std::optional<std::vector<int64_t>> axes;
  if (node->input(1) != kNone) {
    axes = IntsOf(graph, node->input(1));
  } else if (const auto ints = node->attributes.Ints("axes", {}); ints.ok()) {
    axes = *ints;
  }
  if (rank < 1 || !axes || axes->size() != 1) return kNone;
  const int64_t axis = axes->front();
  return axis == -1 || axis == rank - 1 ? node->input(0) : kNone;
}

// x of d = x - mean(x), else kNone.
ValueId CentredArgument(const Graph& graph, ValueId d) {
  const Node* sub = ProducerOf(graph, d);
  if (sub == nullptr || !sub->is("Sub") || !sub->post_ops.empty()) return kNone;
  const ValueId x = sub->input(0);
  return MeanArgument(graph, sub->input(1)) == x ? x : kNone;
}

struct Normalized {
  ValueId x = kNone;
  float epsilon = 0;
};

// x and epsilon of sqrt(mean(d * d) + epsilon), where d (or another difference like it) is x - mean(x).
std::optional<Normalized> Deviation(const Graph& graph, ValueId value) {
  const NodeId root = ProducerIf(graph, value, "Sqrt");
  if (root == kNone) return std::nullopt;
  const Shifted variance = AsShifted(graph, graph.node(root).input(0));
  if (variance.other == kNone || variance.constant < 0) return std::nullopt;
  const ValueId square = MeanArgument(graph, variance.other);
  if (square == kNone) return std::nullopt;
  const Product p = Factorize(graph, square);
  if (p.constant != 1.0F || p.factors.size() != 2) return std::nullopt;
  const ValueId x = CentredArgument(graph, p.factors[0]);
  if (x == kNone || CentredArgument(graph, p.factors[1]) != x) return std::nullopt;
  return Normalized{x, variance.constant};
}

// n = d / sqrt(..), or d * (1 / sqrt(..)) through Reciprocal or Div(1, ..).
std::optional<Normalized> MatchNormalized(const Graph& graph, const Node& node) {
  if (!node.post_ops.empty()) return std::nullopt;
  if (node.is("Div")) {
    const auto deviation = Deviation(graph, node.input(1));
    if (deviation && CentredArgument(graph, node.input(0)) == deviation->x) return deviation;
    return std::nullopt;
  }
  if (!node.is("Mul")) return std::nullopt;
  for (const size_t slot : {0, 1}) {
    const Node* inverse = ProducerOf(graph, node.input(slot));
    if (inverse == nullptr) continue;
    const bool reciprocal = inverse->is("Reciprocal");
    const bool one_over = inverse->is("Div") && ScalarOf(graph, inverse->input(0)) == 1.0F;
    if (!reciprocal && !one_over) continue;
    const auto deviation = Deviation(graph, inverse->input(reciprocal ? 0 : 1));
    if (deviation && CentredArgument(graph, node.input(1 - slot)) == deviation->x) return deviation;
  }
  return std::nullopt;
}

// When the only reader of `value` is `op` with a constant of `extent` elements along the last axis: that reader.
struct Reader {
  NodeId node = kNone;
  std::vector<float> constant;
};
Reader ReaderWithConstant(const Graph& graph, ValueId value, std::string_view op, int64_t extent) {
  const NodeId next = graph.SoleConsumer(value);
  if (next == kNone || !graph.node(next).is(op) || !graph.node(next).post_ops.empty()) return {};
  const Node& node = graph.node(next);
  const ValueId other = node.input(node.input(0) == value ? 1 : 0);
  const int rank = RankOf(graph, value);
  auto floats = PerChannel(graph, other, rank, rank - 1, extent);
  return floats ? Reader{next, *std::move(floats)} : Reader{};
}

bool FuseLayerNormAt(Graph& graph, NodeId id) {
  const auto match = MatchNormalized(graph, graph.node(id));
  if (!match || !IsPlainF32(graph, match->x)) return false;
  if (!SameRank(graph, match->x, graph.node(id).output(0))) return false;
  const int64_t extent = graph.value(match->x).shape->back();
  if (extent == kUnknownDim) return false;
  const Node origin = graph.node(id);
  NodeId last = id;
  std::vector<float> scale(static_cast<size_t>(extent), 1.0F);
  std::vector<float> bias;
  if (Reader mul = ReaderWithConstant(graph, origin.output(0), "Mul", extent); mul.node != kNone) {
    scale = std::move(mul.constant);
    last = mul.node;
  }
  if (Reader add = ReaderWithConstant(graph, graph.node(last).output(0), "Add", extent);
      add.node != kNone) {
    bias = std::move(add.constant);
    last = add.node;
  }
  Node norm = MakeNode("LayerNormalization", origin, {match->x}, {});
  norm.version = kLayerNormOpset;
  norm.inputs.push_back(AddFloats(graph, origin.name + "_scale", Shape{extent}, std::move(scale)));
  if (!bias.empty())
    norm.inputs.push_back(AddFloats(graph, origin.name + "_bias", Shape{extent}, std::move(bias)));
  norm.attributes.Set("axis", int64_t{-1});
  norm.attributes.Set("epsilon", match->epsilon);
  Replace(graph, last, std::move(norm));
  return true;
}

}  // namespace

absl::StatusOr<int> FuseLayerNorm(Graph& graph, const PassContext& /*context*/) {
  return RewriteEach(graph, {}, FuseLayerNormAt);
}

}  // namespace octet
