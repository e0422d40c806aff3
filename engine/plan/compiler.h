// From an optimised graph with static shapes to a plan.
#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "engine/graph/graph.h"
#include "engine/onednn/weight_cache.h"
#include "engine/ops/op.h"

namespace octet {

struct CompileContext {
  Precision precision = Precision::kFp32;
  Target target;
  onednn::WeightCache& weights;
  /// Intermediates, scratch and outputs together, which a model and its shapes may ask for.
  uint64_t max_plan_bytes = uint64_t{4} << 30;
  std::vector<PassTrace> pass_trace = {};  ///< How the graph came about, for Plan::pass_trace.
};

/// The operator's fast step. UNIMPLEMENTED, with the reason where there is one to tell, when this node has none: what oneDNN says of a
/// description that it does not take is such a reason, wherever it says so. Requires: static shapes.
absl::StatusOr<std::unique_ptr<Step>> LowerFast(const OpDef& def, const LowerContext& context);

/// Lowers every node in order (the reference kernel where a node has no fast form), lets steps overwrite
/// inputs that nobody reads later, and lays intermediates and scratch out in one arena. Constants that steps read when they
/// run are copied into the weight cache; the plan keeps nothing of the graph, and a constant is let go of behind the last step
/// that is made from it, or piece by piece while it is packed where nobody else holds it, so that packed and unpacked weights
/// need not be in memory together.
/// Call with the OpenMP team size of the target. Requires: every value has a static shape.
/// Errors: UNIMPLEMENTED for an unsupported operator; INVALID_ARGUMENT for a plan over the limit; what kernels say
/// about their node.
absl::StatusOr<std::shared_ptr<const Plan>> CompilePlan(Graph graph, const CompileContext& context);

}  // namespace octet
