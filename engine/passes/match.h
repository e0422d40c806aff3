// Questions that passes ask of a graph: who made this value, what does that constant hold.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "engine/graph/graph.h"

namespace octet {

/// The node that produces `value`; null for kNone, graph inputs and constants.
const Node* ProducerOf(const Graph& graph, ValueId value);
/// The id of the producer when it is this operator, else kNone.
NodeId ProducerIf(const Graph& graph, ValueId value, std::string_view op,
                  std::string_view domain = kOnnxDomain);

/// The elements of a constant; null for kNone and for values that are no constants.
const Tensor* ConstantOf(const Graph& graph, ValueId value);
/// The elements of a constant of any float type without quantization, widened or narrowed to F32.
std::optional<std::vector<float>> FloatsOf(const Graph& graph, ValueId value);
/// The elements of a constant of any integer type, as they are stored.
std::optional<std::vector<int64_t>> IntsOf(const Graph& graph, ValueId value);
/// The only element of a float constant of any rank.
std::optional<float> ScalarOf(const Graph& graph, ValueId value);
/// |a - b| <= 1e-3 |b|: how constants of a pattern are recognised.
bool Near(float a, float b);

/// F32, and not a typed value.
bool IsPlainF32(const Graph& graph, ValueId value);
/// F32 or BF16: a value across which nodes may be fused, since nothing but a pass has asked for its rounding.
bool IsPlainReal(const Graph& graph, ValueId value);
/// An 8-bit value that stands for reals.
bool IsTyped(const Value& value);
/// -1 while unknown.
int RankOf(const Graph& graph, ValueId value);
/// True when both ranks are known and equal. A constant of one element may have more axes than what it is combined with,
/// and gives them to the result.
bool SameRank(const Graph& graph, ValueId a, ValueId b);
/// True when both shapes are known and equal, unknown extents counted as different.
bool SameStaticShape(const Graph& graph, ValueId a, ValueId b);

/// Its outputs hold elements of its inputs alone. Not a Dropout whose mask is read.
bool MovesElements(const Node& node);

/// A Conv or an octet:ConvTranspose: both have their output channels on axis 0 of the weights.
bool IsConvolution(const Node& node);
/// A convolution or an octet:MatMul: the nodes that multiply and add, and that post-ops are fused into.
bool IsMac(const Node& node);
/// False for an octet:ConvTranspose that is not to multiply integers: TransposesIntegers.
bool TakesIntegers(const Node& mac);
/// Post-ops of a node up to which activations are added: half of what oneDNN takes, since residuals and quantization add
/// some of their own.
inline constexpr size_t kMostActivations = 16;

/// An LSTM, GRU or RNN: its weights are inputs 1 and 2.
bool IsRecurrent(const Node& node);
/// The axis of a Conv's or octet:MatMul's output that its bias runs along; -1 while its rank is unknown.
int ChannelAxis(const Graph& graph, const Node& node);
/// Output channels of a Conv, N of an octet:MatMul, from the weights; kUnknownDim when not known.
int64_t ChannelCount(const Graph& graph, const Node& node);

/// When `value` is a float constant that broadcasts over a value of `rank` along `axis` alone (or is one
/// element): its elements, repeated to `channels`.
std::optional<std::vector<float>> PerChannel(const Graph& graph, ValueId value, int rank, int axis,
                                             int64_t channels);

}  // namespace octet
