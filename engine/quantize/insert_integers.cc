#include "engine/quantize/insert_integers.h"

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/quantize/compensated_rounding.h"
#include "engine/quantize/opset.h"
#include "engine/tensor/format.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

Tensor ZeroPoints(DType dtype, std::span<const int32_t> zero_points, bool scalar) {
  const Shape shape = scalar ? Shape{} : Shape{static_cast<int64_t>(zero_points.size())};
  Tensor tensor(dtype, shape);
  for (size_t i = 0; i < zero_points.size(); ++i) {
    switch (dtype) {
      case DType::kU8:
        tensor.mutable_span<uint8_t>()[i] = static_cast<uint8_t>(zero_points[i]);
        break;
      case DType::kI8:
        tensor.mutable_span<int8_t>()[i] = static_cast<int8_t>(zero_points[i]);
        break;
      default:
        tensor.mutable_span<int32_t>()[i] = zero_points[i];
        break;
    }
  }
  return tensor;
}

class StaticQuantizer {
 public:
  StaticQuantizer(Graph graph, const QuantizeRecipe& recipe, const Statistics& statistics,
                  const Selection& selection, const RangeTable& ranges, RoundedWeights& rounded)
      : graph_(std::move(graph)),
        recipe_(recipe),
        statistics_(statistics),
        selection_(selection),
        ranges_(ranges),
        rounded_(rounded),
        version_(OnnxOpset(graph_)) {}

  absl::StatusOr<QuantizeResult> Run() {
    for (const ValueId id : selection_.quantized) ChooseParams(id);
    for (const ValueId id : selection_.quantized) InsertPair(id);
    for (const WeightedNode& weighted : selection_.weighted) QuantizeNode(weighted);
    graph_.RemoveDead();
    OCTET_RETURN_IF_ERROR(Verify(graph_));
    return QuantizeResult{std::move(graph_), std::move(records_)};
  }

 private:
  void ChooseParams(ValueId id) {
    const auto& [range, by] = ranges_.at(selection_.RangeOwner(id));
    params_[id] = ParamsFor(range, recipe_.activation);
    records_.push_back(
        {graph_.value(id).name, "activation",
         Format("{} range [{}, {}] {}", by, range.min, range.max, params_[id].ToString())});
  }

  Node LinearNode(std::string_view op, ValueId input, ValueId output, ValueId scale,
                  ValueId zero) const {
    return {.name = graph_.value(output).name,
            .op = std::string(op),
            .version = version_,
            .inputs = {input, scale, zero},
            .outputs = {output}};
  }

  NodeId AddLinear(std::string_view op, NodeId before, ValueId input, ValueId output, ValueId scale,
                   ValueId zero, int axis) {
    Node node = LinearNode(op, input, output, scale, zero);
    if (axis != QuantParams::kPerTensor) node.attributes.Set("axis", int64_t{axis});
    return graph_.InsertNodeBefore(before, std::move(node));
  }

  ValueId NewValue(const std::string& hint, DType dtype, const std::optional<Shape>& shape) {
    return graph_.AddValue({.name = graph_.UniqueName(hint), .dtype = dtype, .shape = shape});
  }

  // Readers of `id` read its dequantized integers from here on; a graph output, and who needs not round, keeps the reals.
  void InsertPair(ValueId id) {
    const QuantParams& params = params_.at(id);
    const std::string name = graph_.value(id).name;
    const std::optional<Shape> shape = graph_.value(id).shape;
    const ValueId scale = graph_.AddConstant(name + "_scale", Tensor::Scalar(params.scales[0]));
    const ValueId zero = graph_.AddConstant(
        name + "_zero_point", ZeroPoints(recipe_.activation, params.zero_points, true));
    const ValueId integers = NewValue(name + "_quantized", recipe_.activation, shape);
    const ValueId reals = NewValue(name + "_dequantized", DType::kF32, shape);
    const std::vector<NodeId> readers(graph_.consumers(id).begin(), graph_.consumers(id).end());
    const NodeId producer = graph_.producer(id);
    const NodeId quantize =
        producer == kNone ? AddLinear("QuantizeLinear", graph_.order().front(), id, integers, scale,
                                      zero, QuantParams::kPerTensor)
                          : InsertAfter(producer, "QuantizeLinear", id, integers, scale, zero);
    InsertAfter(quantize, "DequantizeLinear", integers, reals, scale, zero);
    for (const NodeId reader : readers) {
      if (selection_.ReadsReals(graph_, id, reader)) continue;
      for (size_t slot = 0; slot < graph_.node(reader).inputs.size(); ++slot) {
        if (graph_.node(reader).inputs[slot] == id) graph_.SetInput(reader, slot, reals);
      }
    }
    scales_[reals] = params.scales[0];
  }

  NodeId InsertAfter(NodeId position, std::string_view op, ValueId input, ValueId output,
                     ValueId scale, ValueId zero) {
    return graph_.InsertNodeAfter(position, LinearNode(op, input, output, scale, zero));
  }

  ValueId Dequantized(NodeId before, const std::string& hint, Tensor integers,
                      const QuantParams& params) {
    const Shape shape = integers.shape();
    const DType dtype = integers.dtype();
    const bool scalar = params.per_tensor();
    const ValueId scale = graph_.AddConstant(
        hint + "_scale",
        Tensor::From<float>(scalar ? Shape{} : Shape{static_cast<int64_t>(params.scales.size())},
                            params.scales));
    const ValueId zero =
        graph_.AddConstant(hint + "_zero_point", ZeroPoints(dtype, params.zero_points, scalar));
    const ValueId constant = graph_.AddConstant(hint + "_quantized", std::move(integers));
    const ValueId reals = NewValue(hint + "_dequantized", DType::kF32, shape);
    AddLinear("DequantizeLinear", before, constant, reals, scale, zero, params.axis);
    return reals;
  }

  int LimitOf(const WeightedNode& weighted) const {
    const auto& all = statistics_.selection.weighted;
    const bool outer = weighted.node == all.front().node || weighted.node == all.back().node;
    return recipe_.weight_bits == 4 && !outer ? kNibbleLimit : kByteLimit;
  }

  QuantizedWeights Round(const WeightedNode& weighted, const Tensor& weights,
                         std::span<const float> smallest) {
    QuantizedWeights quantized = QuantizeWeights(weights, weighted.weight_axis, recipe_.per_channel,
                                                 smallest, LimitOf(weighted));
    const auto patches = statistics_.patches.find(weighted.node);
    if (!recipe_.compensate || patches == statistics_.patches.end()) return quantized;
    QuantizedWeights& rounded = rounded_[weighted.node];
    if (rounded.params == quantized.params) return rounded;
    const bool centered = recipe_.correct_bias && weighted.bias != kNone;
    CompensateRounding(weights, {weighted.weight_axis, graph_.node(weighted.node).is("Conv")},
                       patches->second, centered, quantized);
    rounded = quantized;
    return quantized;
  }

  void QuantizeNode(const WeightedNode& weighted) {
    const Node& node = graph_.node(weighted.node);
    const float input_scale = scales_.at(node.inputs[0]);
    const bool conv = node.is("Conv");
    const std::string weight_name = graph_.value(node.inputs[1]).name;
    const Tensor weights = graph_.value(node.inputs[1]).constant;
    std::vector<float> smallest;
    if (weighted.bias != kNone)
      smallest = SmallestScales(graph_.value(weighted.bias).constant, input_scale);
    const QuantizedWeights quantized = Round(weighted, weights, smallest);
    records_.push_back({weight_name, "weights", Format("INT8 {}", quantized.params.ToString())});
    const ValueId reals =
        Dequantized(weighted.node, weight_name, quantized.values, quantized.params);
    graph_.SetInput(weighted.node, 1, reals);
    if (weighted.bias == kNone) return;
    Tensor bias = graph_.value(weighted.bias).constant;
    if (recipe_.correct_bias) {
      bias = CorrectBias(bias, weights, quantized, {weighted.weight_axis, conv},
                         statistics_.moments.at(weighted.node).means());
    }
    QuantParams bias_params = quantized.params;
    if (!bias_params.per_tensor()) bias_params.axis = 0;
    for (float& scale : bias_params.scales) scale *= input_scale;
    const std::string bias_name = graph_.value(weighted.bias).name;
    // ONNX allows a Gemm's bias as [1, N]; integers along one axis need [N].
    const Tensor flat = bias.Reshaped(Shape{bias.elements()});
    const ValueId bias_reals =
        Dequantized(weighted.node, bias_name, QuantizeBias(flat, bias_params.scales), bias_params);
    graph_.SetInput(weighted.node, 2, bias_reals);
  }

  Graph graph_;
  const QuantizeRecipe& recipe_;
  const Statistics& statistics_;
  const Selection& selection_;
  const RangeTable& ranges_;
  RoundedWeights& rounded_;
  int version_;
  std::map<ValueId, QuantParams> params_;
  std::map<ValueId, float> scales_;  ///< Of the dequantized values that nodes read.
  std::vector<QuantizeRecord> records_;
};

}  // namespace

absl::StatusOr<QuantizeResult> InsertIntegers(const Graph& graph, const QuantizeRecipe& recipe,
                                              const Statistics& statistics,
                                              const Selection& selection, const RangeTable& ranges,
                                              RoundedWeights& rounded) {
  return StaticQuantizer(graph, recipe, statistics, selection, ranges, rounded).Run();
}

}  // namespace octet
