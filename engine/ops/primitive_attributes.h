// What a oneDNN primitive is told beside its tensors: scales, zero points and post-ops, together with the arguments
// that carry their values when it runs.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/onednn/bound_primitive.h"
#include "engine/ops/step.h"
#include "engine/tensor/shape.h"

namespace octet {

/// How the operand of a binary post-op with these extents looks to the primitive: as many axes as its result, in its
/// order. UNIMPLEMENTED where it cannot be seen that way.
using OperandDescFn = std::function<absl::StatusOr<dnnl::memory::desc>(DType, const Shape&)>;

/// True when op(s * x) = s * op(x) for positive s, a Clip's bounds scaled alike.
bool ScalesWithItsInput(const PostOp& op);

/// True for the addition of a value that is stored in 8 bits with one scale.
bool AddsStored(const LowerContext& context, const PostOp& op);

/// Collects attributes and arguments of one primitive. Requires: alive while the node's context is.
class PrimitiveAttributes {
 public:
  explicit PrimitiveAttributes(const LowerContext& context) : context_(context) {}

  /// Scales of `arg` (DNNL_ARG_SRC, ...) along the axes of `mask`; 0: one for all.
  void AddScales(int arg, int mask, std::span<const float> scales);
  /// The zero point of `arg`, where it is not 0. Requires: one element.
  void AddZeroPoint(int arg, std::span<const int32_t> zero_point);
  /// A scale that is in the step's scratch by the time the primitive runs.
  void AddScratchScale(int arg, size_t offset);
  /// A zero point that is there by then.
  void AddScratchZeroPoint(int arg, size_t offset);
  /// + the reals at `offset` of the step's scratch.
  void AddScratchSum(const dnnl::memory::desc& desc, size_t offset);
  /// * factors, which lie beside the result as `desc` says.
  void AddFactors(const dnnl::memory::desc& desc, std::span<const float> factors);
  /// Rounds to the nearest integer, halves to even.
  void AddRound();
  /// The unit that a primitive computes in: a number of it stands for so many times the real.
  struct Units {
    float sums = 1;    ///< Of what the primitive has when the post-ops begin.
    float result = 1;  ///< Of what they leave.
  };
  /// The node's post-ops, in order. Units change at an operand that is stored in 8 bits, real = s * (q - z), which is added as
  /// it is stored: u * y + s * (q - z) = s * ((u / s) * y + q - z). Requires: without such an operand both units are one; units
  /// are not 1 only where all other post-ops scale with their input. UNIMPLEMENTED for what oneDNN has no form of.
  absl::Status AddPostOps(const OperandDescFn& operand_desc, Units units);
  absl::Status AddPostOps(const OperandDescFn& operand_desc) {
    return AddPostOps(operand_desc, {});
  }

  /// Everything so far, with the user-managed scratchpad.
  dnnl::primitive_attr TakeAttributes();
  std::vector<onednn::ExecArg> TakeArgs() { return std::move(args_); }

 private:
  absl::Status AddBinary(const PostOp& op, const OperandDescFn& operand_desc, float& unit,
                         float result_unit);
  void AddLinear(float factor, float addend);
  int NextPostOpArg() const;

  const LowerContext& context_;
  dnnl::primitive_attr attr_ = onednn::UserScratchpad();
  dnnl::post_ops post_ops_;
  std::vector<onednn::ExecArg> args_;
};

}  // namespace octet
