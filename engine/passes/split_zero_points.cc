// split_zero_points: 8-bit weights with a zero point are weights without one, and a sum of what they multiply.
//
//   x:u8 -> Conv(w:i8{s,z}, b) + relu -> y    =>    x -> Conv(1:i8{|s z|}) -> r:f32[N,1,..]
//                                                   x -> Conv(w:i8{s,0}, b) + add(r) + relu -> y
//
// for s (q - z) = s q + (-s z) 1. octet:MatMul alike, also with dynamic_quant: both quantize the same x. One sum serves all output
// channels; where their s z differ it is multiplied by them, r:f32[N,OC,..]. With groups each channel has a sum of its own.
// Each is a sum of integers, exact; the two are added as F32 before the result is rounded, so that a result that lies between two steps
// may fall to the other one. Nothing that oneDNN runs on convolutions takes zero points of
// weights; to round the weights anew, to a range around 0, would double their noise at worst, a step of s becomes up to two.
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/quantization.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// Ones, or what else a channel's weights have in common, with the scales that make reals of them.
Tensor Filled(const Shape& shape, int axis, const std::vector<int8_t>& channels) {
  Tensor tensor(DType::kI8, shape);
  const auto to = tensor.mutable_span<int8_t>();
  const auto inner = static_cast<size_t>(shape.elements(axis + 1, shape.rank()));
  for (size_t i = 0; i < to.size(); ++i) to[i] = channels[i / inner % channels.size()];
  return tensor;
}

class ZeroPointSplit {
 public:
  ZeroPointSplit(Graph& graph, NodeId id)
      : graph_(graph),
        id_(id),
        node_(graph.node(id)),
        weights_(graph.value(node_.input(1))),
        axis_(WeightAxis(graph, node_)) {
    const QuantParams& quant = *weights_.quant;
    for (size_t c = 0; c < quant.scales.size(); ++c)
      offsets_.push_back(-quant.scales[c] * static_cast<float>(quant.zero_points[c]));
  }

  void Run() {
    const bool grouped = node_.attributes.IntOr("group", 1) > 1;
    const ValueId sums = grouped ? Product(GroupedOnes()) : SumsOfAll();
    Node plain = node_;
    QuantParams quant = *weights_.quant;
    std::ranges::fill(quant.zero_points, 0);
    plain.inputs[1] = graph_.AddConstant(weights_.name, weights_.constant, std::move(quant));
    if (plain.inputs.size() < 3) plain.inputs.resize(3, kNone);
    const auto slot = static_cast<int>(plain.inputs.size());
    plain.post_ops.insert(plain.post_ops.begin(), {PostOp::Kind::kAdd, 0, 0, slot});
    plain.inputs.push_back(sums);
    Replace(graph_, id_, std::move(plain));
  }

 private:
  // x times `weights`, in reals.
  ValueId Product(ValueId weights) {
    Node node = MakeNode(node_.op, node_, {node_.input(0), weights}, {}, node_.domain);
    node.name += "/zero_points";
    node.version = node_.version;
    node.attributes = node_.attributes;
    const ValueId reals = AddValue(graph_, node.name, DType::kF32);
    node.outputs = {reals};
    graph_.InsertNodeBefore(id_, std::move(node));
    return reals;
  }

  // Of all input channels: [N, 1, spatial...] or [..., M, 1], or what that is times each output channel's offset.
  ValueId SumsOfAll() {
    Shape one = weights_.constant.shape();
    one[axis_] = 1;
    const bool uniform = std::ranges::all_of(offsets_, [&](float o) { return o == offsets_[0]; });
    const float offset = uniform ? offsets_[0] : 1;
    const int8_t sign = offset < 0 ? -1 : 1;
    const ValueId sums = Product(graph_.AddConstant(weights_.name, Filled(one, axis_, {sign}),
                                                    QuantParams::PerTensor(std::abs(offset), 0)));
    if (uniform) return sums;
    Shape along{std::ssize(offsets_)};
    if (IsConvolution(node_) && node_.attributes.IntOr("channels_last", 0) == 0) {
      while (along.rank() + 1 < one.rank()) along.push_back(1);
    }
    const ValueId factors = AddFloats(graph_, weights_.name, std::move(along), offsets_);
    const ValueId scaled = AddValue(graph_, node_.name, DType::kF32);
    graph_.InsertNodeBefore(id_, MakeNode("Mul", node_, {sums, factors}, {scaled}));
    return scaled;
  }

  // One filter per output channel, as the weights have.
  ValueId GroupedOnes() {
    QuantParams quant = *weights_.quant;
    std::vector<int8_t> signs;
    for (size_t c = 0; c < offsets_.size(); ++c) {
      signs.push_back(static_cast<int8_t>((offsets_[c] > 0) - (offsets_[c] < 0)));
      quant.scales[c] = offsets_[c] == 0 ? 1 : std::abs(offsets_[c]);
      quant.zero_points[c] = 0;
    }
    return graph_.AddConstant(weights_.name, Filled(weights_.constant.shape(), axis_, signs),
                              std::move(quant));
  }

  Graph& graph_;
  const NodeId id_;
  const Node node_;
  const Value weights_;
  const int axis_;
  std::vector<float> offsets_;  ///< -s z: one, or one per output channel.
};

bool HasZeroPoints(const Graph& graph, const Node& node) {
  if (!IsMac(node)) return false;
  const Value& weights = graph.value(node.input(1));
  return weights.is_constant() && IsTyped(weights) && !weights.quant->symmetric();
}

}  // namespace

absl::StatusOr<int> SplitZeroPoints(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (!HasZeroPoints(graph, graph.node(id))) continue;
    ZeroPointSplit(graph, id).Run();
    ++count;
  }
  return count;
}

}  // namespace octet
