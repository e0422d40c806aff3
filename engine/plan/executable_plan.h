// A compiled plan: steps in order over one arena.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/plan/buffer_map.h"
#include "engine/plan/workspace.h"

namespace octet {

/// Where a pointer of the frame comes from; kArena has its offset in bytes.
struct PointerSource {
  Location::Kind kind = Location::Kind::kNowhere;
  size_t index = 0;  ///< Arena offset, input or output number, index into `constants`.
};

/// One step with its place in the frame's pointer table.
struct PlannedStep {
  std::unique_ptr<const Step> step;
  std::string name;  ///< Describe(node), for messages.
  size_t first_pointer = 0;
  size_t inputs = 0;
  size_t outputs = 0;
  size_t scratch_offset = 0;  ///< In the arena.
  bool alone = false;         ///< On the calling thread, without the team.
};

/// Bytes that are copied to an output of the caller after the last step.
struct OutputCopy {
  PointerSource from;
  size_t output = 0;
  size_t bytes = 0;
};

/// All that a plan is made of; the compiler fills it in.
struct PlanParts {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::vector<PlannedStep> steps;
  std::vector<PointerSource> pointers;
  std::vector<Tensor> constants;  ///< Read when steps run.
  std::vector<OutputCopy> copies;
  Certificate certificate;
  PlanMemory memory;
  std::chrono::nanoseconds compile_time{};
  std::vector<PassTrace> pass_trace;
  int threads = 1;
};

/// Thread-safety: immutable; run by several threads, each with a Workspace of its own.
class ExecutablePlan final : public Plan {
 public:
  explicit ExecutablePlan(PlanParts parts);

  std::span<const TensorSpec> inputs() const override { return parts_.inputs; }
  std::span<const TensorSpec> outputs() const override { return parts_.outputs; }
  const Certificate& certificate() const override { return parts_.certificate; }
  PlanMemory memory() const override { return parts_.memory; }
  std::chrono::nanoseconds compile_time() const override { return parts_.compile_time; }
  const std::vector<PassTrace>& pass_trace() const override { return parts_.pass_trace; }

  absl::Status Run(Workspace& workspace, std::span<const void* const> inputs,
                   std::span<void* const> outputs) const override;
  absl::StatusOr<std::vector<LayerTime>> LayerTimes(Workspace& workspace,
                                                    int repeats) const override;

 private:
  struct Patch {
    size_t pointer;  ///< In the frame's table.
    size_t index;    ///< Of the caller's input or output.
  };

  absl::StatusOr<Frame*> FrameIn(Workspace& workspace) const;
  void Resolve(Frame& frame) const;
  void* Constant(size_t index) const { return const_cast<void*>(parts_.constants[index].data()); }
  StepArgs ArgsOf(size_t index, Frame& frame) const;
  absl::Status RunStep(size_t index, Frame& frame) const;
  absl::Status TimeInOrder(Frame& frame, std::vector<LayerTime>& times) const;
  absl::Status TimeAlone(size_t index, int repeats, Frame& frame, LayerTime& time) const;
  void CopyOutputs(const Frame& frame, std::span<const void* const> inputs,
                   std::span<void* const> outputs) const;
  absl::StatusOr<Frame*> Prepare(Workspace& workspace, std::span<const void* const> inputs,
                                 std::span<void* const> outputs) const;

  const uint64_t id_;
  const PlanParts parts_;
  std::vector<Patch> input_patches_;
  std::vector<Patch> output_patches_;
};

}  // namespace octet
