#include "engine/train/parameter.h"

#include <algorithm>
#include <cmath>

#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet::train {
namespace {

// A step of one moves a scale by so much of itself.
constexpr float kScaleUnit = 0.5F;

absl::StatusOr<const Tensor*> ConstantInput(const Graph& graph, const Node& node, size_t slot) {
  const ValueId id = node.input(slot);
  if (id != kNone && graph.value(id).is_constant()) return &graph.value(id).constant;
  return Unimplemented("{}: input {} is no constant, training needs one", Describe(node), slot);
}

// The parameters of a DequantizeLinear of constant integers.
absl::StatusOr<QuantParams> ReadConstantParams(const Graph& graph, const Node& node) {
  OCTET_ASSIGN_OR_RETURN(const Tensor* integers, ConstantInput(graph, node, 0));
  OCTET_ASSIGN_OR_RETURN(const Tensor* scale, ConstantInput(graph, node, 1));
  const auto scales = scale->span<float>();
  QuantParams params{{scales.begin(), scales.end()},
                     std::vector<int32_t>(scales.size(), 0),
                     QuantParams::kPerTensor};
  if (scale->shape().rank() > 0) {
    const auto axis = NormalizeAxis(node.attributes.IntOr("axis", 1), integers->shape().rank());
    if (!axis || integers->shape()[*axis] != scale->elements())
      return Unimplemented("{}: scales that lie along no axis", Describe(node));
    params.axis = *axis;
  }
  if (node.input(2) == kNone) return params;
  OCTET_ASSIGN_OR_RETURN(const Tensor* zero, ConstantInput(graph, node, 2));
  const auto* bytes = static_cast<const std::byte*>(zero->data());
  if (std::any_of(bytes, bytes + zero->bytes(), [](std::byte b) { return b != std::byte{0}; }))
    return Unimplemented("{}: constants with a zero point other than 0", Describe(node));
  return params;
}

}  // namespace

absl::StatusOr<ScalarParams> ReadScalarParams(const Graph& graph, const Node& node) {
  OCTET_ASSIGN_OR_RETURN(const Tensor* scale, ConstantInput(graph, node, 1));
  OCTET_ASSIGN_OR_RETURN(const Tensor* zero, ConstantInput(graph, node, 2));
  const bool bytes = zero->dtype() == DType::kU8 || zero->dtype() == DType::kI8;
  if (scale->elements() != 1 || zero->elements() != 1 || !bytes || scale->dtype() != DType::kF32) {
    return Unimplemented("{}: an activation needs one scale and an 8-bit zero point",
                         Describe(node));
  }
  const int32_t zero_point =
      zero->dtype() == DType::kU8 ? zero->span<uint8_t>()[0] : int32_t{zero->span<int8_t>()[0]};
  return ScalarParams{scale->span<float>()[0], zero_point, zero->dtype()};
}

ActivationScale::ActivationScale(std::string name, float scale, int32_t zero_point, DType dtype,
                                 bool learned)
    : parameter_{std::move(name), {0}, {0}, {scale * kScaleUnit}},
      start_(scale),
      zero_point_(zero_point),
      range_(RangeOf(dtype)),
      learned_(learned) {}

// Relative to where it began, so that a scale that nobody learned is what the file had, to the bit.
float ActivationScale::scale() const {
  return start_ * std::exp(kScaleUnit * parameter_.values[0]);
}

void ActivationScale::AddGradient(double by_scale) {
  parameter_.gradients[0] += static_cast<float>(by_scale * scale() * kScaleUnit);
}

absl::StatusOr<LatentWeights> LatentWeights::Read(const Graph& graph, NodeId dequantize,
                                                  int weight_bits) {
  const Node& node = graph.node(dequantize);
  OCTET_ASSIGN_OR_RETURN(const Tensor* integers, ConstantInput(graph, node, 0));
  if (integers->dtype() != DType::kI8)
    return Unimplemented("{}: weights of {}, training knows INT8", Describe(node),
                         DTypeName(integers->dtype()));
  LatentWeights weights;
  OCTET_ASSIGN_OR_RETURN(weights.params_, ReadConstantParams(graph, node));
  weights.integers_ = node.inputs[0];
  const Shape& shape = integers->shape();
  if (!weights.params_.per_tensor())
    weights.inner_ = shape.elements(weights.params_.axis + 1, shape.rank());
  weights.reals_ = Tensor(DType::kF32, shape);
  weights.gradient_ = Tensor(DType::kF32, shape);
  const auto q = integers->span<int8_t>();
  const auto fits = [](int8_t x) { return x >= -kNibbleLimit && x <= kNibbleLimit; };
  if (weight_bits == 4 && std::ranges::all_of(q, fits))
    weights.range_ = {-kNibbleLimit, kNibbleLimit};
  Parameter& parameter = weights.parameter_;
  parameter.name = graph.value(weights.integers_).name;
  parameter.values.assign(q.begin(), q.end());
  parameter.gradients.resize(q.size());
  for (int64_t i = 0; i < std::ssize(q); ++i) parameter.units.push_back(weights.ScaleOf(i));
  weights.Refresh();
  return weights;
}

float LatentWeights::ScaleOf(int64_t i) const {
  const auto channels = std::ssize(params_.scales);
  return params_.scales[static_cast<size_t>(i / inner_ % channels)];
}

void LatentWeights::Refresh() {
  float* const reals = reals_.mutable_span<float>().data();
  for (size_t i = 0; i < parameter_.values.size(); ++i) {
    reals[i] =
        parameter_.units[i] * static_cast<float>(QuantizeOne(parameter_.values[i], 1, 0, range_));
  }
}

void LatentWeights::PullGradient() {
  const float* const gradient = gradient_.span<float>().data();
  for (size_t i = 0; i < parameter_.values.size(); ++i) {
    const float rounded = std::nearbyint(parameter_.values[i]);
    const bool inside = rounded >= range_.min && rounded <= range_.max;
    parameter_.gradients[i] = inside ? parameter_.units[i] * gradient[i] : 0;
  }
}

void LatentWeights::WriteTo(Graph& graph) const {
  Tensor integers(DType::kI8, shape());
  for (size_t i = 0; i < parameter_.values.size(); ++i) {
    integers.mutable_span<int8_t>()[i] =
        static_cast<int8_t>(QuantizeOne(parameter_.values[i], 1, 0, range_));
  }
  graph.mutable_value(integers_).constant = std::move(integers);
}

absl::StatusOr<LatentBias> LatentBias::Read(const Graph& graph, ValueId id,
                                            const LatentWeights& weights,
                                            const ActivationScale& x) {
  const Value& value = graph.value(id);
  const std::vector<float>& scales = weights.params().scales;
  const bool flat =
      value.is_constant() && value.dtype == DType::kF32 && value.constant.shape().rank() == 1;
  if (!flat || (scales.size() > 1 && std::ssize(scales) != value.constant.elements())) {
    return Unimplemented("bias '{}': training knows constants of FP32 [C], one per output channel",
                         value.name);
  }
  LatentBias bias;
  bias.constant_ = id;
  bias.reals_ = Tensor(DType::kF32, value.constant.shape());
  bias.gradient_ = Tensor(DType::kF32, value.constant.shape());
  Parameter& parameter = bias.parameter_;
  parameter.name = value.name;
  // What one step of one weight adds where its input is at a quarter of its range.
  constexpr float kTypicalInput = 64;
  for (size_t c = 0; c < static_cast<size_t>(bias.size()); ++c) {
    const float unit = scales[c % scales.size()] * x.scale() * kTypicalInput;
    parameter.units.push_back(unit);
    parameter.values.push_back(value.constant.span<float>()[c] / unit);
  }
  parameter.gradients.resize(parameter.values.size());
  bias.Refresh(weights, x);
  return bias;
}

float LatentBias::Rounded(size_t c, const LatentWeights& weights, const ActivationScale& x) const {
  const std::vector<float>& scales = weights.params().scales;
  const float scale = scales[c % scales.size()] * x.scale();
  return RoundToSums(static_cast<double>(parameter_.values[c]) * parameter_.units[c], scale);
}

void LatentBias::Refresh(const LatentWeights& weights, const ActivationScale& x) {
  const auto reals = reals_.mutable_span<float>();
  for (size_t c = 0; c < reals.size(); ++c) reals[c] = Rounded(c, weights, x);
}

void LatentBias::PullGradient() {
  const auto gradient = gradient_.span<float>();
  for (size_t c = 0; c < gradient.size(); ++c)
    parameter_.gradients[c] = parameter_.units[c] * gradient[c];
}

void LatentBias::WriteTo(Graph& graph, const LatentWeights& weights,
                         const ActivationScale& x) const {
  Tensor constant(DType::kF32, reals_.shape());
  const auto reals = constant.mutable_span<float>();
  for (size_t c = 0; c < reals.size(); ++c) reals[c] = Rounded(c, weights, x);
  graph.mutable_value(constant_).constant = std::move(constant);
}

}  // namespace octet::train
