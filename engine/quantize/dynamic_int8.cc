#include "engine/quantize/dynamic_int8.h"

#include <algorithm>
#include <array>
#include <span>

#include "engine/ops/onnx_dtype.h"
#include "engine/passes/match.h"
#include "engine/quantize/byte_storage.h"
#include "engine/quantize/dynamic_layers.h"
#include "engine/quantize/opset.h"
#include "engine/quantize/selection.h"
#include "engine/quantize/short_names.h"
#include "engine/quantize/weights.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int32_t kUnsignedZero = 128;

Tensor ToUnsigned(const Tensor& weights) {
  Tensor result(DType::kU8, weights.shape());
  const auto from = weights.span<int8_t>();
  const auto to = result.mutable_span<uint8_t>();
  for (size_t i = 0; i < to.size(); ++i) to[i] = static_cast<uint8_t>(from[i] + kUnsignedZero);
  return result;
}

Tensor Transposed(const Tensor& matrix) {
  const int64_t rows = matrix.shape()[0];
  const int64_t columns = matrix.shape()[1];
  Tensor result(matrix.dtype(), Shape{columns, rows});
  const auto from = matrix.span<float>();
  const auto to = result.mutable_span<float>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[c * rows + r] = from[r * columns + c];
  }
  return result;
}

class DynamicQuantizer {
 public:
  DynamicQuantizer(Graph graph, const QuantizeRecipe& recipe)
      : graph_(std::move(graph)), recipe_(recipe), version_(OnnxOpset(graph_)), names_(graph_) {}

  absl::StatusOr<QuantizeResult> Run() {
    const std::map<NodeId, std::string> slower = LayersSlowerInDynamicInt8(graph_);
    for (const NodeId id : graph_.OrderSnapshot()) {
      if (const auto reason = slower.find(id); reason != slower.end()) {
        const ValueId weights = graph_.node(id).inputs[1];
        records_.push_back({graph_.value(weights).name, "kept", reason->second});
      } else if (graph_.node(id).is("ConvTranspose") && AsWeighted(graph_, id)) {
        QuantizeInPlace(id, std::array{size_t{1}});
      } else if (const auto weighted = AsWeighted(graph_, id)) {
        Replace(*weighted);
      } else if (IsRecurrentWithWeights(id)) {
        QuantizeInPlace(id, std::array{size_t{1}, size_t{2}});
      }
    }
    if (records_.empty()) {
      return InvalidArgument(
          "nothing to quantize: no Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU or RNN with "
          "constant "
          "weights");
    }
    graph_.RemoveDead();
    if (recipe_.byte_constants) StoreUnseenInBytes(recipe_, graph_, records_);
    OCTET_RETURN_IF_ERROR(Verify(graph_));
    return QuantizeResult{std::move(graph_), std::move(records_)};
  }

 private:
  // The three outputs of DynamicQuantizeLinear, one node per activation.
  struct Quantized {
    ValueId integers;
    ValueId scale;
    ValueId zero_point;
  };

  ValueId NewValue(char kind, DType dtype, std::optional<Shape> shape) {
    return graph_.AddValue({.name = names_.Next(kind), .dtype = dtype, .shape = std::move(shape)});
  }

  NodeId Insert(NodeId before, std::string_view op, std::vector<ValueId> inputs,
                std::vector<ValueId> outputs) {
    return graph_.InsertNodeBefore(before, {.op = std::string(op),
                                            .version = version_,
                                            .inputs = std::move(inputs),
                                            .outputs = std::move(outputs)});
  }

  Quantized QuantizeActivation(ValueId x, NodeId before) {
    if (const auto found = activations_.find(x); found != activations_.end()) return found->second;
    const std::optional<Shape> shape = graph_.value(x).shape;
    const Quantized result{NewValue('q', DType::kU8, shape), NewValue('s', DType::kF32, Shape{}),
                           NewValue('z', DType::kU8, Shape{})};
    Insert(before, "DynamicQuantizeLinear", {x},
           {result.integers, result.scale, result.zero_point});
    activations_.emplace(x, result);
    return result;
  }

  // Per output channel: [C, 1, 1] behind a convolution over two extents, [N] behind a matrix product.
  Shape ChannelShape(bool conv, int64_t channels, int weight_rank) const {
    Shape shape{channels};
    for (int i = 2; conv && i < weight_rank; ++i) shape.push_back(1);
    return shape;
  }

  void Replace(const WeightedNode& weighted) {
    const Node node = graph_.node(weighted.node);
    const bool conv = node.op == "Conv";
    const std::string weight_name = graph_.value(node.inputs[1]).name;
    Tensor weights = graph_.value(node.inputs[1]).constant;
    if (!conv && weighted.weight_axis == 0) weights = Transposed(weights);
    const int axis = conv ? 0 : 1;
    const QuantizedWeights quantized = QuantizeWeights(weights, axis, recipe_.per_channel);
    records_.push_back({weight_name, "weights", Format("INT8 {}", quantized.params.ToString())});

    const Quantized x = QuantizeActivation(node.inputs[0], weighted.node);
    const ValueId y = node.outputs[0];
    const std::optional<Shape> shape = graph_.value(y).shape;
    const ValueId sums = NewValue('i', DType::kI32, shape);
    InsertProduct(weighted.node, node, x, quantized.values, sums);
    const ValueId reals = NewValue('r', DType::kF32, shape);
    const NodeId cast = Insert(weighted.node, "Cast", {sums}, {reals});
    graph_.mutable_node(cast).attributes.Set("to", kOnnxFloat);

    const bool scalar = quantized.params.per_tensor();
    const Shape channels = ChannelShape(conv, weights.shape()[axis], weights.shape().rank());
    const ValueId weight_scale = graph_.AddConstant(
        names_.Next('s'),
        Tensor::From<float>(scalar ? Shape{} : channels, quantized.params.scales));
    const ValueId scale = NewValue('s', DType::kF32, scalar ? Shape{} : channels);
    Insert(weighted.node, "Mul", {x.scale, weight_scale}, {scale});
    Finish(weighted, reals, scale, channels, shape);
  }

  bool IsRecurrentWithWeights(NodeId id) const {
    const Node& node = graph_.node(id);
    const auto is_constant = [&](size_t slot) {
      const Value& value = graph_.value(node.inputs[slot]);
      return value.is_constant() && value.dtype == DType::kF32 &&
             value.constant.shape().rank() == 3;
    };
    return IsRecurrent(node) && graph_.value(node.inputs[0]).dtype == DType::kF32 &&
           !graph_.value(node.inputs[0]).is_constant() && is_constant(1) && is_constant(2);
  }

  // Where ONNX has no operator on integers: the node stays, on the reals that these stand for. Output channels lie on axis 1, those of
  // a group of a ConvTranspose, and a recurrent layer's, the units of its gates.
  void QuantizeInPlace(NodeId id, std::span<const size_t> slots) {
    const Node node = graph_.node(id);
    const Value x = graph_.value(node.inputs[0]);
    const Quantized quantized = QuantizeActivation(node.inputs[0], id);
    graph_.SetInput(
        id, 0,
        Dequantize(id, {quantized.integers, quantized.scale, quantized.zero_point}, x.shape));
    for (const size_t slot : slots) {
      const Value& value = graph_.value(node.inputs[slot]);
      const Tensor weights = value.constant;
      const QuantizedWeights integers = QuantizeWeights(weights, 1, recipe_.per_channel);
      records_.push_back({value.name, "weights", Format("INT8 {}", integers.params.ToString())});
      const std::string name = names_.InPlaceOf(graph_, node.inputs[slot]);
      const bool scalar = integers.params.per_tensor();
      const Shape shape = scalar ? Shape{} : Shape{weights.shape()[1]};
      graph_.SetInput(
          id, slot,
          Dequantize(id,
                     {graph_.AddConstant(name, integers.values),
                      graph_.AddConstant(names_.Next('s'),
                                         Tensor::From<float>(shape, integers.params.scales))},
                     weights.shape()));
    }
  }

  ValueId Dequantize(NodeId before, std::vector<ValueId> inputs, std::optional<Shape> shape) {
    const ValueId reals = NewValue('r', DType::kF32, std::move(shape));
    const NodeId node = Insert(before, "DequantizeLinear", std::move(inputs), {reals});
    graph_.mutable_node(node).attributes.Set("axis", int64_t{1});
    return reals;
  }

  void InsertProduct(NodeId before, const Node& node, const Quantized& x, const Tensor& weights,
                     ValueId sums) {
    const bool conv = node.op == "Conv";
    const ValueId w = graph_.AddConstant(names_.InPlaceOf(graph_, node.inputs[1]),
                                         conv ? ToUnsigned(weights) : weights);
    std::vector<ValueId> inputs = {x.integers, w, x.zero_point};
    if (conv) {
      if (unsigned_zero_ == kNone) {
        unsigned_zero_ =
            graph_.AddConstant(names_.Next('z'), Tensor::Scalar<uint8_t>(kUnsignedZero));
      }
      inputs.push_back(unsigned_zero_);
    }
    const NodeId product =
        Insert(before, conv ? "ConvInteger" : "MatMulInteger", std::move(inputs), {sums});
    graph_.mutable_node(product).name = node.name;
    if (conv) graph_.mutable_node(product).attributes = node.attributes;
  }

  // y = reals * scale [+ bias], in the place of the node that goes.
  void Finish(const WeightedNode& weighted, ValueId reals, ValueId scale, const Shape& channels,
              const std::optional<Shape>& shape) {
    const ValueId y = graph_.node(weighted.node).outputs[0];
    const ValueId scaled = NewValue('r', DType::kF32, shape);
    Insert(weighted.node, "Mul", {reals, scale}, {scaled});
    ValueId result = scaled;
    if (weighted.bias != kNone) {
      const ValueId bias =
          graph_.AddConstant(names_.InPlaceOf(graph_, weighted.bias),
                             Tensor(graph_.value(weighted.bias).constant).Reshaped(channels));
      result = NewValue('r', DType::kF32, shape);
      Insert(weighted.node, "Add", {scaled, bias}, {result});
    }
    graph_.RemoveNode(weighted.node);
    const std::string name = graph_.value(y).name;
    graph_.ReplaceUses(y, result);
    // What it stands for in the fp32 model; a graph output has taken its name along.
    if (graph_.value(y).name == name)
      std::swap(graph_.mutable_value(y).name, graph_.mutable_value(result).name);
  }

  Graph graph_;
  const QuantizeRecipe& recipe_;
  int version_;
  ShortNames names_;
  ValueId unsigned_zero_ = kNone;  ///< Of the weights of all convolutions.
  std::map<ValueId, Quantized> activations_;
  std::vector<QuantizeRecord> records_;
};

}  // namespace

absl::StatusOr<QuantizeResult> QuantizeDynamic(Graph graph, const QuantizeRecipe& recipe) {
  return DynamicQuantizer(std::move(graph), recipe).Run();
}

}  // namespace octet
