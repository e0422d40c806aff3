// The rounding of int8 products with an 8-bit result, as ONNX Runtime does it: sums (bias included) stay whole numbers,
// one factor per channel, a scale * b scale / y scale, turns them into steps of the result, and the zero point is added
// behind the rounding. With a residual that is stored in 8 bits the factors turn them into its steps first, a scale * b scale /
// residual scale: its integers are added as they are, and one factor more makes steps of the result.
#pragma once

#include <optional>

#include "engine/ops/primitive_attributes.h"
#include "engine/ops/step.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// What a Conv or octet:MatMul with such a result tells its primitive instead of scales.
class WholeSums {
 public:
  /// nullopt where the result is not quantized, where a post-op minds the unit that it computes in, where there are two
  /// residuals, or where the bias is too large for a count. Requires: inputs 0 and 1 are quantized, input 0 and the output per tensor; the result has
  /// `channels` along its last axis; alive while the context's node is.
  static std::optional<WholeSums> Of(const LowerContext& context, int64_t channels);

  /// The node's bias counted in what the sums count; without elements where it has none.
  const Tensor& bias() const { return bias_; }

  /// What turns the sums of a channel into steps of the result, or of the residual.
  std::span<const float> factors() const { return factors_; }

  /// Turns sums into steps of the result: factors beside the result as `channels` says, post-ops, rounding, zero point.
  absl::Status AddResult(PrimitiveAttributes& attributes, const dnnl::memory::desc& channels,
                         const OperandDescFn& operand_desc) const;

 private:
  WholeSums(const LowerContext& context, float step) : context_(&context), step_(step) {}

  /// What the sums of a channel count.
  float Unit(int64_t channel) const;
  bool CountBias(int64_t channels);

  const LowerContext* context_;
  float step_;  ///< What the factors turn sums into multiples of.
  Tensor bias_;
  std::vector<float> factors_;
};

}  // namespace octet
