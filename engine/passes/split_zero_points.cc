// split_zero_points: 8-bit weights with a zero point are weights without one, and a sum of what they multiply.
//
//   x:u8 -> Conv(w:i8{s,z}, b) + relu -> y    =>    x -> Conv(1:i8) -> f32[N,1,..] -> Mul(-s z) -> r:f32[N,OC,..]
//                                                   x -> Conv(w:i8{s,0}, b) + add(r) + relu -> y
//
// for s (q - z) = s q + (-s z) 1. octet:MatMul alike, also with dynamic_quant: both quantize the same x. With groups, and of few output
// channels, there is a filter of ones for each: x -> Conv(1:i8{|s z|}) -> r. r has the extents of the result, since oneDNN's int8
// kernels take no operand that repeats along the channels (ref:any runs instead, a thousand times slower).
//
// Each is a sum of integers, exact; the two are added as F32 before the result is rounded, so that a result that lies between two steps
// may fall to the other one. oneDNN's products know zero points of weights, one for all
// (it costs a hundredth of their time, avx512_core_vnni), its convolutions none; so an octet:MatMul keeps its one where 8-bit sums
// are exact. To round weights anew instead, to a range around 0, makes a step of s up to two.
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

// Kernels compute so many output channels at once: a filter alone takes no less time.
constexpr int64_t kChannelsAtOnce = 16;

// Weights of which a channel has all the same.
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
    const bool few = weights_.constant.shape()[axis_] <= kChannelsAtOnce;
    const ValueId sums = grouped || few ? Product(OnesForEach()) : SumsOfAll();
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

  // One sum, of all input channels, times each output channel's offset.
  ValueId SumsOfAll() {
    Shape one = weights_.constant.shape();
    const int64_t channels = std::exchange(one[axis_], 1);
    const ValueId sums = Product(
        graph_.AddConstant(weights_.name, Filled(one, axis_, {1}), QuantParams::PerTensor(1, 0)));
    std::vector<float> factors = offsets_;
    factors.resize(static_cast<size_t>(channels), offsets_[0]);
    Shape along{channels};
    if (IsConvolution(node_) && node_.attributes.IntOr("channels_last", 0) == 0) {
      while (along.rank() + 1 < one.rank()) along.push_back(1);
    }
    const ValueId each = AddFloats(graph_, weights_.name, std::move(along), std::move(factors));
    const ValueId scaled = AddValue(graph_, node_.name, DType::kF32);
    graph_.InsertNodeBefore(id_, MakeNode("Mul", node_, {sums, each}, {scaled}));
    return scaled;
  }

  // One filter per output channel, as the weights have.
  ValueId OnesForEach() {
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

// Lets a layer multiply by I8. What a model computes and quantizes as an activation may be constant in the end, a slice of some weights by
// extents for one.
bool MakeSigned(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!IsMac(node)) return false;
  const ValueId weights = node.input(1);
  const Value& value = graph.value(weights);
  if (!value.is_constant() || !IsTyped(value) || value.dtype != DType::kU8) return false;
  const QuantizedConstant constant{weights, *value.quant};
  const ValueId typed = TypedWeights(graph, constant, WeightAxis(graph, node));
  if (typed != kNone) graph.SetInput(id, 1, typed);
  return typed != kNone;
}

bool HasToSplit(const Graph& graph, const Node& node, const Target& target) {
  if (!IsMac(node)) return false;
  const Value& weights = graph.value(node.input(1));
  if (!weights.is_constant() || !IsTyped(weights) || weights.quant->symmetric()) return false;
  return node.is("Conv") || !weights.quant->per_tensor() || !target.int8_exact;
}

}  // namespace

absl::StatusOr<int> SplitZeroPoints(Graph& graph, const PassContext& context) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    count += MakeSigned(graph, id) ? 1 : 0;
    if (!HasToSplit(graph, graph.node(id), context.target)) continue;
    ZeroPointSplit(graph, id).Run();
    ++count;
  }
  return count;
}

}  // namespace octet
