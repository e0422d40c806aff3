// Int8 depthwise convolutions, a kernel of our own: oneDNN's (3.7) is slower than its bf16 one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/ops/depthwise_shape.h"
#include "engine/ops/int8_numbers.h"

namespace octet {

/// y[n, h, w, c] = clamp(round((sum over taps of (x - x_zero) * weights + bias[c]) * factor[c]) + y_zero, low, high) on
/// x [n, height, width, c] of 8-bit integers: square kernels and strides, no dilation, what lies outside is x_zero. The
/// sums are exact integers on every CPU, the rest is done in float as oneDNN does it, halves to even.
/// Immutable after construction.
class DepthwiseInt8 {
 public:
  /// Whether there is a kernel: 3 x 3 and 5 x 5, strides 1 and 2, 16 channels or more.
  static bool Covers(const DepthwiseShape& shape);
  /// The instruction set that the kernel is compiled for here, as Highway names it ("AVX3_DL").
  static const char* TargetName();

  /// `weights` [channels, kernel, kernel]; `bias` and `factor` one per channel. Requires: Covers(shape).
  DepthwiseInt8(const DepthwiseShape& shape, const Int8Numbers& numbers,
                std::span<const int8_t> weights, std::span<const float> bias,
                std::span<const float> factor);

  /// Computes rows [first, last) of out_height of one image. Thread-safety: safe from several threads.
  void Run(const void* x, void* y, int64_t first, int64_t last) const;

  /// What a run of adjacent channels needs, in the order in which the vectors hold them.
  struct Block : DepthwiseChannels {
    std::vector<int8_t> weights;  ///< [kernel columns][quads of kernel rows][4 vectors of lanes]
    std::vector<int32_t> compensation;  ///< [4 vectors of lanes / 4]: -x_zero * sum of weights
    std::vector<float> bias;            ///< Likewise.
    std::vector<float> factor;          ///< Likewise.
  };
  /// All that the kernel reads besides tensors.
  struct Packed {
    DepthwiseShape shape;
    Int8Numbers numbers;
    std::vector<Block> blocks;
    std::vector<uint8_t> outside;  ///< A row of x_zero.
  };

 private:
  Packed packed_;
};

}  // namespace octet
