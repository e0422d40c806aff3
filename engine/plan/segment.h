// A piece of a program that is an ordinary graph, and its plans by the shapes that arrive.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "engine/graph/graph.h"
#include "engine/onednn/weight_cache.h"
#include "engine/plan/plan_cache.h"

namespace octet {

/// What all pieces of one model share.
struct ProgramContext {
  Precision precision = Precision::kFp32;
  Target target;
  std::shared_ptr<onednn::WeightCache> weights;
  std::vector<std::string> disabled_passes;
  std::span<const Pass> passes = AllPasses();
  int max_cached_plans = 32;  ///< Of each segment.
  CompileObserver on_compile;
  int64_t max_loop_iterations = 0;
  uint64_t max_bytes = uint64_t{4} << 30;  ///< Of one plan, and of one value of a program.
};

/// The passes that only say what the file says in fewer words: what runs on a graph before it is cut.
PassContext PassesBeforeCut(const ProgramContext& context);
PassContext AllPassesOf(const ProgramContext& context);

/// Thread-safe. A plan is compiled when shapes arrive for the first time; the ones used longest ago make room.
class Segment {
 public:
  /// `graph`: the segment's own, its inputs and outputs in the order of `inputs` and `outputs`.
  Segment(Graph graph, std::shared_ptr<const ProgramContext> context);

  /// The plan for inputs of these shapes. Errors: as CompilePlan.
  absl::StatusOr<std::shared_ptr<const Plan>> PlanFor(std::span<const Shape> shapes) const;
  /// Compiles the plan for the shapes that the graph knows of its inputs; null when it does not know all of them.
  absl::StatusOr<std::shared_ptr<const Plan>> PlanInAdvance() const;

  /// Runs on tensors, one per input.
  absl::StatusOr<std::vector<Tensor>> Run(Workspace& workspace,
                                          std::span<const Tensor* const> inputs) const;

  const Graph& graph() const { return graph_; }
  int plan_count() const { return plans_.size(); }

 private:
  absl::StatusOr<std::shared_ptr<const Plan>> Get(std::span<const Shape> shapes, bool pinned) const;
  absl::StatusOr<std::shared_ptr<const Plan>> Compile(std::span<const Shape> shapes) const;

  const Graph graph_;
  const std::shared_ptr<const ProgramContext> context_;
  mutable PlanCache plans_;
};

}  // namespace octet
