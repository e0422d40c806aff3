// A Step that is one oneDNN primitive, or a short sequence of them over one scratch.
#pragma once

#include <vector>

#include "engine/onednn/bound_primitive.h"
#include "engine/ops/step.h"

namespace octet {

/// Collects the primitives of a step and the scratch that they need.
class PrimitiveStep : public Step {
 public:
  /// Offset of `bytes` more bytes of scratch.
  size_t ReserveScratch(size_t bytes);
  /// Adds the primitive of `pd`; its own scratchpad becomes part of the step's. Errors: oneDNN's.
  absl::Status Add(const dnnl::primitive_desc_base& pd, std::vector<onednn::ExecArg> args);

  absl::Status Run(const StepArgs& args) const override { return RunPrimitives(args); }
  absl::Status RunPrimitives(const StepArgs& args) const override;
  size_t scratch_bytes() const override { return scratch_bytes_; }
  absl::StatusOr<std::unique_ptr<StepState>> NewState() const override;
  bool reads_input(int i) const override;
  bool is_primitive() const override { return true; }

 private:
  std::vector<onednn::BoundPrimitive> primitives_;
  size_t scratch_bytes_ = 0;
};

}  // namespace octet
