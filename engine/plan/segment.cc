#include "engine/plan/segment.h"

#include <algorithm>
#include <utility>

#include "engine/onednn/runtime.h"
#include "engine/passes/pass.h"
#include "engine/plan/compiler.h"
#include "engine/plan/signature.h"
#include "engine/tensor/status.h"

namespace octet {

PassContext AllPassesOf(const ProgramContext& context) {
  PassContext passes;
  passes.precision = context.precision;
  passes.target = context.target;
  passes.passes = context.passes;
  passes.disabled.insert(context.disabled_passes.begin(), context.disabled_passes.end());
  return passes;
}

PassContext PassesBeforeCut(const ProgramContext& context) {
  PassContext passes = AllPassesOf(context);
  for (const Pass& pass : AllPasses()) {
    if (!pass.before_cut) passes.disabled.emplace(pass.name);
  }
  return passes;
}

Segment::Segment(Graph graph, std::shared_ptr<const ProgramContext> context)
    : graph_(std::move(graph)),
      context_(std::move(context)),
      plans_(context_->max_cached_plans, context_->on_compile) {}

absl::StatusOr<std::shared_ptr<const Plan>> Segment::Compile(std::span<const Shape> shapes) const {
  const onednn::TeamSizeScope team(context_->target.threads);
  Graph graph = graph_;
  BindShapes(graph, shapes);
  OCTET_ASSIGN_OR_RETURN(std::vector<PassTrace> trace, RunPasses(graph, AllPassesOf(*context_)));
  return CompilePlan(std::move(graph), {context_->precision, context_->target, *context_->weights,
                                        context_->max_bytes, std::move(trace)});
}

absl::StatusOr<std::shared_ptr<const Plan>> Segment::Get(std::span<const Shape> shapes,
                                                         bool pinned) const {
  return plans_.Get(shapes, pinned, [&] { return Compile(shapes); });
}

absl::StatusOr<std::shared_ptr<const Plan>> Segment::PlanFor(std::span<const Shape> shapes) const {
  return Get(shapes, false);
}

absl::StatusOr<std::shared_ptr<const Plan>> Segment::PlanInAdvance() const {
  std::vector<Shape> shapes;
  for (const ValueId id : graph_.inputs) {
    if (!graph_.value(id).has_static_shape()) return nullptr;
    shapes.push_back(*graph_.value(id).shape);
  }
  return Get(shapes, true);
}

absl::StatusOr<std::vector<Tensor>> Segment::Run(Workspace& workspace,
                                                 std::span<const Tensor* const> inputs) const {
  std::vector<Shape> shapes;
  std::vector<const void*> from;
  for (const Tensor* input : inputs) {
    shapes.push_back(input->shape());
    from.push_back(input->data());
  }
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan, PlanFor(shapes));
  std::vector<Tensor> outputs;
  std::vector<void*> to;
  for (const TensorSpec& spec : plan->outputs())
    to.push_back(outputs.emplace_back(spec.dtype, spec.shape).mutable_data());
  OCTET_RETURN_IF_ERROR(plan->Run(workspace, from, to));
  return outputs;
}

}  // namespace octet
