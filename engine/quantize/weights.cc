#include "engine/quantize/weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/tensor/quantize.h"

namespace octet {

namespace {

// Weights up to here add nothing to any sum of floats that counts, and scales that make integers of them, or their products with an
// activation's scale, are no floats where denormals are flushed to zero: such a channel is one of zeros.
constexpr float kNearlyDead = 1e-30F;

// Narrows the scales to what leaves the least squared error: what the ends lose, the many small weights may gain.
void NarrowScales(std::span<const float> real, int64_t inner, int limit,
                  std::vector<float>& scales) {
  constexpr int kShares = 50;
  const std::vector<float> widest = scales;
  std::vector<double> least(scales.size(), std::numeric_limits<double>::infinity());
  const auto range = static_cast<float>(limit);
  for (int share = kShares; share > kShares / 3; --share) {
    std::vector<double> errors(scales.size());
    const auto scale_of = [&](size_t c) {
      return widest[c] * static_cast<float>(share) / static_cast<float>(kShares);
    };
    for (size_t i = 0; i < real.size(); ++i) {
      const size_t c = i / static_cast<size_t>(inner) % scales.size();
      const float scale = scale_of(c);
      const double error =
          real[i] - scale * std::clamp(std::nearbyint(real[i] / scale), -range, range);
      errors[c] += error * error;
    }
    for (size_t c = 0; c < scales.size(); ++c) {
      if (errors[c] >= least[c]) continue;
      least[c] = errors[c];
      scales[c] = scale_of(c);
    }
  }
}

}  // namespace

QuantizedWeights QuantizeWeights(const Tensor& weights, int axis, bool per_channel,
                                 std::span<const float> smallest, int limit) {
  const Shape& shape = weights.shape();
  const int64_t channels = per_channel ? shape[axis] : 1;
  const int64_t inner =
      per_channel ? shape.elements(axis + 1, shape.rank()) : std::max<int64_t>(shape.elements(), 1);
  const std::span<const float> real = weights.span<float>();
  std::vector<float> scales(static_cast<size_t>(channels), 0.0F);
  for (size_t i = 0; i < real.size(); ++i) {
    float& reach = scales[static_cast<size_t>(static_cast<int64_t>(i) / inner % channels)];
    reach = std::max(reach, std::abs(real[i]));
  }
  for (float& scale : scales)
    scale = (scale > kNearlyDead ? scale : 1.0F) / static_cast<float>(limit);
  if (limit < kByteLimit) NarrowScales(real, inner, limit, scales);
  for (size_t c = 0; c < std::max(scales.size(), smallest.size()) && !smallest.empty(); ++c) {
    float& scale = scales[c % scales.size()];
    scale = std::max(scale, smallest[c % smallest.size()]);
  }
  QuantizedWeights result{Tensor(DType::kI8, shape), {}, limit};
  result.params = per_channel
                      ? QuantParams{std::move(scales),
                                    std::vector<int32_t>(static_cast<size_t>(channels), 0), axis}
                      : QuantParams::PerTensor(scales[0], 0);
  QuantizeTensor(weights.view(), result.params, result.values.mutable_view());
  // -128 is left out: symmetric weights, and products that stay away from the 16-bit edge.
  for (int8_t& q : result.values.mutable_span<int8_t>())
    q = static_cast<int8_t>(std::clamp<int>(q, -limit, limit));
  return result;
}

WeightIndex::WeightIndex(const Shape& shape, const WeightLayout& layout)
    : rows_per_group_(shape[0] / layout.groups),
      columns_(shape[1]),
      taps_(shape.elements(2, shape.rank())),
      rows_are_outputs_(layout.axis == 0) {}

WeightIndex::Channels WeightIndex::operator()(int64_t position) const {
  const int64_t row = position / taps_ / columns_;
  const int64_t column = position / taps_ % columns_ + row / rows_per_group_ * columns_;
  const auto out = static_cast<size_t>(rows_are_outputs_ ? row : column);
  const auto in = static_cast<size_t>(rows_are_outputs_ ? column : row);
  return {out, in};
}

int64_t WeightIndex::PositionOf(int64_t out, int64_t k) const {
  if (rows_are_outputs_) return out * columns_ * taps_ + k;
  const int64_t row = out / columns_ * rows_per_group_ + k / taps_;
  return (row * columns_ + out % columns_) * taps_ + k % taps_;
}

Tensor CorrectBias(const Tensor& bias, const Tensor& weights, const QuantizedWeights& quantized,
                   const WeightLayout& layout, std::span<const double> means) {
  Tensor rounded(DType::kF32, weights.shape());
  DequantizeTensor(quantized.values.view(), quantized.params, rounded.mutable_view());
  const WeightIndex index(weights.shape(), layout);
  std::vector<double> error(static_cast<size_t>(layout.Outputs(weights.shape())));
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

float RoundToSums(double real, float scale) {
  constexpr double kLimit = 2147483520;  // The largest float below 2^31.
  if (!(scale > 0)) return static_cast<float>(real);
  return static_cast<float>(std::clamp(std::nearbyint(real / scale), -kLimit, kLimit)) * scale;
}

Tensor RoundBias(const Tensor& bias, std::span<const float> scales) {
  Tensor result(DType::kF32, bias.shape());
  const std::span<const float> real = bias.span<float>();
  const std::span<float> rounded = result.mutable_span<float>();
  for (size_t i = 0; i < real.size(); ++i) {
    rounded[i] = RoundToSums(real[i], scales[i % scales.size()]);
  }
  return result;
}

}  // namespace octet
