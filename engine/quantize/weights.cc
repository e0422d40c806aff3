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

Tensor CorrectBias(const Tensor& bias, const Tensor& weights, const QuantizedWeights& quantized,
                   const WeightLayout& layout, std::span<const double> means) {
  Tensor rounded(DType::kF32, weights.shape());
  DequantizeTensor(quantized.values.view(), quantized.params, rounded.mutable_view());
  const Shape& shape = weights.shape();
  const auto inputs = static_cast<int64_t>(means.size());
  const int64_t per_group = layout.conv ? shape[1] : inputs;
  const int64_t inner = shape.elements(layout.conv ? 2 : shape.rank(), shape.rank());
  const int64_t outputs_per_group = layout.conv ? shape[0] * per_group / inputs : 0;
  std::vector<double> error(static_cast<size_t>(shape[layout.axis]));
  for (int64_t i = 0; i < weights.elements(); ++i) {
    const int64_t row = i / inner / shape[1];
    const int64_t column = i / inner % shape[1];
    const int64_t out = layout.axis == 0 ? row : column;
    int64_t in = layout.axis == 0 ? column : row;
    if (layout.conv) in += out / outputs_per_group * per_group;
    const auto at = static_cast<size_t>(i);
    error[static_cast<size_t>(out)] +=
        (static_cast<double>(rounded.span<float>()[at]) - weights.span<float>()[at]) *
        means[static_cast<size_t>(in)];
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

Tensor QuantizeBias(const Tensor& bias, std::span<const float> scales) {
  Tensor result(DType::kI32, bias.shape());
  const std::span<const float> real = bias.span<float>();
  const std::span<int32_t> quantized = result.mutable_span<int32_t>();
  for (size_t i = 0; i < real.size(); ++i) {
    const double q =
        std::nearbyint(static_cast<double>(real[i]) / scales[scales.size() == 1 ? 0 : i]);
    quantized[i] = static_cast<int32_t>(std::clamp(q, -2147483647.0, 2147483647.0));
  }
  return result;
}

}  // namespace octet
