#include "engine/quantize/dynamic_int8.h"

#include <algorithm>
#include <array>

#include "engine/ops/onnx_dtype.h"
#include "engine/passes/match.h"
#include "engine/quantize/opset.h"
#include "engine/quantize/selection.h"
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
      : graph_(std::move(graph)), recipe_(recipe), version_(OnnxOpset(graph_)) {}

  absl::StatusOr<QuantizeResult> Run() {
    for (const NodeId id : graph_.OrderSnapshot()) {
      if (const auto weighted = AsWeighted(graph_, id)) {
        Replace(*weighted);
      } else if (IsRecurrentWithWeights(id)) {
        QuantizeRecurrent(id);
      }
    }
    if (records_.empty()) {
      return InvalidArgument(
          "nothing to quantize: no Conv, Gemm, MatMul, LSTM, GRU or RNN with constant weights");
    }
    graph_.RemoveDead();
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

  ValueId NewValue(const std::string& hint, DType dtype, std::optional<Shape> shape) {
    return graph_.AddValue(
        {.name = graph_.UniqueName(hint), .dtype = dtype, .shape = std::move(shape)});
  }

  NodeId Insert(NodeId before, std::string_view op, std::vector<ValueId> inputs,
                std::vector<ValueId> outputs) {
    return graph_.InsertNodeBefore(before, {.name = graph_.value(outputs[0]).name,
                                            .op = std::string(op),
                                            .version = version_,
                                            .inputs = std::move(inputs),
                                            .outputs = std::move(outputs)});
  }

  Quantized QuantizeActivation(ValueId x, NodeId before) {
    if (const auto found = activations_.find(x); found != activations_.end()) return found->second;
    const std::string name = graph_.value(x).name;
    const std::optional<Shape> shape = graph_.value(x).shape;
    const Quantized result{NewValue(name + "_quantized", DType::kU8, shape),
                           NewValue(name + "_scale", DType::kF32, Shape{}),
                           NewValue(name + "_zero_point", DType::kU8, Shape{})};
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
    const std::string name = graph_.value(y).name;
    const std::optional<Shape> shape = graph_.value(y).shape;
    const ValueId sums = NewValue(name + "_int32", DType::kI32, shape);
    InsertProduct(weighted.node, node, x, weight_name, quantized.values, sums);
    const ValueId reals = NewValue(name + "_unscaled", DType::kF32, shape);
    const NodeId cast = Insert(weighted.node, "Cast", {sums}, {reals});
    graph_.mutable_node(cast).attributes.Set("to", kOnnxFloat);

    const bool scalar = quantized.params.per_tensor();
    const Shape channels = ChannelShape(conv, weights.shape()[axis], weights.shape().rank());
    const ValueId weight_scale = graph_.AddConstant(
        weight_name + "_scale",
        Tensor::From<float>(scalar ? Shape{} : channels, quantized.params.scales));
    const ValueId scale = NewValue(name + "_scale", DType::kF32, scalar ? Shape{} : channels);
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

  // The node stays, on the reals that 8-bit integers stand for. A gate's unit is an output channel: axis 1 of its weights.
  void QuantizeRecurrent(NodeId id) {
    const Node node = graph_.node(id);
    const Value x = graph_.value(node.inputs[0]);
    const Quantized quantized = QuantizeActivation(node.inputs[0], id);
    graph_.SetInput(
        id, 0,
        Dequantize(id, x.name, {quantized.integers, quantized.scale, quantized.zero_point},
                   x.shape));
    for (const size_t slot : {1, 2}) {
      const std::string name = graph_.value(node.inputs[slot]).name;
      const Tensor weights = graph_.value(node.inputs[slot]).constant;
      const QuantizedWeights integers = QuantizeWeights(weights, 1, recipe_.per_channel);
      records_.push_back({name, "weights", Format("INT8 {}", integers.params.ToString())});
      const bool scalar = integers.params.per_tensor();
      const Shape shape = scalar ? Shape{} : Shape{weights.shape()[1]};
      Tensor zeros(DType::kI8, shape);
      std::ranges::fill(zeros.mutable_span<int8_t>(), int8_t{0});
      graph_.SetInput(
          id, slot,
          Dequantize(id, name,
                     {graph_.AddConstant(name + "_quantized", integers.values),
                      graph_.AddConstant(name + "_scale",
                                         Tensor::From<float>(shape, integers.params.scales)),
                      graph_.AddConstant(name + "_zero_point", std::move(zeros))},
                     weights.shape()));
    }
  }

  ValueId Dequantize(NodeId before, const std::string& name, std::vector<ValueId> inputs,
                     std::optional<Shape> shape) {
    const ValueId reals = NewValue(name + "_dequantized", DType::kF32, std::move(shape));
    const NodeId node = Insert(before, "DequantizeLinear", std::move(inputs), {reals});
    graph_.mutable_node(node).attributes.Set("axis", int64_t{1});
    return reals;
  }

  void InsertProduct(NodeId before, const Node& node, const Quantized& x,
                     const std::string& weight_name, const Tensor& weights, ValueId sums) {
    const bool conv = node.op == "Conv";
    const ValueId w =
        graph_.AddConstant(weight_name + "_quantized", conv ? ToUnsigned(weights) : weights);
    std::vector<ValueId> inputs = {x.integers, w, x.zero_point};
    if (conv)
      inputs.push_back(
          graph_.AddConstant(weight_name + "_zero_point", Tensor::Scalar<uint8_t>(kUnsignedZero)));
    const NodeId product =
        Insert(before, conv ? "ConvInteger" : "MatMulInteger", std::move(inputs), {sums});
    if (conv) graph_.mutable_node(product).attributes = node.attributes;
  }

  // y = reals * scale [+ bias], in the place of the node that goes.
  void Finish(const WeightedNode& weighted, ValueId reals, ValueId scale, const Shape& channels,
              const std::optional<Shape>& shape) {
    const ValueId y = graph_.node(weighted.node).outputs[0];
    const std::string name = graph_.value(y).name;
    const ValueId scaled = NewValue(name + "_scaled", DType::kF32, shape);
    Insert(weighted.node, "Mul", {reals, scale}, {scaled});
    ValueId result = scaled;
    if (weighted.bias != kNone) {
      const ValueId bias =
          graph_.AddConstant(graph_.value(weighted.bias).name + "_broadcast",
                             Tensor(graph_.value(weighted.bias).constant).Reshaped(channels));
      result = NewValue(name + "_biased", DType::kF32, shape);
      Insert(weighted.node, "Add", {scaled, bias}, {result});
    }
    graph_.RemoveNode(weighted.node);
    graph_.ReplaceUses(y, result);
  }

  Graph graph_;
  const QuantizeRecipe& recipe_;
  int version_;
  std::map<ValueId, Quantized> activations_;
  std::vector<QuantizeRecord> records_;
};

}  // namespace

absl::StatusOr<QuantizeResult> QuantizeDynamic(Graph graph, const QuantizeRecipe& recipe) {
  return DynamicQuantizer(std::move(graph), recipe).Run();
}

}  // namespace octet
