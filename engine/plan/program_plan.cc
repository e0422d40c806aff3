#include "engine/plan/program_plan.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

TensorSpec SpecOf(const Value& value) { return {value.dtype, value.shape.value_or(Shape{})}; }

// The declared shape, where something is declared, is what the answer has.
bool Agrees(const std::optional<Shape>& expected, const Shape& got) {
  if (!expected) return true;
  const auto fits = [](int64_t known, int64_t extent) {
    return known == kUnknownDim || known == extent;
  };
  return std::ranges::equal(expected->dims(), got.dims(), fits);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Plan>> ProgramPlan::Make(
    Graph graph, std::shared_ptr<const ProgramContext> context, std::vector<PassTrace> pass_trace) {
  const auto start = std::chrono::steady_clock::now();
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<const Program> program,
                         Program::Make(std::move(graph), context));
  return std::make_shared<const ProgramPlan>(std::move(program), std::move(context),
                                             std::chrono::steady_clock::now() - start,
                                             std::move(pass_trace));
}

ProgramPlan::ProgramPlan(std::unique_ptr<const Program> program,
                         std::shared_ptr<const ProgramContext> context,
                         std::chrono::nanoseconds compile_time, std::vector<PassTrace> pass_trace)
    : program_(std::move(program)),
      context_(std::move(context)),
      compile_time_(compile_time),
      pass_trace_(std::move(pass_trace)) {
  const Graph& graph = program_->graph();
  for (const ValueId id : graph.inputs) inputs_.push_back(SpecOf(graph.value(id)));
  for (const ValueId id : graph.outputs) outputs_.push_back(SpecOf(graph.value(id)));
  program_->AppendPlans(in_advance_);
  program_->AppendLayers(certificate_.layers);
  certificate_.requested = context_->precision;
  certificate_.isa = context_->target.isa;
  for (const std::shared_ptr<const Plan>& plan : in_advance_) {
    memory_.arena_bytes = std::max(memory_.arena_bytes, plan->memory().arena_bytes);
    memory_.live_peak_bytes = std::max(memory_.live_peak_bytes, plan->memory().live_peak_bytes);
  }
}

absl::Status ProgramPlan::CheckInputs(std::span<const Datum> inputs) const {
  const Graph& graph = program_->graph();
  if (inputs.size() != graph.inputs.size()) {
    return InvalidArgument("wrong number of inputs: expected {}, got {}", graph.inputs.size(),
                           inputs.size());
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value& value = graph.value(graph.inputs[i]);
    const Datum& got = inputs[i];
    const bool sequence =
        value.kind == ValueKind::kSequence || value.kind == ValueKind::kOptionalSequence;
    const bool optional = !value.is_tensor() && value.kind != ValueKind::kSequence;
    const bool fits = got.kind == Datum::Kind::kEmpty ? optional : got.is_sequence() == sequence;
    if (!fits) {
      return InvalidArgument("input '{}': expected a value of kind {}", value.name,
                             ValueKindName(value.kind));
    }
    const auto wrong_type = [&](const Tensor& tensor) { return tensor.dtype() != value.dtype; };
    if ((got.is_tensor() && wrong_type(got.tensor)) ||
        std::ranges::any_of(got.sequence, wrong_type)) {
      return InvalidArgument("input '{}': expected elements of {}", value.name,
                             DTypeName(value.dtype));
    }
    const auto too_large = [&](const Tensor& tensor) {
      return !MayArrive(tensor.shape(), SizeOf(tensor.dtype()), context_->max_bytes);
    };
    const auto largest = std::ranges::find_if(got.sequence, too_large);
    if (largest != got.sequence.end() || (got.is_tensor() && too_large(got.tensor))) {
      return InvalidArgument("input '{}' of shape {} is over the limit of {} bytes", value.name,
                             (got.is_tensor() ? got.tensor : *largest).shape().ToString(),
                             context_->max_bytes);
    }
    if (got.is_tensor() && !Agrees(value.shape, got.tensor.shape())) {
      return InvalidArgument("input '{}': expected shape {}, got {}", value.name,
                             value.shape->ToString(), got.tensor.shape().ToString());
    }
  }
  return absl::OkStatus();
}

absl::Status ProgramPlan::CheckOutput(size_t i, const Datum& output) const {
  const Graph& graph = program_->graph();
  const Value& value = graph.value(graph.outputs[i]);
  if (!output.is_tensor() || Agrees(value.shape, output.tensor.shape())) return absl::OkStatus();
  return InvalidArgument("output '{}' has shape {}, but the model declares {}", value.name,
                         output.tensor.shape().ToString(), value.shape->ToString());
}

absl::StatusOr<std::vector<Datum>> ProgramPlan::RunDynamic(Workspace& workspace,
                                                           std::span<const Datum> inputs,
                                                           const RunLimits& limits) const {
  OCTET_RETURN_IF_ERROR(CheckInputs(inputs));
  ProgramRun run{workspace, context_->max_loop_iterations, context_->max_bytes, limits};
  try {
    OCTET_ASSIGN_OR_RETURN(std::vector<Datum> outputs,
                           program_->Run(run, std::vector<Datum>(inputs.begin(), inputs.end())));
    for (size_t i = 0; i < outputs.size(); ++i) OCTET_RETURN_IF_ERROR(CheckOutput(i, outputs[i]));
    return outputs;
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, "out of memory");
  }
}

absl::Status ProgramPlan::Run(Workspace& /*workspace*/, std::span<const void* const> /*inputs*/,
                              std::span<void* const> /*outputs*/) const {
  return Internal("a plan whose outputs the data decide was run into buffers");
}

absl::StatusOr<std::vector<LayerTime>> ProgramPlan::LayerTimes(Workspace& workspace,
                                                               int repeats) const {
  std::vector<LayerTime> times;
  OCTET_RETURN_IF_ERROR(program_->AppendTimes(workspace, repeats, times));
  return times;
}

}  // namespace octet
