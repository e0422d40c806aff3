// Scales and zero points in a model's operators, and 8-bit weights as kernels take them.
#pragma once

#include <optional>
#include <string_view>

#include "engine/graph/graph.h"

namespace octet {

/// scale and zero point of QuantizeLinear or DequantizeLinear inputs: constants, per tensor or along `axis` of a value of
/// `rank`. nullopt when they are not constant, blocked, or no positive finite F32.
std::optional<QuantParams> ReadParams(const Graph& graph, ValueId scale, ValueId zero_point,
                                      int64_t axis, int rank);
/// ReadParams for a QuantizeLinear or DequantizeLinear node.
std::optional<QuantParams> ParamsOf(const Graph& graph, const Node& node);

/// A constant of 8-bit integers and what they stand for.
struct QuantizedConstant {
  ValueId value = kNone;
  QuantParams params;
};
/// When `value` is DequantizeLinear of an 8-bit constant: that constant.
std::optional<QuantizedConstant> AsQuantizedConstant(const Graph& graph, ValueId value);

/// The typed constant that Conv and octet:MatMul take as weights: I8. Each channel's zero point is taken off its integers
/// where these still fit, and is 0 then; else 128 is taken off both if they are U8, and split_zero_points does the rest. kNone when
/// scales run along another axis than `channel_axis`.
ValueId TypedWeights(Graph& graph, const QuantizedConstant& weights, int channel_axis);

/// When both weights of an LSTM, GRU or RNN are DequantizeLinear of 8-bit constants that kernels take: lets the node read the
/// integers. False, with nothing changed, for any other node.
bool TypeRecurrentWeights(Graph& graph, NodeId id);

/// DequantizeLinear of a constant (8-bit, or an I32 bias) -> an F32 constant. False for any other node.
bool FoldDequantize(Graph& graph, NodeId id);

/// The axis of a Conv's or octet:MatMul's weights that belongs to output channels.
int WeightAxis(const Graph& graph, const Node& mac);

}  // namespace octet
