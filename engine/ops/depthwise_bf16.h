// Depthwise convolutions of BF16 values, a kernel of our own: oneDNN's (3.7) takes one tap where a dot product of pairs takes two.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/ops/depthwise_shape.h"
#include "engine/tensor/dtype.h"

namespace octet {

/// What follows the sums, in float: one of the curves, or bounds. Source: ONNX Relu, Clip, HardSwish, Swish.
struct DepthwiseActivation {
  enum class Curve : uint8_t {
    kBounds,     ///< min(max(v, low), high); a NaN stays one.
    kSwish,      ///< v / (1 + exp(-alpha v)), to a share of 2e-4.
    kHardSwish,  ///< v * min(max(v / 6 + 1/2, 0), 1)
  };
  Curve curve = Curve::kBounds;
  float alpha = 1;
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
};

/// y[n, h, w, c] = round(f(sum over taps of x * weights + bias[c])) on x [n, height, width, c] of BF16: square kernels and strides, no
/// dilation, what lies outside is 0. Sums are FP32; numbers too small for a normal FP32 are 0, as in oneDNN's bf16 kernels.
/// Immutable after construction.
class DepthwiseBf16 {
 public:
  /// Whether there is a kernel: 3 x 3 and 5 x 5, strides 1 and 2, 8 channels or more, on a CPU with dot products of BF16.
  static bool Covers(const DepthwiseShape& shape);
  /// The instruction set that the kernel is compiled for here, as Highway names it ("AVX3_ZEN4").
  static const char* TargetName();

  /// `weights` [channels, kernel, kernel]; `bias` one per channel. Requires: Covers(shape).
  DepthwiseBf16(const DepthwiseShape& shape, const DepthwiseActivation& activation,
                std::span<const BFloat16> weights, std::span<const float> bias);

  /// Computes rows [first, last) of out_height of one image. Thread-safety: safe from several threads.
  void Run(const void* x, void* y, int64_t first, int64_t last) const;

  /// What a run of adjacent channels needs, in the order in which the vectors hold them.
  struct Block : DepthwiseChannels {
    std::vector<uint16_t> weights;  ///< [kernel columns][pairs of kernel rows][2 vectors of lanes]
    std::vector<float> bias;        ///< [2 vectors of lanes / 2]
  };
  /// All that the kernel reads besides tensors.
  struct Packed {
    DepthwiseShape shape;
    DepthwiseActivation activation;
    std::vector<Block> blocks;
    std::vector<uint16_t> outside;  ///< A row of zeros.
  };

 private:
  Packed packed_;
};

}  // namespace octet
