#include "engine/passes/match.h"

#include <cmath>

#include "engine/ops/conv_transpose.h"
#include "engine/ops/op.h"
#include "engine/tensor/quantize.h"

namespace octet {

const Node* ProducerOf(const Graph& graph, ValueId value) {
  if (value == kNone) return nullptr;
  const NodeId id = graph.producer(value);
  return id == kNone ? nullptr : &graph.node(id);
}

NodeId ProducerIf(const Graph& graph, ValueId value, std::string_view op, std::string_view domain) {
  const Node* node = ProducerOf(graph, value);
  return node != nullptr && node->is(op, domain) ? graph.producer(value) : kNone;
}

const Tensor* ConstantOf(const Graph& graph, ValueId value) {
  if (value == kNone || !graph.value(value).is_constant()) return nullptr;
  return &graph.value(value).constant;
}

std::optional<std::vector<float>> FloatsOf(const Graph& graph, ValueId value) {
  const Tensor* tensor = ConstantOf(graph, value);
  if (tensor == nullptr || !IsFloat(tensor->dtype()) || graph.value(value).quant)
    return std::nullopt;
  std::vector<float> floats(static_cast<size_t>(tensor->elements()));
  ConvertTensor(tensor->view(), {floats.data(), {DType::kF32, tensor->shape()}});
  return floats;
}

std::optional<std::vector<int64_t>> IntsOf(const Graph& graph, ValueId value) {
  const Tensor* tensor = ConstantOf(graph, value);
  if (tensor == nullptr || IsFloat(tensor->dtype()) || tensor->dtype() == DType::kUndefined) {
    return std::nullopt;
  }
  Tensor wide(DType::kI64, tensor->shape());
  ConvertTensor(tensor->view(), wide.mutable_view());
  const auto ints = wide.span<int64_t>();
  return std::vector<int64_t>(ints.begin(), ints.end());
}

std::optional<float> ScalarOf(const Graph& graph, ValueId value) {
  const Tensor* tensor = ConstantOf(graph, value);
  if (tensor == nullptr || tensor->elements() != 1) return std::nullopt;
  const auto floats = FloatsOf(graph, value);
  if (!floats) return std::nullopt;
  return floats->front();
}

bool Near(float a, float b) { return std::abs(a - b) <= 1e-3F * std::abs(b); }

bool IsPlainF32(const Graph& graph, ValueId value) {
  if (value == kNone) return false;
  const Value& v = graph.value(value);
  return v.dtype == DType::kF32 && !v.quant;
}

bool IsPlainReal(const Graph& graph, ValueId value) {
  return IsPlainF32(graph, value) || (value != kNone && graph.value(value).dtype == DType::kBF16);
}

bool IsTyped(const Value& value) { return value.quant && IsInt8(value.dtype); }

int RankOf(const Graph& graph, ValueId value) {
  if (value == kNone || !graph.value(value).shape) return -1;
  return graph.value(value).shape->rank();
}

bool SameRank(const Graph& graph, ValueId a, ValueId b) {
  return RankOf(graph, a) >= 0 && RankOf(graph, a) == RankOf(graph, b);
}

bool SameStaticShape(const Graph& graph, ValueId a, ValueId b) {
  const Value& x = graph.value(a);
  const Value& y = graph.value(b);
  return x.has_static_shape() && y.has_static_shape() && *x.shape == *y.shape;
}

bool MovesElements(const Node& node) {
  const OpDef* def = FindOp(node);
  if (def == nullptr || (node.is("Dropout") && node.output(1) != kNone)) return false;
  return def->traits.data_movement || def->traits.view;
}

bool IsConvolution(const Node& node) {
  return node.is("Conv") || node.is("ConvTranspose", kOctetDomain);
}

bool TakesIntegers(const Node& mac) {
  if (!mac.is("ConvTranspose", kOctetDomain)) return true;
  const auto more = mac.attributes.Ints("output_padding", {});
  return more.ok() && TransposesIntegers(mac, *more);
}

bool IsMac(const Node& node) { return IsConvolution(node) || node.is("MatMul", kOctetDomain); }

bool IsRecurrent(const Node& node) {
  return (node.is("LSTM") || node.is("GRU") || node.is("RNN")) && node.inputs.size() >= 3;
}

int ChannelAxis(const Graph& graph, const Node& node) {
  const int rank = RankOf(graph, node.output(0));
  if (rank < 0) return -1;
  if (IsConvolution(node) && node.attributes.IntOr("channels_last", 0) == 0) return 1;
  return rank - 1;
}

int64_t ChannelCount(const Graph& graph, const Node& node) {
  if (node.input(1) == kNone || !graph.value(node.input(1)).shape) return kUnknownDim;
  const Shape& weights = *graph.value(node.input(1)).shape;
  if (IsConvolution(node)) return weights.rank() > 0 ? weights[0] : kUnknownDim;
  if (weights.rank() < 2) return kUnknownDim;
  const bool transposed = node.attributes.IntOr("trans_b", 0) != 0;
  return weights[weights.rank() - (transposed ? 2 : 1)];
}

std::optional<std::vector<float>> PerChannel(const Graph& graph, ValueId value, int rank, int axis,
                                             int64_t channels) {
  const Tensor* tensor = ConstantOf(graph, value);
  if (tensor == nullptr || axis < 0 || channels <= 0 || tensor->shape().rank() > rank)
    return std::nullopt;
  auto floats = FloatsOf(graph, value);
  if (!floats) return std::nullopt;
  const auto count = static_cast<size_t>(channels);
  if (floats->size() == 1) return std::vector<float>(count, floats->front());
  const int offset = rank - tensor->shape().rank();
  for (int i = 0; i < tensor->shape().rank(); ++i) {
    if (tensor->shape()[i] != 1 && i + offset != axis) return std::nullopt;
  }
  if (floats->size() != count) return std::nullopt;
  return floats;
}

}  // namespace octet
