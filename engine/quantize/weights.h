// Weight quantization: symmetric, per output channel or per tensor.
#pragma once

#include <span>

#include "engine/tensor/quant_params.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// The largest integer of 8-bit weights, and of 4-bit ones; the smallest is its negative.
inline constexpr int kByteLimit = 127;
inline constexpr int kNibbleLimit = 7;

struct QuantizedWeights {
  Tensor values;       ///< I8 in [-limit, limit], the shape of the source.
  QuantParams params;  ///< Zero points 0; axis is the output channel's, or per tensor.
  int limit = kByteLimit;
};

/// scale[c] = max|w[c]| / limit; a channel without a weight beyond 1e-30 becomes one of zeros and takes scale 1/limit, so that no
/// scale is flushed to zero. On a grid coarser than 8 bits scale[c] is the share of this
/// that leaves the least squared error. `smallest[c]`, when given, is a lower bound
/// for scale[c] (one per channel): it keeps bias / (input scale * weight scale) inside 32 bits.
/// Requires: F32 weights, rank >= 1, 0 <= axis < rank; all elements finite.
QuantizedWeights QuantizeWeights(const Tensor& weights, int axis, bool per_channel,
                                 std::span<const float> smallest = {}, int limit = kByteLimit);

/// How an operator reads its weights: output channels on `axis`; convolutions have [OC, IC / groups, spatial...], matrices
/// have their inputs on the other axis.
struct WeightLayout {
  int axis = 0;
  bool conv = false;
};

/// Tells the channels that a weight stands between. Cheap to call for each weight in turn.
class WeightIndex {
 public:
  struct Channels {
    size_t out;
    size_t in;  ///< Counted over all groups.
  };
  /// `inputs`: channels of the activation that the weights are multiplied with.
  WeightIndex(const Shape& shape, const WeightLayout& layout, int64_t inputs);
  /// The channels of the weight at this row-major position.
  Channels operator()(int64_t position) const;

 private:
  int64_t columns_;            ///< Extent 1 of the weights.
  int64_t inner_;              ///< Elements behind it.
  int64_t outputs_per_group_;  ///< 0: a matrix, without groups.
  bool rows_are_outputs_;
};

/// bias[o] - sum over i of (rounded - exact weight)[o, i] * means[i]: takes out what rounding the weights adds to the mean of
/// every output channel. `means` holds the mean of each input channel (of all groups). Requires: F32 weights and bias, one
/// bias per output channel. Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction.
Tensor CorrectBias(const Tensor& bias, const Tensor& weights, const QuantizedWeights& quantized,
                   const WeightLayout& layout, std::span<const double> means);

/// The smallest weight scales for which round(bias[c] / (input_scale * scale[c])) fits 31 bits.
std::vector<float> SmallestScales(const Tensor& bias, float input_scale);

/// The real nearest to `real` among the integer sums' values, multiples of `scale` below 2^31 of them; itself where the scale is too
/// small to be a float.
float RoundToSums(double real, float scale);

/// scales[c] * round_half_even(bias[c] / scales[c]), within 32 bits, as F32: with the scales of the integer sums, input scale * weight
/// scale, it is what ONNX Runtime (from 1.21 on) takes for an I32 bias, and needs no scales of its own in the file.
/// Requires: F32 bias; scales of one entry or one per element.
Tensor RoundBias(const Tensor& bias, std::span<const float> scales);

}  // namespace octet
