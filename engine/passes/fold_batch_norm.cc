// fold_batch_norm: at inference a BatchNormalization is a factor and an addend per channel.
//
//   y = x * f + g,  f = scale / sqrt(var + epsilon),  g = bias - mean * f      (constants, per channel)
//
//   x:f32 -> Conv(w, b) -> BatchNormalization -> y   =>  x -> Conv(w * f, b * f + g) -> y     (octet:MatMul, ConvTranspose alike)
//   x:f32 -> BatchNormalization -> Conv(w, b) -> y   =>  x -> Conv(w * f, b + sum w * g) -> y (without padding)
//   x:f32[N,C,..] -> BatchNormalization -> y         =>  x -> Mul(f) -> Add(g) -> y           (C known)
//
// What no FLOAT holds stays a BatchNormalization: f and g, weights and biases that would be infinite, and weights that would lose bits
// (channel_reach.h), but where scale is next to 0.
//
// Source: ONNX BatchNormalization; outputs besides Y belong to training and must be unread.
#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/passes/channel_reach.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

struct Affine {
  std::vector<double> factor;
  std::vector<double> addend;
  std::vector<float> scale;
  size_t channels() const { return factor.size(); }
};

bool FloatHolds(double x) { return std::isfinite(static_cast<float>(x)); }

// Whether weights of these magnitudes, one for each channel, take the factors. What a scale of next to 0 leaves of a channel is its addend.
bool TakeFactors(std::span<const float> reaches, const Affine& affine) {
  for (size_t c = 0; c < affine.channels(); ++c) {
    const float least = std::abs(affine.scale[c]) < kLeastReach ? 0 : kLeastReach;
    if (!TakesFactor(reaches[c], affine.factor[c], least)) return false;
  }
  return true;
}

// Whether a bias is as finite as it was.
bool StaysFinite(std::span<const double> before, std::span<const double> after) {
  for (size_t c = 0; c < before.size(); ++c) {
    if (std::isfinite(before[c]) && !FloatHolds(after[c])) return false;
  }
  return true;
}

absl::StatusOr<std::optional<Affine>> AffineOf(const Graph& graph, const Node& node) {
  if (node.attributes.IntOr("training_mode", 0) != 0) return std::nullopt;
  for (size_t i = 1; i < node.outputs.size(); ++i) {
    const ValueId out = node.outputs[i];
    if (out != kNone && (!graph.consumers(out).empty() || graph.is_graph_output(out)))
      return std::nullopt;
  }
  OCTET_ASSIGN_OR_RETURN(const float epsilon, node.attributes.Float("epsilon", 1e-5F));
  std::vector<float> params[4];  // scale, bias, mean, var
  for (size_t i = 0; i < 4; ++i) {
    auto floats = FloatsOf(graph, node.input(i + 1));
    if (!floats || (i > 0 && floats->size() != params[0].size())) return std::nullopt;
    params[i] = *std::move(floats);
  }
  Affine affine;
  for (size_t c = 0; c < params[0].size(); ++c) {
    const double factor = params[0][c] / std::sqrt(static_cast<double>(params[3][c]) + epsilon);
    affine.factor.push_back(factor);
    affine.addend.push_back(params[1][c] - params[2][c] * factor);
    if (!FloatHolds(factor) || !FloatHolds(affine.addend.back())) return std::nullopt;
  }
  affine.scale = std::move(params[0]);
  return affine;
}

// The bias of a Conv or octet:MatMul as doubles; zeros when it has none; nullopt when it is not constant.
std::optional<std::vector<double>> BiasOf(const Graph& graph, const Node& mac, size_t channels) {
  if (mac.input(2) == kNone) return std::vector<double>(channels, 0.0);
  const auto floats = FloatsOf(graph, mac.input(2));
  if (!floats || floats->size() != channels) return std::nullopt;
  return std::vector<double>(floats->begin(), floats->end());
}

void SetWeights(Graph& graph, NodeId mac, std::vector<float> weights,
                std::span<const double> bias) {
  const Node& node = graph.node(mac);
  const Shape shape = *graph.value(node.input(1)).shape;
  const ValueId w = AddFloats(graph, graph.value(node.input(1)).name, shape, std::move(weights));
  graph.SetInput(mac, 1, w);
  const Shape channels{static_cast<int64_t>(bias.size())};
  const ValueId b = AddFloats(graph, graph.node(mac).name + "_bias", channels,
                              std::vector<float>(bias.begin(), bias.end()));
  graph.SetInput(mac, 2, b);
}

// Folded weights and biases are F32, and beside F64 there is nothing else.
bool TakesF32(const Graph& graph, ValueId id) { return graph.value(id).dtype != DType::kF64; }

// Weights as [groups, rows, columns, inner], each group's output channels along the columns; no columns of what is no such node.
struct WeightChannels {
  int64_t groups = 1;
  int64_t rows = 1;
  int64_t columns = 0;
  int64_t inner = 1;
};

WeightChannels ChannelsOfWeights(const Graph& graph, const Node& mac) {
  const std::optional<Shape>& shape = graph.value(mac.input(1)).shape;
  if (!shape || !shape->is_static() || shape->rank() < 2) return {};
  const int64_t first = (*shape)[0];
  const int64_t second = (*shape)[1];
  const int64_t taps = shape->elements(2, shape->rank());
  if (IsConvolution(mac)) return {.columns = first, .inner = second * taps};
  if (mac.is("ConvTranspose")) {
    // Of an input whose rank is open, nobody has looked at the groups.
    const int64_t groups = mac.attributes.IntOr("group", 1);
    if (groups < 1 || first % groups != 0) return {};
    return {groups, first / groups, second, taps};
  }
  if (!IsMac(mac) || shape->rank() != 2) return {};
  if (mac.attributes.IntOr("trans_b", 0) != 0) return {.columns = first, .inner = second};
  return {.rows = first, .columns = second};
}

// Calls visit(weight, output channel) for each of them.
template <typename Visit>
void ForEachWeight(std::vector<float>& weights, const WeightChannels& layout, const Visit& visit) {
  auto at = weights.begin();
  for (int64_t group = 0; group < layout.groups; ++group) {
    for (int64_t row = 0; row < layout.rows; ++row) {
      for (int64_t column = 0; column < layout.columns; ++column) {
        const auto channel = static_cast<size_t>(group * layout.columns + column);
        for (const auto end = at + layout.inner; at != end; ++at) visit(*at, channel);
      }
    }
  }
}

// Conv -> BatchNormalization.
bool FoldBehind(Graph& graph, NodeId norm, const Affine& affine) {
  const ValueId x = graph.node(norm).input(0);
  const Node* mac = ProducerOf(graph, x);
  if (mac == nullptr || (!IsMac(*mac) && !mac->is("ConvTranspose")) || !mac->post_ops.empty() ||
      graph.SoleConsumer(x) != norm || !TakesF32(graph, x)) {
    return false;
  }
  const bool plain = mac->is("ConvTranspose");  // Its channels lie on axis 1.
  if (!plain && ChannelAxis(graph, *mac) != 1) return false;
  const WeightChannels layout = ChannelsOfWeights(graph, *mac);
  if (layout.groups * layout.columns != static_cast<int64_t>(affine.channels())) return false;
  auto weights = FloatsOf(graph, mac->input(1));
  auto bias = BiasOf(graph, *mac, affine.channels());
  if (!weights || !bias) return false;
  std::vector<float> reaches(affine.channels());
  ForEachWeight(*weights, layout, [&](float w, size_t channel) {
    reaches[channel] = std::max(reaches[channel], std::abs(w));
  });
  std::vector<double> folded(*bias);
  for (size_t c = 0; c < affine.channels(); ++c)
    folded[c] = folded[c] * affine.factor[c] + affine.addend[c];
  if (!TakeFactors(reaches, affine) || !StaysFinite(*bias, folded)) return false;
  ForEachWeight(*weights, layout, [&](float& w, size_t channel) {
    w = static_cast<float>(w * affine.factor[channel]);
  });
  const NodeId id = graph.producer(x);
  SetWeights(graph, id, *std::move(weights), folded);
  TakeOver(graph, id, norm);
  return true;
}

bool HasPadding(const Node& conv) {
  const auto mode = conv.attributes.String("auto_pad", "NOTSET");
  if (!mode.ok() || (*mode != "NOTSET" && *mode != "VALID")) return true;
  const auto pads = conv.attributes.Ints("pads", {});
  return !pads.ok() || std::ranges::any_of(*pads, [](int64_t p) { return p != 0; });
}

// BatchNormalization -> Conv. The addend becomes a constant only when no padding mixes zeros into the sums.
bool FoldAhead(Graph& graph, NodeId norm, const Affine& affine) {
  const NodeId id = graph.SoleConsumer(graph.node(norm).output(0));
  if (id == kNone || !TakesF32(graph, graph.node(norm).input(0))) return false;
  const Node& conv = graph.node(id);
  if (!conv.is("Conv") || conv.input(0) != graph.node(norm).output(0) || HasPadding(conv))
    return false;
  if (conv.attributes.IntOr("channels_last", 0) != 0) return false;
  auto weights = FloatsOf(graph, conv.input(1));
  if (!weights) return false;
  const Shape& shape = *graph.value(conv.input(1)).shape;
  const auto group = static_cast<size_t>(conv.attributes.IntOr("group", 1));
  const auto out_channels = static_cast<size_t>(shape[0]);
  const auto in_per_group = static_cast<size_t>(shape[1]);
  auto bias = BiasOf(graph, conv, out_channels);
  if (!bias || group == 0 || out_channels % group != 0 || in_per_group * group != affine.channels())
    return false;
  const auto taps = static_cast<size_t>(shape.elements(2, shape.rank()));
  std::vector<float> reaches(affine.channels());
  std::vector<double> folded(*bias);
  for (size_t o = 0; o < out_channels; ++o) {
    const size_t first = o / (out_channels / group) * in_per_group;
    for (size_t i = 0; i < in_per_group; ++i) {
      float* row = weights->data() + (o * in_per_group + i) * taps;
      for (size_t k = 0; k < taps; ++k) {
        folded[o] += row[k] * affine.addend[first + i];
        reaches[first + i] = std::max(reaches[first + i], std::abs(row[k]));
        row[k] = static_cast<float>(row[k] * affine.factor[first + i]);
      }
    }
  }
  if (!TakeFactors(reaches, affine) || !StaysFinite(*bias, folded)) return false;
  SetWeights(graph, id, *std::move(weights), folded);
  graph.SetInput(id, 0, graph.node(norm).input(0));
  return true;
}

// On its own: two elementwise operators, which fuse and change layout with their neighbours. They would repeat a single channel for
// each factor, where the normalization refuses it: an open extent waits for the plan.
bool Split(Graph& graph, NodeId norm, const Affine& affine) {
  const Node node = graph.node(norm);
  const int rank = RankOf(graph, node.input(0));
  if (rank < 2 || !IsPlainF32(graph, node.input(0))) return false;
  if ((*graph.value(node.input(0)).shape)[1] != static_cast<int64_t>(affine.channels()))
    return false;
  Shape shape{static_cast<int64_t>(affine.channels())};
  for (int i = 2; i < rank; ++i) shape.push_back(1);
  const ValueId f = AddFloats(graph, node.name + "_factor", shape,
                              std::vector<float>(affine.factor.begin(), affine.factor.end()));
  const ValueId g = AddFloats(graph, node.name + "_addend", shape,
                              std::vector<float>(affine.addend.begin(), affine.addend.end()));
  const ValueId scaled = AddValueLike(graph, node.output(0), "_scaled");
  graph.InsertNodeBefore(norm, MakeNode("Mul", node, {node.input(0), f}, {scaled}));
  Replace(graph, norm, MakeNode("Add", node, {scaled, g}, {}));
  return true;
}

}  // namespace

absl::StatusOr<int> FoldBatchNorm(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (!graph.node(id).is("BatchNormalization")) continue;
    OCTET_ASSIGN_OR_RETURN(const auto affine, AffineOf(graph, graph.node(id)));
    if (!affine || affine->channels() == 0) continue;
    if (FoldBehind(graph, id, *affine) || FoldAhead(graph, id, *affine) ||
        Split(graph, id, *affine))
      ++count;
  }
  return count;
}

}  // namespace octet
