// What is learned: numbers of a QDQ graph as reals that round to the integers of its file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/graph.h"
#include "engine/quantize/weights.h"
#include "engine/tensor/quant_params.h"

namespace octet::train {

/// A QuantizeLinear or DequantizeLinear, of which quantizers leave the name empty, by what it reads:
/// "DequantizeLinear '' (opset 13) of 'conv1.weight'".
std::string DescribeRounding(const Graph& graph, const Node& node);

/// What an optimizer moves. `values` are in units of their own, which make steps of one size fit all parameters: reals
/// are values * units (or their change is, for a logarithm).
struct Parameter {
  std::string name;
  std::vector<float> values;
  std::vector<float> gradients;  ///< The loss's, by `values`.
  std::vector<float> units;      ///< One per value.
};

/// The scale of an 8-bit activation, shared by all that data movement ties together. The value that is learned is its logarithm.
class ActivationScale {
 public:
  ActivationScale(std::string name, float scale, int32_t zero_point, DType dtype, bool learned);

  float scale() const;
  int32_t zero_point() const { return zero_point_; }
  IntRange range() const { return range_; }
  bool learned() const { return learned_; }
  /// Adds to the loss's gradient by the scale.
  void AddGradient(double by_scale);
  Parameter& parameter() { return parameter_; }

 private:
  Parameter parameter_;
  float start_;
  int32_t zero_point_;
  IntRange range_;
  bool learned_;
};

/// The weights behind one DequantizeLinear: w[i] = s[c] (clamp(round(u[i]) + z[c], lowest, highest) - z[c]), the values being u. They
/// begin on the integers of the file.
class LatentWeights {
 public:
  /// Reads the constants of a DequantizeLinear of I8 or U8. Lowest and highest are -127 (-128 where one is) and 127, or 0 and 255.
  /// `weight_bits`: as QuantizeRecipe has it; with 4, they are -7 and 7 where all integers are within, for some layers keep 8 bits.
  /// UNIMPLEMENTED naming the node for others.
  static absl::StatusOr<LatentWeights> Read(const Graph& graph, NodeId dequantize,
                                            int weight_bits = 8);

  /// Weights of FP32 that nobody learns.
  static LatentWeights Fixed(const Tensor& reals);

  bool learned() const { return integers_ != kNone; }
  const Shape& shape() const { return reals_.shape(); }
  const QuantParams& params() const { return params_; }
  /// The weights that the network multiplies with, row-major; Refresh() writes them.
  const float* reals() const { return reals_.span<float>().data(); }
  /// Where the loss's gradient by the reals goes, row-major.
  float* gradient() { return gradient_.mutable_span<float>().data(); }

  void Refresh();
  /// parameter().gradients[i] = s[c] gradient()[i], 0 where u[i] rounds to beyond the range.
  void PullGradient();
  /// Puts the integers into the graph that this was read from, or a copy of it.
  void WriteTo(Graph& graph) const;
  Parameter& parameter() { return parameter_; }

 private:
  size_t ChannelOf(size_t i) const;
  int32_t ZeroPointOf(size_t i) const;

  Parameter parameter_;
  ValueId integers_ = kNone;
  DType dtype_ = DType::kI8;
  QuantParams params_;
  bool symmetric_ = true;  ///< All zero points are 0.
  IntRange range_ = {-kByteLimit, kByteLimit};
  int64_t inner_ = 1;  ///< Elements behind the axis of the scales.
  Tensor reals_;
  Tensor gradient_;
};

/// A bias on the grid of its layer's sums: b[c] = t[c] round(values[c] units[c] / t[c]) with t[c] = x scale * w scale[c].
class LatentBias {
 public:
  /// Reads a constant of F32 [C], C being the layer's `channels`. UNIMPLEMENTED naming it for others, such as those that a Gemm broadcasts.
  static absl::StatusOr<LatentBias> Read(const Graph& graph, ValueId id, int64_t channels,
                                         const LatentWeights& weights, const ActivationScale& x);

  /// A bias of a layer whose weights are fixed: nobody learns it, nor Refresh() or the like is called. Errors: as Read.
  static absl::StatusOr<LatentBias> Fixed(const Graph& graph, ValueId id, int64_t channels);

  int64_t size() const { return reals_.elements(); }
  const float* reals() const { return reals_.span<float>().data(); }
  float* gradient() { return gradient_.mutable_span<float>().data(); }

  void Refresh(const LatentWeights& weights, const ActivationScale& x);
  /// parameter().gradients[c] = units[c] gradient()[c].
  void PullGradient();
  void WriteTo(Graph& graph, const LatentWeights& weights, const ActivationScale& x) const;
  Parameter& parameter() { return parameter_; }

 private:
  /// t[c] round(b[c] / t[c]), or b[c] where that integer takes more than 32 bits.
  float Rounded(size_t c, const LatentWeights& weights, const ActivationScale& x) const;

  Parameter parameter_;
  ValueId constant_ = kNone;
  Tensor reals_;
  Tensor gradient_;
};

/// Scale, zero point and element type of a QuantizeLinear or DequantizeLinear whose parameters are constant scalars.
/// A zero point that is left out is 0. UNIMPLEMENTED naming the node for others. Requires: types inferred.
struct ScalarParams {
  float scale;
  int32_t zero_point;
  DType dtype;
  bool operator==(const ScalarParams&) const = default;
};
absl::StatusOr<ScalarParams> ReadScalarParams(const Graph& graph, const Node& node);

}  // namespace octet::train
