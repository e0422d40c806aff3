// fold_scale: a constant factor per channel behind a Conv or octet:MatMul belongs into its weights.
//
//   x:f32 -> Conv(w, b) -> f32 -> Mul(c:f32[OC,1,1]) -> y     =>  x -> Conv(w * c, b * c) -> y
//
// octet:MatMul alike; Div by a constant is a Mul by its reciprocal. Factors that the weights or the bias would be infinite with, or so small
// that they lose bits, stay: what they multiply is as large, or as small, as they are the other way.
#include <algorithm>
#include <cmath>

#include "engine/passes/channel_reach.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// The largest magnitude of each channel's weights, which lie in rows of one channel each, or of one weight of every channel.
std::vector<float> Reaches(const std::vector<float>& weights, size_t channels, bool rows) {
  std::vector<float> reaches(channels);
  const size_t row = weights.size() / channels;
  for (size_t i = 0; i < weights.size(); ++i) {
    float& reach = reaches[rows ? i / row : i % channels];
    reach = std::max(reach, std::abs(weights[i]));
  }
  return reaches;
}

// Multiplies the constant weights and bias of a Conv or octet:MatMul by one factor per output channel.
bool ScaleWeights(Graph& graph, NodeId id, const std::vector<float>& factors) {
  const Node& mac = graph.node(id);
  auto weights = FloatsOf(graph, mac.input(1));
  if (!weights) return false;
  const Shape shape = *graph.value(mac.input(1)).shape;
  const bool conv = IsConvolution(mac);
  if (!conv && shape.rank() != 2) return false;
  std::optional<std::vector<float>> bias;
  if (mac.input(2) != kNone) {
    bias = FloatsOf(graph, mac.input(2));
    if (!bias || bias->size() != factors.size()) return false;
  }
  const bool rows = conv || mac.attributes.IntOr("trans_b", 0) != 0;
  const std::vector<float> reaches = Reaches(*weights, factors.size(), rows);
  for (size_t c = 0; c < factors.size(); ++c) {
    if (!TakesFactor(reaches[c], factors[c])) return false;
    if (bias && std::isfinite((*bias)[c]) && !std::isfinite((*bias)[c] * factors[c])) return false;
  }
  for (size_t c = 0; bias && c < factors.size(); ++c) (*bias)[c] *= factors[c];
  // Rows of one channel each, or rows of one weight of every channel.
  const size_t row = rows ? weights->size() / factors.size() : factors.size();
  for (size_t begin = 0; begin < weights->size(); begin += row) {
    for (size_t i = begin; i < begin + row; ++i)
      (*weights)[i] *= factors[rows ? begin / row : i - begin];
  }
  graph.SetInput(
      id, 1,
      AddFloats(graph, graph.value(graph.node(id).input(1)).name, shape, *std::move(weights)));
  if (bias) {
    const Shape flat{static_cast<int64_t>(bias->size())};
    graph.SetInput(
        id, 2, AddFloats(graph, graph.value(graph.node(id).input(2)).name, flat, *std::move(bias)));
  }
  return true;
}

bool FoldScaleAt(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!node.post_ops.empty()) return false;
  for (const size_t slot : {0, 1}) {
    if (slot == 1 && node.is("Div")) break;
    const ValueId product = node.input(slot);
    const Node* mac = ProducerOf(graph, product);
    if (mac == nullptr || !IsMac(*mac) || !mac->post_ops.empty()) continue;
    if (graph.SoleConsumer(product) != id || !IsPlainF32(graph, product)) continue;
    auto factors = PerChannel(graph, node.input(1 - slot), RankOf(graph, product),
                              ChannelAxis(graph, *mac), ChannelCount(graph, *mac));
    if (!factors || factors->empty()) continue;
    if (node.is("Div")) {
      for (float& f : *factors) f = 1.0F / f;
    }
    if (!std::ranges::all_of(*factors, [](float f) { return std::isfinite(f); })) continue;
    const NodeId into = graph.producer(product);
    if (!ScaleWeights(graph, into, *factors)) continue;
    TakeOver(graph, into, id);
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<int> FoldScale(Graph& graph, const PassContext& /*context*/) {
  return RewriteEach(graph, {"Mul", "Div"}, FoldScaleAt);
}

}  // namespace octet
