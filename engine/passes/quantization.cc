#include "engine/passes/quantization.h"

#include <cmath>
#include <type_traits>
#include <utility>

#include "engine/passes/match.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

constexpr int32_t kUnsignedShift = 128;

// The elements whose zero point is params.zero_points[c]; one row for all where it is per tensor.
struct Channels {
  int64_t outer, count, inner;

  Channels(const Shape& shape, const QuantParams& params)
      : outer(params.per_tensor() ? 1 : shape.elements(0, params.axis)),
        count(params.per_tensor() ? 1 : shape[params.axis]),
        inner(shape.elements(params.per_tensor() ? 0 : params.axis + 1, shape.rank())) {}

  template <typename Fn>
  void ForEach(int64_t channel, const Fn& fn) const {
    for (int64_t o = 0; o < outer; ++o) {
      const int64_t begin = (o * count + channel) * inner;
      for (int64_t i = begin; i < begin + inner; ++i) fn(static_cast<size_t>(i));
    }
  }
};

// q and zero points less the same: all of the zero point where the differences fit I8, else what makes the type signed.
template <typename T>
Tensor WithoutZeroPoints(const Tensor& integers, QuantParams& params) {
  constexpr int32_t kToSigned = std::is_same_v<T, uint8_t> ? kUnsignedShift : 0;
  Tensor result(DType::kI8, integers.shape());
  const auto from = integers.span<T>();
  const auto to = result.mutable_span<int8_t>();
  const Channels channels(integers.shape(), params);
  for (int64_t c = 0; c < channels.count; ++c) {
    int32_t& zero_point = params.zero_points[static_cast<size_t>(c)];
    bool fits = true;
    channels.ForEach(c, [&](size_t i) {
      const int32_t q = from[i] - zero_point;
      fits = fits && q == static_cast<int8_t>(q);
    });
    const int32_t shift = fits ? zero_point : kToSigned;
    channels.ForEach(c, [&](size_t i) { to[i] = static_cast<int8_t>(from[i] - shift); });
    zero_point -= shift;
  }
  return result;
}

}  // namespace

std::optional<QuantParams> ReadParams(const Graph& graph, ValueId scale, ValueId zero_point,
                                      int64_t axis, int rank) {
  const Tensor* tensor = ConstantOf(graph, scale);
  if (tensor == nullptr || tensor->dtype() != DType::kF32 || tensor->shape().rank() > 1)
    return std::nullopt;
  QuantParams params;
  const auto scales = tensor->span<float>();
  params.scales.assign(scales.begin(), scales.end());
  if (params.scales.empty()) return std::nullopt;
  for (const float s : params.scales) {
    if (!std::isfinite(s) || s <= 0) return std::nullopt;
  }
  params.zero_points.assign(params.scales.size(), 0);
  if (zero_point != kNone) {
    const auto ints = IntsOf(graph, zero_point);
    if (!ints || ints->size() != params.scales.size()) return std::nullopt;
    for (size_t i = 0; i < ints->size(); ++i)
      params.zero_points[i] = static_cast<int32_t>((*ints)[i]);
  }
  if (params.scales.size() > 1) {
    const auto normal = rank > 0 ? NormalizeAxis(axis, rank) : std::nullopt;
    if (!normal) return std::nullopt;
    params.axis = *normal;
  }
  return params;
}

std::optional<QuantParams> ParamsOf(const Graph& graph, const Node& node) {
  if (node.attributes.IntOr("block_size", 0) != 0) return std::nullopt;
  return ReadParams(graph, node.input(1), node.input(2), node.attributes.IntOr("axis", 1),
                    RankOf(graph, node.input(0)));
}

std::optional<QuantizedConstant> AsQuantizedConstant(const Graph& graph, ValueId value) {
  const NodeId id = ProducerIf(graph, value, "DequantizeLinear");
  if (id == kNone) return std::nullopt;
  const Node& node = graph.node(id);
  const Tensor* integers = ConstantOf(graph, node.input(0));
  if (integers == nullptr || !IsInt8(integers->dtype()) || graph.value(node.input(0)).quant)
    return std::nullopt;
  auto params = ParamsOf(graph, node);
  if (!params) return std::nullopt;
  if (!params->per_tensor() &&
      integers->shape()[params->axis] != static_cast<int64_t>(params->scales.size())) {
    return std::nullopt;
  }
  return QuantizedConstant{node.input(0), *std::move(params)};
}

ValueId TypedWeights(Graph& graph, const QuantizedConstant& weights, int channel_axis) {
  QuantParams params = weights.params;
  if (!params.per_tensor() && params.axis != channel_axis) return kNone;
  const Value& value = graph.value(weights.value);
  Tensor integers = value.constant;
  if (integers.dtype() == DType::kU8) {
    integers = WithoutZeroPoints<uint8_t>(integers, params);
  } else if (!params.symmetric()) {
    integers = WithoutZeroPoints<int8_t>(integers, params);
  }
  return graph.AddConstant(value.name, std::move(integers), std::move(params));
}

bool TypeRecurrentWeights(Graph& graph, NodeId id) {
  if (!IsRecurrent(graph.node(id))) return false;
  ValueId typed[2];
  for (size_t i = 0; i < 2; ++i) {
    const auto weights = AsQuantizedConstant(graph, graph.node(id).input(i + 1));
    typed[i] = weights ? TypedWeights(graph, *weights, 1) : kNone;
    if (typed[i] == kNone || !graph.value(typed[i]).quant->symmetric()) return false;
  }
  for (size_t i = 0; i < 2; ++i) graph.SetInput(id, i + 1, typed[i]);
  return true;
}

bool FoldDequantize(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!node.is("DequantizeLinear")) return false;
  const Tensor* integers = ConstantOf(graph, node.input(0));
  const ValueId output = node.output(0);
  if (integers == nullptr || graph.value(node.input(0)).quant || graph.is_graph_output(output))
    return false;
  if (!IsInt8(integers->dtype()) && integers->dtype() != DType::kI32) return false;
  const auto params = ParamsOf(graph, node);
  if (!params || !IsPlainF32(graph, output)) return false;
  Tensor reals(DType::kF32, integers->shape());
  DequantizeTensor(integers->view(), *params, reals.mutable_view());
  graph.RemoveNode(id);
  graph.mutable_value(output).shape = reals.shape();
  graph.mutable_value(output).constant = std::move(reals);
  return true;
}

int WeightAxis(const Graph& graph, const Node& mac) {
  if (IsConvolution(mac)) return 0;
  const int rank = RankOf(graph, mac.input(1));
  return rank - (mac.attributes.IntOr("trans_b", 0) != 0 ? 2 : 1);
}

}  // namespace octet
