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

/// How an operator reads its weights: output channels on `axis`, input channels on the other one of the first two. Convolutions have
/// [OC, IC / groups, spatial...], transposed ones [IC, OC / groups, spatial...]: axis 1 counts the channels of one group.
struct WeightLayout {
  int axis = 0;
  int64_t groups = 1;

  /// Channels of all groups.
  int64_t Outputs(const Shape& shape) const { return shape[axis] * (axis == 1 ? groups : 1); }
  int64_t Inputs(const Shape& shape) const { return shape[1 - axis] * (axis == 0 ? groups : 1); }
};

/// Tells the channels that a weight stands between. Cheap to call for each weight in turn.
class WeightIndex {
 public:
  struct Channels {  ///< Counted over all groups.
    size_t out;
    size_t in;
  };
  /// Requires: rank >= 2.
  WeightIndex(const Shape& shape, const WeightLayout& layout);
  /// The channels of the weight at this row-major position.
  Channels operator()(int64_t position) const;
  /// Where weight `k` of an output channel lies: of its group's input channels in their order, each with all its taps.
  int64_t PositionOf(int64_t out, int64_t k) const;

 private:
  int64_t rows_per_group_;
  int64_t columns_;  ///< Extent 1 of the weights.
  int64_t taps_;     ///< Elements behind it.
  bool rows_are_outputs_;
};

/// bias[o] - sum over i of (rounded - exact weight)[o, i] * means[i]: takes out what rounding the weights adds to the mean of
/// every output channel. `means` holds the mean of what each input channel (of all groups) gives to a weight. Requires: F32 weights and bias, one
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
/// Requires: F32 bias; scales of one entry, one per element, or one for each element of a group.
Tensor RoundBias(const Tensor& bias, std::span<const float> scales);

}  // namespace octet
