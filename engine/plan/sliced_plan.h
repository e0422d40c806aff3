// A plan of many rows that runs a plan of fewer rows again and again.
#pragma once

#include <memory>
#include <vector>

#include "engine/engine.h"

namespace octet {

/// Slices are independent: a thread runs one after the other and meets no other thread before the end. Each has a workspace
/// of its own in the caller's; weights are shared.
/// Thread-safety: as ExecutablePlan.
class SlicedPlan final : public Plan {
 public:
  /// Requires: `slice` was compiled for one thread and has static outputs; all its inputs and outputs have its rows in front.
  SlicedPlan(std::shared_ptr<const Plan> slice, int64_t slices, int threads);

  std::span<const TensorSpec> inputs() const override { return inputs_; }
  std::span<const TensorSpec> outputs() const override { return outputs_; }
  /// The slice's, with the multiply-adds of all slices.
  const Certificate& certificate() const override { return certificate_; }
  PlanMemory memory() const override;
  std::chrono::nanoseconds compile_time() const override { return slice_->compile_time(); }
  const std::vector<PassTrace>& pass_trace() const override { return slice_->pass_trace(); }

  absl::Status Run(Workspace& workspace, std::span<const void* const> inputs,
                   std::span<void* const> outputs) const override;
  /// Of all slices: what a slice takes while all threads run one, as often as a thread runs one.
  absl::StatusOr<std::vector<LayerTime>> LayerTimes(Workspace& workspace,
                                                    int repeats) const override;

 private:
  absl::Status RunSlice(Workspace& workspace, int64_t index, std::span<const void* const> inputs,
                        std::span<void* const> outputs) const;
  template <typename Fn>
  absl::Status OnEveryThread(Workspace& workspace, const Fn& fn) const;

  const std::shared_ptr<const Plan> slice_;
  const int64_t slices_;
  const int threads_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  Certificate certificate_;
};

}  // namespace octet
