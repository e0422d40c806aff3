#include "engine/quantize/insert_integers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/quantize/compensated_rounding.h"
#include "engine/quantize/concat_factors.h"
#include "engine/quantize/opset.h"
#include "engine/quantize/short_names.h"
#include "engine/tensor/format.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

Tensor ZeroPointOf(DType dtype, int32_t zero_point) {
  if (dtype == DType::kU8) return Tensor::Scalar(static_cast<uint8_t>(zero_point));
  return Tensor::Scalar(static_cast<int8_t>(zero_point));
}

// Of a node's results, those that one tap of its weights has a part in: of a transposed convolution's every stride-th.
double ReachedShare(const Node& node) {
  double share = 1;
  if (!node.is("ConvTranspose")) return share;
  const auto strides = node.attributes.Ints("strides", {});
  for (size_t i = 0; strides.ok() && i < strides->size(); ++i)
    share /= static_cast<double>((*strides)[i]);
  return share;
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
        outer_(OuterLayers(graph_)),
        version_(OnnxOpset(graph_)),
        names_(graph_) {}

  absl::StatusOr<QuantizeResult> Run() {
    if (recipe_.scale_concats) factors_ = FindConcatFactors(graph_, selection_, ranges_);
    for (const ValueId id : selection_.quantized) ChooseParams(id);
    for (const ValueId id : selection_.quantized) InsertPair(id);
    for (const WeightedNode& weighted : selection_.weighted) QuantizeNode(weighted);
    graph_.RemoveDead();
    OCTET_RETURN_IF_ERROR(Verify(graph_));
    return QuantizeResult{std::move(graph_), std::move(records_)};
  }

 private:
  void ChooseParams(ValueId id) {
    const ValueId owner = selection_.RangeOwner(id);
    auto [range, by] = ranges_.at(owner);
    if (const auto joined = factors_.ranges.find(owner); joined != factors_.ranges.end())
      range = joined->second;
    params_[id] = ParamsFor(range, recipe_.activation);
    if (const auto finer = factors_.exponents.find(id); finer != factors_.exponents.end())
      params_[id].scales[0] = std::ldexp(params_[id].scales[0], -finer->second);
    records_.push_back(
        {graph_.value(id).name, "activation",
         Format("{} range [{}, {}] {}", by, range.min, range.max, params_[id].ToString())});
  }

  Node LinearNode(std::string_view op, std::vector<ValueId> inputs, ValueId output) const {
    return {.op = std::string(op),
            .version = version_,
            .inputs = std::move(inputs),
            .outputs = {output}};
  }

  ValueId NewValue(char kind, DType dtype, const std::optional<Shape>& shape) {
    return graph_.AddValue({.name = names_.Next(kind), .dtype = dtype, .shape = shape});
  }

  // Activations have few different ones: most are 0, behind a Relu.
  ValueId ZeroPoint(int32_t zero_point) {
    const auto [at, added] = zero_points_.try_emplace(zero_point, kNone);
    if (added) {
      at->second =
          graph_.AddConstant(names_.Next('z'), ZeroPointOf(recipe_.activation.dtype, zero_point));
    }
    return at->second;
  }

  // A pair behind `producer`, or in front of all.
  ValueId Rounded(ValueId id, NodeId producer, const QuantParams& params) {
    const std::optional<Shape> shape = graph_.value(id).shape;
    const ValueId scale = graph_.AddConstant(names_.Next('s'), Tensor::Scalar(params.scales[0]));
    const ValueId zero = ZeroPoint(params.zero_points[0]);
    const ValueId integers = NewValue('q', recipe_.activation.dtype, shape);
    const ValueId reals = NewValue('r', DType::kF32, shape);
    Node quantize_node = LinearNode("QuantizeLinear", {id, scale, zero}, integers);
    const NodeId quantize = producer == kNone
                                ? graph_.InsertNodeBefore(graph_.order().front(), quantize_node)
                                : graph_.InsertNodeAfter(producer, quantize_node);
    graph_.InsertNodeAfter(quantize,
                           LinearNode("DequantizeLinear", {integers, scale, zero}, reals));
    return reals;
  }

  // The same integers on steps 2^exponent as large: ConcatFactors.
  ValueId Coarser(ValueId reals, int exponent, QuantParams params) {
    const ValueId factor =
        graph_.AddConstant(names_.Next('s'), Tensor::Scalar(std::ldexp(1.0F, exponent)));
    const ValueId larger = NewValue('r', DType::kF32, graph_.value(reals).shape);
    const NodeId times =
        graph_.InsertNodeAfter(graph_.producer(reals), LinearNode("Mul", {reals, factor}, larger));
    params.scales[0] = std::ldexp(params.scales[0], exponent);
    return Rounded(larger, times, params);
  }

  // Readers of `id` read its dequantized integers from here on; a graph output, and who needs not round, keeps the reals.
  void InsertPair(ValueId id) {
    const QuantParams& params = params_.at(id);
    const std::vector<NodeId> readers(graph_.consumers(id).begin(), graph_.consumers(id).end());
    ValueId reals = Rounded(id, graph_.producer(id), params);
    if (const auto finer = factors_.exponents.find(id); finer != factors_.exponents.end())
      reals = Coarser(reals, finer->second, params);
    for (const NodeId reader : readers) {
      if (selection_.ReadsReals(graph_, id, reader)) continue;
      for (size_t slot = 0; slot < graph_.node(reader).inputs.size(); ++slot) {
        if (graph_.node(reader).inputs[slot] == id) graph_.SetInput(reader, slot, reals);
      }
    }
    scales_[reals] = params.scales[0];
  }

  // One constant for all matrices of so many channels.
  ValueId WeightZeroPoints(int64_t channels) {
    const auto [at, added] = weight_zero_points_.try_emplace(channels, kNone);
    if (added) {
      Tensor zeros(DType::kI8, Shape{channels});
      std::ranges::fill(zeros.mutable_span<int8_t>(), int8_t{0});
      at->second = graph_.AddConstant(names_.Next('z'), std::move(zeros));
    }
    return at->second;
  }

  // Zero points are 0, and left out: a runtime fills them in. But ONNX Runtime (1.21) then has one for all scales of a matrix, where
  // its product wants as many.
  ValueId Dequantized(NodeId before, const std::string& name, const QuantizedWeights& weights) {
    const QuantParams& params = weights.params;
    const Shape shape = weights.values.shape();
    const Shape scales_shape =
        params.per_tensor() ? Shape{} : Shape{static_cast<int64_t>(params.scales.size())};
    std::vector<ValueId> inputs = {
        graph_.AddConstant(name, weights.values),
        graph_.AddConstant(names_.Next('s'), Tensor::From<float>(scales_shape, params.scales))};
    if (!params.per_tensor() && !IsConvolutional(graph_.node(before)))
      inputs.push_back(WeightZeroPoints(scales_shape[0]));
    const ValueId reals = NewValue('r', DType::kF32, shape);
    Node node = LinearNode("DequantizeLinear", std::move(inputs), reals);
    if (!params.per_tensor()) node.attributes.Set("axis", int64_t{params.axis});
    graph_.InsertNodeBefore(before, std::move(node));
    return reals;
  }

  // Also where the last layer is in float.
  static std::pair<NodeId, NodeId> OuterLayers(const Graph& graph) {
    std::pair<NodeId, NodeId> outer = {kNone, kNone};
    for (const NodeId id : graph.order()) {
      if (!AsWeighted(graph, id)) continue;
      if (outer.first == kNone) outer.first = id;
      outer.second = id;
    }
    return outer;
  }

  int LimitOf(const WeightedNode& weighted) const {
    const bool outer = weighted.node == outer_.first || weighted.node == outer_.second;
    return recipe_.weight_bits == 4 && !outer ? kNibbleLimit : kByteLimit;
  }

  QuantizedWeights Round(const WeightedNode& weighted, const Tensor& weights,
                         std::span<const float> smallest) {
    QuantizedWeights quantized = QuantizeWeights(weights, weighted.weight_axis, recipe_.per_channel,
                                                 smallest, LimitOf(weighted));
    const auto patches = statistics_.patches.find(weighted.node);
    if (!recipe_.compensate || patches == statistics_.patches.end()) return quantized;
    const auto found = factors_.readers.find(weighted.node);
    const std::vector<double> factors =
        found == factors_.readers.end() ? std::vector<double>() : found->second;
    CompensatedWeights& rounded = rounded_[weighted.node];
    if (rounded.weights.params == quantized.params && rounded.factors == factors)
      return rounded.weights;
    if (factors.empty()) {
      Compensate(weighted, weights, patches->second, quantized);
    } else {
      PatchMoments scaled = patches->second;
      scaled.Scale(factors);
      Compensate(weighted, weights, scaled, quantized);
    }
    rounded = {quantized, factors};
    return quantized;
  }

  void Compensate(const WeightedNode& weighted, const Tensor& weights, const PatchMoments& patches,
                  QuantizedWeights& quantized) const {
    const bool centered = recipe_.correct_bias && weighted.bias != kNone;
    CompensateRounding(weights, LayoutOf(graph_, weighted), patches, centered, quantized);
  }

  void QuantizeNode(const WeightedNode& weighted) {
    const Node& node = graph_.node(weighted.node);
    const float input_scale = scales_.at(node.inputs[0]);
    const WeightLayout layout = LayoutOf(graph_, weighted);
    const std::string weight_name = graph_.value(node.inputs[1]).name;
    Tensor weights = graph_.value(node.inputs[1]).constant;
    const auto factors = factors_.readers.find(weighted.node);
    if (factors != factors_.readers.end()) weights = OverFactors(weights, layout, factors->second);
    std::vector<float> smallest;
    if (weighted.bias != kNone)
      smallest = SmallestScales(graph_.value(weighted.bias).constant, input_scale);
    const QuantizedWeights quantized = Round(weighted, weights, smallest);
    records_.push_back({weight_name, "weights", Format("INT8 {}", quantized.params.ToString())});
    const std::string name = names_.InPlaceOf(graph_, node.inputs[1]);
    graph_.SetInput(weighted.node, 1, Dequantized(weighted.node, name, quantized));
    if (weighted.bias == kNone) return;
    Tensor bias = graph_.value(weighted.bias).constant;
    if (recipe_.correct_bias) {
      std::vector<double> means = statistics_.moments.at(weighted.node).means();
      for (size_t c = 0; factors != factors_.readers.end() && c < means.size(); ++c)
        means[c] *= factors->second[c];
      for (double& mean : means) mean *= ReachedShare(graph_.node(weighted.node));
      bias = CorrectBias(bias, weights, quantized, layout, means);
    }
    // One for each channel of a group, where there are groups of a ConvTranspose.
    std::vector<float> sum_scales = quantized.params.scales;
    for (float& scale : sum_scales) scale *= input_scale;
    // ONNX allows a Gemm's bias as [1, N]; runtimes that compute in integers want [N].
    const Tensor flat = bias.Reshaped(Shape{bias.elements()});
    graph_.SetInput(
        weighted.node, 2,
        graph_.AddConstant(names_.InPlaceOf(graph_, weighted.bias), RoundBias(flat, sum_scales)));
  }

  Graph graph_;
  const QuantizeRecipe& recipe_;
  const Statistics& statistics_;
  const Selection& selection_;
  const RangeTable& ranges_;
  RoundedWeights& rounded_;
  std::pair<NodeId, NodeId> outer_;  ///< The first and the last layer.
  int version_;
  ShortNames names_;
  std::map<int32_t, ValueId> zero_points_;         ///< Of activations.
  std::map<int64_t, ValueId> weight_zero_points_;  ///< By the number of channels.
  std::map<ValueId, QuantParams> params_;
  ConcatFactors factors_;
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
