#include "engine/plan/executable_plan.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "engine/onednn/runtime.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using Kind = Location::Kind;

std::atomic<uint64_t> next_plan_id{1};

// Plausible elements to time kernels on: small numbers of both signs for reals, zeros for everything else.
Tensor TimingInput(const TensorSpec& spec) {
  Tensor tensor(spec.dtype, spec.shape);
  std::memset(tensor.mutable_data(), 0, tensor.bytes());
  if (spec.dtype == DType::kF32) {
    int i = 0;
    for (float& x : tensor.mutable_span<float>()) x = 0.25f * static_cast<float>(i++ % 9 - 4);
  }
  return tensor;
}

}  // namespace

Workspace::Impl& Plan::Internals(Workspace& workspace) { return *workspace.impl_; }

absl::Status RunLimits::Check() const {
  if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) {
    return absl::CancelledError("cancelled while it ran");
  }
  if (std::chrono::steady_clock::now() <= deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("the deadline passed while it ran");
}

absl::StatusOr<std::vector<Datum>> Plan::RunDynamic(Workspace& workspace,
                                                    std::span<const Datum> inputs,
                                                    const RunLimits& /*limits*/) const {
  if (inputs.size() != this->inputs().size()) {
    return InvalidArgument("wrong number of inputs: expected {}, got {}", this->inputs().size(),
                           inputs.size());
  }
  std::vector<const void*> from;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorSpec& expected = this->inputs()[i];
    if (!inputs[i].is_tensor() || inputs[i].tensor.spec() != expected) {
      return InvalidArgument("input {}: expected a tensor of {} and shape {}", i,
                             DTypeName(expected.dtype), expected.shape.ToString());
    }
    from.push_back(inputs[i].tensor.data());
  }
  std::vector<Datum> answers;
  std::vector<void*> to;
  for (const TensorSpec& spec : outputs()) {
    answers.push_back(Datum::Of(Tensor(spec.dtype, spec.shape)));
    to.push_back(answers.back().tensor.mutable_data());
  }
  OCTET_RETURN_IF_ERROR(Run(workspace, from, to));
  return answers;
}

ExecutablePlan::ExecutablePlan(PlanParts parts) : id_(next_plan_id++), parts_(std::move(parts)) {
  for (size_t i = 0; i < parts_.pointers.size(); ++i) {
    const PointerSource& source = parts_.pointers[i];
    if (source.kind == Kind::kInput) input_patches_.push_back({i, source.index});
    if (source.kind == Kind::kOutput) output_patches_.push_back({i, source.index});
  }
}

void ExecutablePlan::Resolve(Frame& frame) const {
  for (size_t i = 0; i < parts_.pointers.size(); ++i) {
    const PointerSource& source = parts_.pointers[i];
    if (source.kind == Kind::kArena) frame.pointers[i] = frame.arena + source.index;
    if (source.kind == Kind::kConstant) frame.pointers[i] = Constant(source.index);
  }
}

absl::StatusOr<Frame*> ExecutablePlan::FrameIn(Workspace& workspace) const {
  auto& impl = Internals(workspace);
  std::byte* arena = impl.Reserve(parts_.memory.arena_bytes);
  Frame* frame = impl.Find(id_);
  if (frame == nullptr) {
    auto made = std::make_unique<Frame>();
    made->plan = id_;
    made->pointers.resize(parts_.pointers.size(), nullptr);
    for (const PlannedStep& step : parts_.steps) {
      OCTET_ASSIGN_OR_RETURN(std::unique_ptr<StepState> state, step.step->NewState());
      made->states.push_back(std::move(state));
    }
    frame = &impl.Add(std::move(made));
  }
  if (frame->arena != arena) {
    frame->arena = arena;
    Resolve(*frame);
  }
  return frame;
}

absl::StatusOr<Frame*> ExecutablePlan::Prepare(Workspace& workspace,
                                               std::span<const void* const> inputs,
                                               std::span<void* const> outputs) const {
  if (inputs.size() != parts_.inputs.size() || outputs.size() != parts_.outputs.size()) {
    return Internal(
        "a plan was run with the wrong number of buffers: expected {} and {}, got {} and {}",
        parts_.inputs.size(), parts_.outputs.size(), inputs.size(), outputs.size());
  }
  OCTET_ASSIGN_OR_RETURN(Frame * frame, FrameIn(workspace));
  for (const Patch& patch : input_patches_) {
    frame->pointers[patch.pointer] = const_cast<void*>(inputs[patch.index]);
  }
  for (const Patch& patch : output_patches_) frame->pointers[patch.pointer] = outputs[patch.index];
  return frame;
}

StepArgs ExecutablePlan::ArgsOf(size_t index, Frame& frame) const {
  const PlannedStep& planned = parts_.steps[index];
  void* const* pointers = frame.pointers.data() + planned.first_pointer;
  return {{pointers, planned.inputs},
          {pointers + planned.inputs, planned.outputs},
          frame.arena + planned.scratch_offset,
          frame.states[index].get()};
}

absl::Status ExecutablePlan::RunStep(size_t index, Frame& frame) const {
  const PlannedStep& planned = parts_.steps[index];
  if (!planned.alone) return planned.step->Run(ArgsOf(index, frame));
  const onednn::TeamSizeScope alone(1);
  return planned.step->Run(ArgsOf(index, frame));
}

void ExecutablePlan::CopyOutputs(const Frame& frame, std::span<const void* const> inputs,
                                 std::span<void* const> outputs) const {
  for (const OutputCopy& copy : parts_.copies) {
    const void* from = nullptr;
    switch (copy.from.kind) {
      case Kind::kInput:
        from = inputs[copy.from.index];
        break;
      case Kind::kOutput:
        from = outputs[copy.from.index];
        break;
      case Kind::kConstant:
        from = Constant(copy.from.index);
        break;
      case Kind::kArena:
        from = frame.arena + copy.from.index;
        break;
      case Kind::kNowhere:
        break;
    }
    if (copy.bytes > 0) std::memcpy(outputs[copy.output], from, copy.bytes);
  }
}

absl::Status ExecutablePlan::Run(Workspace& workspace, std::span<const void* const> inputs,
                                 std::span<void* const> outputs) const {
  OCTET_ASSIGN_OR_RETURN(Frame * frame, Prepare(workspace, inputs, outputs));
  for (size_t i = 0; i < parts_.steps.size(); ++i) {
    const absl::Status status = RunStep(i, *frame);
    if (!status.ok()) return Annotate(status, parts_.steps[i].name);
  }
  CopyOutputs(*frame, inputs, outputs);
  return absl::OkStatus();
}

// One run. The clock is read once per step: what reading it costs is in all times alike.
absl::Status ExecutablePlan::TimeInOrder(Frame& frame, std::vector<LayerTime>& times) const {
  auto before = std::chrono::steady_clock::now();
  for (size_t i = 0; i < parts_.steps.size(); ++i) {
    OCTET_RETURN_IF_ERROR(RunStep(i, frame));
    const auto after = std::chrono::steady_clock::now();
    times[i].in_order = std::min<std::chrono::nanoseconds>(times[i].in_order, after - before);
    before = after;
  }
  return absl::OkStatus();
}

absl::Status ExecutablePlan::TimeAlone(size_t index, int repeats, Frame& frame,
                                       LayerTime& time) const {
  OCTET_RETURN_IF_ERROR(RunStep(index, frame));
  const Step& step = *parts_.steps[index].step;
  if (!step.is_primitive()) return absl::OkStatus();
  const StepArgs args = ArgsOf(index, frame);
  const onednn::TeamSizeScope team(parts_.steps[index].alone ? 1 : omp_get_max_threads());
  time.alone = std::chrono::nanoseconds::max();
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    OCTET_RETURN_IF_ERROR(step.RunPrimitives(args));
    time.alone =
        std::min<std::chrono::nanoseconds>(time.alone, std::chrono::steady_clock::now() - start);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<LayerTime>> ExecutablePlan::LayerTimes(Workspace& workspace,
                                                                  int repeats) const {
  if (repeats < 1) return InvalidArgument("repeats: expected at least 1, got {}", repeats);
  std::vector<Tensor> buffers;
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  for (const TensorSpec& spec : parts_.inputs) {
    inputs.push_back(buffers.emplace_back(TimingInput(spec)).data());
  }
  for (const TensorSpec& spec : parts_.outputs) {
    outputs.push_back(buffers.emplace_back(spec.dtype, spec.shape).mutable_data());
  }
  OCTET_RETURN_IF_ERROR(Run(workspace, inputs, outputs));
  OCTET_ASSIGN_OR_RETURN(Frame * frame, Prepare(workspace, inputs, outputs));
  std::vector<LayerTime> times(parts_.steps.size(), {std::chrono::nanoseconds::max(), {}});
  for (int repeat = 0; repeat < repeats; ++repeat)
    OCTET_RETURN_IF_ERROR(TimeInOrder(*frame, times));
  for (size_t i = 0; i < times.size(); ++i)
    OCTET_RETURN_IF_ERROR(TimeAlone(i, repeats, *frame, times[i]));
  return times;
}

}  // namespace octet
