// A program as a Plan: the form of models that no static plan can have.
#pragma once

#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/plan/program.h"

namespace octet {

/// Thread-safety: run by several threads, each with a Workspace of its own.
class ProgramPlan final : public Plan {
 public:
  /// Makes the program of `graph`, whose inputs have been bound and which `pass_trace` tells of. Errors: as Program::Make.
  static absl::StatusOr<std::shared_ptr<const Plan>> Make(
      Graph graph, std::shared_ptr<const ProgramContext> context,
      std::vector<PassTrace> pass_trace);

  ProgramPlan(std::unique_ptr<const Program> program, std::shared_ptr<const ProgramContext> context,
              std::chrono::nanoseconds compile_time, std::vector<PassTrace> pass_trace);

  std::span<const TensorSpec> inputs() const override { return inputs_; }
  std::span<const TensorSpec> outputs() const override { return outputs_; }
  bool has_static_outputs() const override { return false; }
  const Certificate& certificate() const override { return certificate_; }
  PlanMemory memory() const override { return memory_; }
  std::chrono::nanoseconds compile_time() const override { return compile_time_; }

  /// INTERNAL: see has_static_outputs.
  absl::Status Run(Workspace& workspace, std::span<const void* const> inputs,
                   std::span<void* const> outputs) const override;
  absl::StatusOr<std::vector<Datum>> RunDynamic(Workspace& workspace, std::span<const Datum> inputs,
                                                const RunLimits& limits) const override;
  const std::vector<PassTrace>& pass_trace() const override { return pass_trace_; }
  absl::StatusOr<std::vector<LayerTime>> LayerTimes(Workspace& workspace,
                                                    int repeats) const override;

  const Program& program() const { return *program_; }

 private:
  absl::Status CheckInputs(std::span<const Datum> inputs) const;
  absl::Status CheckOutput(size_t i, const Datum& output) const;

  const std::unique_ptr<const Program> program_;
  const std::shared_ptr<const ProgramContext> context_;
  const std::chrono::nanoseconds compile_time_;
  const std::vector<PassTrace> pass_trace_;
  std::vector<std::shared_ptr<const Plan>> in_advance_;
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  Certificate certificate_;
  PlanMemory memory_;
};

}  // namespace octet
