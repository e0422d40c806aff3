#include "engine/quantize/weights.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/tensor/quantize.h"

namespace octet {

QuantizedWeights QuantizeWeights(const Tensor& weights, int axis, bool per_channel,
                                 std::span<const float> smallest) {
  const Shape& shape = weights.shape();
  const int64_t channels = shape[axis];
  const int64_t inner = shape.elements(axis + 1, shape.rank());
  const std::span<const float> real = weights.span<float>();
  std::vector<float> reach(static_cast<size_t>(channels), 0.0f);
  for (size_t i = 0; i < real.size(); ++i) {
    float& channel = reach[static_cast<size_t>(static_cast<int64_t>(i) / inner % channels)];
    channel = std::max(channel, std::abs(real[i]));
  }
  std::vector<float> scales(reach.size());
  for (size_t c = 0; c < scales.size(); ++c) {
    scales[c] = (reach[c] > 0 ? reach[c] : 1.0f) / 127;
    if (!smallest.empty()) scales[c] = std::max(scales[c], smallest[c % smallest.size()]);
  }
  QuantizedWeights result{Tensor(DType::kI8, shape), {}};
  if (per_channel) {
    result.params = {std::move(scales), std::vector<int32_t>(static_cast<size_t>(channels), 0),
                     axis};
  } else {
    result.params = QuantParams::PerTensor(*std::ranges::max_element(scales), 0);
  }
  QuantizeTensor(weights.view(), result.params, result.values.mutable_view());
  // -128 is left out: symmetric weights, and products that stay away from the 16-bit edge.
  for (int8_t& q : result.values.mutable_span<int8_t>()) q = std::max<int8_t>(q, -127);
  return result;
}

WeightIndex::WeightIndex(const Shape& shape, const WeightLayout& layout, int64_t inputs)
    : columns_(shape[1]),
      inner_(layout.conv ? shape.elements(2, shape.rank()) : 1),
      outputs_per_group_(layout.conv && inputs > 0 ? shape[0] * shape[1] / inputs : 0),
      rows_are_outputs_(layout.axis == 0) {}

WeightIndex::Channels WeightIndex::operator()(int64_t position) const {
  const int64_t row = position / inner_ / columns_;
  const int64_t column = position / inner_ % columns_;
  const int64_t out = rows_are_outputs_ ? row : column;
  int64_t in = rows_are_outputs_ ? column : row;
  if (outputs_per_group_ > 0) in += out / outputs_per_group_ * columns_;
  return {static_cast<size_t>(out), static_cast<size_t>(in)};
}

Tensor CorrectBias(const Tensor& bias, const Tensor& weights, const QuantizedWeights& quantized,
                   const WeightLayout& layout, std::span<const double> means) {
  Tensor rounded(DType::kF32, weights.shape());
  DequantizeTensor(quantized.values.view(), quantized.params, rounded.mutable_view());
  const WeightIndex index(weights.shape(), layout, std::ssize(means));
  std::vector<double> error(static_cast<size_t>(weights.shape()[layout.axis]));
  for (int64_t i = 0; i < weights.elements(); ++i) {
    const auto [out, in] = index(i);
    const auto at = static_cast<size_t>(i);
    error[out] +=
        (static_cast<double>(rounded.span<float>()[at]) - weights.span<float>()[at]) * means[in];
  }
  Tensor corrected(DType::kF32, bias.shape());
  for (size_t o = 0; o < error.size(); ++o)
    corrected.mutable_span<float>()[o] = static_cast<float>(bias.span<float>()[o] - error[o]);
  return corrected;
}

std::vector<float> SmallestScales(const Tensor& bias, float input_scale) {
  constexpr float kLargest = 1 << 30;
  std::vector<float> smallest;
  for (const float b : bias.span<float>())
    smallest.push_back(std::abs(b) / (input_scale * kLargest));
  return smallest;
}

Tensor RoundBias(const Tensor& bias, std::span<const float> scales) {
  constexpr double kLimit = 2147483520;  // The largest float below 2^31.
  Tensor result(DType::kF32, bias.shape());
  const std::span<const float> real = bias.span<float>();
  const std::span<float> rounded = result.mutable_span<float>();
  for (size_t i = 0; i < real.size(); ++i) {
    const float scale = scales[scales.size() == 1 ? 0 : i];
    const double q = std::nearbyint(static_cast<double>(real[i]) / scale);
    rounded[i] = static_cast<float>(std::clamp(q, -kLimit, kLimit)) * scale;
  }
  return result;
}

}  // namespace octet
