#include "engine/train/parameter.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "engine/passes/quantization.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet::train {
namespace {

// A step of one moves a scale by so much of itself.
constexpr float kScaleUnit = 0.5F;

absl::StatusOr<const Tensor*> ConstantInput(const Graph& graph, const Node& node, size_t slot) {
  const ValueId id = node.input(slot);
  if (id != kNone && graph.value(id).is_constant()) return &graph.value(id).constant;
  return Unimplemented("{}: input {} is no constant, training needs one",
                       DescribeRounding(graph, node), slot);
}

// The parameters of a DequantizeLinear of constant integers.
absl::StatusOr<QuantParams> ReadConstantParams(const Graph& graph, const Node& node,
                                               const Shape& integers) {
  const auto params = ParamsOf(graph, node);
  if (!params)
    return Unimplemented("{}: training needs constant scales per tensor or along one axis",
                         DescribeRounding(graph, node));
  if (!params->per_tensor() && integers[params->axis] != std::ssize(params->scales))
    return Unimplemented("{}: scales that lie along no axis", DescribeRounding(graph, node));
  return *params;
}

// One element per output channel: what the layer's primitives read of a bias and write of its gradient.
absl::Status CheckBias(const Value& bias, int64_t channels) {
  if (bias.is_constant() && bias.dtype == DType::kF32 && bias.constant.shape() == Shape{channels})
    return absl::OkStatus();
  return Unimplemented("bias '{}': training knows constants of FP32 [C], one per output channel",
                       bias.name);
}

}  // namespace

std::string DescribeRounding(const Graph& graph, const Node& node) {
  return Format("{} of '{}'", Describe(node), graph.value(node.inputs[0]).name);
}

absl::StatusOr<ScalarParams> ReadScalarParams(const Graph& graph, const Node& node) {
  const auto params = ParamsOf(graph, node);
  const bool quantizes = node.is("QuantizeLinear");
  const DType dtype = graph.value(quantizes ? node.outputs[0] : node.inputs[0]).dtype;
  if (!params || !params->per_tensor() || (dtype != DType::kU8 && dtype != DType::kI8)) {
    return Unimplemented("{}: an activation needs one scale and an 8-bit zero point",
                         DescribeRounding(graph, node));
  }
  return ScalarParams{params->scales[0], params->zero_points[0], dtype};
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
  if (integers->dtype() != DType::kI8 && integers->dtype() != DType::kU8)
    return Unimplemented("{}: weights of {}, training knows INT8 and UINT8",
                         DescribeRounding(graph, node), DTypeName(integers->dtype()));
  LatentWeights weights;
  const Shape& shape = integers->shape();
  OCTET_ASSIGN_OR_RETURN(weights.params_, ReadConstantParams(graph, node, shape));
  weights.integers_ = node.inputs[0];
  weights.dtype_ = integers->dtype();
  weights.symmetric_ =
      std::ranges::all_of(weights.params_.zero_points, [](int32_t z) { return z == 0; });
  if (!weights.params_.per_tensor())
    weights.inner_ = shape.elements(weights.params_.axis + 1, shape.rank());
  weights.reals_ = Tensor(DType::kF32, shape);
  weights.gradient_ = Tensor(DType::kF32, shape);
  std::vector<int32_t> q;
  if (weights.dtype_ == DType::kI8) {
    std::ranges::copy(integers->span<int8_t>(), std::back_inserter(q));
  } else {
    std::ranges::copy(integers->span<uint8_t>(), std::back_inserter(q));
    weights.range_ = RangeOf(DType::kU8);
  }
  if (std::ranges::contains(q, -kByteLimit - 1)) weights.range_ = RangeOf(DType::kI8);
  const auto fits = [](int32_t x) { return x >= -kNibbleLimit && x <= kNibbleLimit; };
  if (weight_bits == 4 && std::ranges::all_of(q, fits))
    weights.range_ = {-kNibbleLimit, kNibbleLimit};
  Parameter& parameter = weights.parameter_;
  parameter.name = graph.value(weights.integers_).name;
  parameter.gradients.resize(q.size());
  for (size_t i = 0; i < q.size(); ++i) {
    const size_t channel = weights.ChannelOf(i);
    parameter.values.push_back(static_cast<float>(q[i] - weights.params_.zero_points[channel]));
    parameter.units.push_back(weights.params_.scales[channel]);
  }
  weights.Refresh();
  return weights;
}

LatentWeights LatentWeights::Fixed(const Tensor& reals) {
  LatentWeights weights;
  weights.reals_ = reals;
  weights.gradient_ = Tensor(DType::kF32, reals.shape());
  return weights;
}

size_t LatentWeights::ChannelOf(size_t i) const {
  return i / static_cast<size_t>(inner_) % params_.scales.size();
}

int32_t LatentWeights::ZeroPointOf(size_t i) const {
  return symmetric_ ? 0 : params_.zero_points[ChannelOf(i)];
}

void LatentWeights::Refresh() {
  float* const reals = reals_.mutable_span<float>().data();
  for (size_t i = 0; i < parameter_.values.size(); ++i) {
    const int32_t zero_point = ZeroPointOf(i);
    const int32_t q = QuantizeOne(parameter_.values[i], 1, zero_point, range_);
    reals[i] = parameter_.units[i] * static_cast<float>(q - zero_point);
  }
}

void LatentWeights::PullGradient() {
  const float* const gradient = gradient_.span<float>().data();
  for (size_t i = 0; i < parameter_.values.size(); ++i) {
    const auto zero_point = static_cast<float>(ZeroPointOf(i));
    const float rounded = std::nearbyint(parameter_.values[i]) + zero_point;
    const bool inside = rounded >= range_.min && rounded <= range_.max;
    parameter_.gradients[i] = inside ? parameter_.units[i] * gradient[i] : 0;
  }
}

void LatentWeights::WriteTo(Graph& graph) const {
  Tensor integers(dtype_, shape());
  auto* const bytes = static_cast<std::byte*>(integers.mutable_data());
  for (size_t i = 0; i < parameter_.values.size(); ++i) {
    const int32_t zero_point = ZeroPointOf(i);
    // The low byte is both types' own.
    bytes[i] = static_cast<std::byte>(QuantizeOne(parameter_.values[i], 1, zero_point, range_));
  }
  graph.mutable_value(integers_).constant = std::move(integers);
}

absl::StatusOr<LatentBias> LatentBias::Read(const Graph& graph, ValueId id, int64_t channels,
                                            const LatentWeights& weights,
                                            const ActivationScale& x) {
  const Value& value = graph.value(id);
  const std::vector<float>& scales = weights.params().scales;
  OCTET_RETURN_IF_ERROR(CheckBias(value, channels));
  if (scales.size() > 1 && std::ssize(scales) != channels)
    return Unimplemented("bias '{}': {} channels, but {} scales of the weights", value.name,
                         channels, scales.size());
  LatentBias bias;
  bias.constant_ = id;
  bias.reals_ = Tensor(DType::kF32, value.constant.shape());
  bias.gradient_ = Tensor(DType::kF32, value.constant.shape());
  Parameter& parameter = bias.parameter_;
  parameter.name = value.name;
  // What one step of one weight adds where its input is at a quarter of its range.
  constexpr double kTypicalInput = 64;
  // Of a channel that is nearly dead no float holds the unit, and none the bias in such units.
  constexpr double kLeastUnit = 1e-30;
  for (size_t c = 0; c < static_cast<size_t>(bias.size()); ++c) {
    const float real = value.constant.span<float>()[c];
    const double unit = std::max(kTypicalInput * scales[c % scales.size()] * x.scale(),
                                 kLeastUnit * std::max(1.0F, std::abs(real)));
    parameter.units.push_back(static_cast<float>(unit));
    parameter.values.push_back(real / parameter.units.back());
  }
  parameter.gradients.resize(parameter.values.size());
  bias.Refresh(weights, x);
  return bias;
}

absl::StatusOr<LatentBias> LatentBias::Fixed(const Graph& graph, ValueId id, int64_t channels) {
  const Value& value = graph.value(id);
  OCTET_RETURN_IF_ERROR(CheckBias(value, channels));
  LatentBias bias;
  bias.reals_ = value.constant;
  bias.gradient_ = Tensor(DType::kF32, value.constant.shape());
  return bias;
}

float LatentBias::Rounded(size_t c, const LatentWeights& weights, const ActivationScale& x) const {
  const std::vector<float>& scales = weights.params().scales;
  const float scale = scales[c % scales.size()] * x.scale();
  const double real = static_cast<double>(parameter_.values[c]) * parameter_.units[c];
  // Of a channel without weights, whose scale is next to nothing: the nearest integer would be far from it.
  constexpr double kMostSteps = 2147483648.0;
  if (std::abs(real) >= kMostSteps * scale) return static_cast<float>(real);
  return RoundToSums(real, scale);
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
