#include "server/scheduling/batch_runner.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iterator>
#include <new>
#include <numeric>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Who keeps its part of a batch's output keeps all of it: at most so many times its own.
constexpr size_t kMostKept = 8;

/// The shapes that the plan is asked for: those of the first request, with `plan_rows` rows.
std::vector<Shape> PlanShapes(const Batch& batch, int64_t plan_rows) {
  const bool batches = batch.queue->target().batches();
  std::vector<Shape> shapes;
  for (const ConstTensorView& input : batch.requests[0]->inputs) {
    shapes.push_back(input.shape());
    if (batches) shapes.back()[0] = plan_rows;
  }
  return shapes;
}

/// The plan's kernels may use the wire's bytes as they are: no conversion, one piece, and elements that are
/// aligned. No elements may come without a place, which to a kernel would be an operand that is left out.
bool CanReadWire(const WireTensor& wire, const InputRecipe& recipe) {
  return recipe.IsCopy(wire.dtype()) && !wire.in_pieces() && wire.data != nullptr &&
         reinterpret_cast<uintptr_t>(wire.data) % SizeOf(wire.dtype()) ==
             0;  // NOLINT(*-reinterpret-cast)
}

}  // namespace

std::byte* BatchRunner::Buffer::Grow(size_t bytes) {
  const bool kept = data.use_count() > 1;  // Somebody still sends what the last batch wrote.
  // Whoever let go of it has read all of it before what is written next: another reference that goes is behind theirs. (As a
  // fence would be, of which ThreadSanitizer knows nothing.)
  std::shared_ptr<std::byte[]>(data).reset();
  if (data == nullptr || bytes > capacity || kept) {
    data.reset();  // first give back, then take
    data = AllocateAligned(bytes);
    capacity = bytes;
  }
  return data.get();
}

void BatchRunner::Run(Batch batch) { RunTogether(batch); }

void BatchRunner::RunTogether(Batch& batch) {
  const ExecutionTarget& target = batch.queue->target();
  int64_t rows = 0;
  for (const auto& request : batch.requests) rows += request->rows;
  const int64_t plan_rows = target.batches() ? BucketFor(rows, target.batch.max_batch) : 1;
  Durations durations;
  absl::Status status;
  std::vector<std::unique_ptr<InferenceRequest>> half;
  queue_times_.clear();
  try {
    for (const auto& request : batch.requests)
      queue_times_.push_back(batch.taken - request->queued);
    status = Compute(batch, rows, plan_rows, durations);
    // What the model does not take came with one of them, and nobody knows with which.
    if (absl::IsInvalidArgument(status) && batch.requests.size() > 1)
      half.reserve(batch.requests.size() / 2);
  } catch (const std::bad_alloc&) {
    status = MakeError(absl::StatusCode::kResourceExhausted,
                       "out of memory for a batch of {} rows: {}", plan_rows, target.name);
  } catch (const std::exception& error) {
    // Whatever it is: it ends this batch alone.
    status = Internal("a batch of {} rows: {}: {}", plan_rows, error.what(), target.name);
  }
  if (half.capacity() > 0) {
    batch.queue->target().observer->OnBatch(RecordOf(status.code(), rows, plan_rows, durations));
    return RunHalves(batch, std::move(half));
  }
  Finish(batch, status, rows, plan_rows, durations);
}

void BatchRunner::RunHalves(Batch& batch, std::vector<std::unique_ptr<InferenceRequest>> half) {
  auto& requests = batch.requests;
  const auto middle = requests.end() - static_cast<std::ptrdiff_t>(requests.size() / 2);
  std::move(middle, requests.end(), std::back_inserter(half));
  requests.erase(middle, requests.end());
  RunAgain(batch);
  requests = std::move(half);
  RunAgain(batch);
}

void BatchRunner::RunAgain(Batch& batch) {
  batch.taken = clock_.Now();
  Dispatcher::DropDead(batch, batch.taken);
  if (!batch.requests.empty()) RunTogether(batch);
}

absl::Status BatchRunner::Compute(const Batch& batch, int64_t rows, int64_t plan_rows,
                                  Durations& durations) {
  OCTET_ASSIGN_OR_RETURN(const std::shared_ptr<const Plan> plan,
                         batch.queue->target().model->PlanFor(PlanShapes(batch, plan_rows)));
  durations.steady = plan->has_static_outputs();
  // Behind PlanFor: the next batch of this size finds the plan that this one may have had to compile.
  const TimePoint start = clock_.Now();
  Gather(batch, *plan, rows);
  if (!plan->has_static_outputs()) return ComputeDynamic(batch, *plan, start, durations);
  const bool direct = batch.requests.size() == 1 && rows == plan_rows;
  const bool scatter = PrepareOutputs(batch, *plan, direct);
  const TimePoint ready = clock_.Now();
  durations.compute_input = ready - start;

  const absl::Status status = plan->Run(workspace_, inputs_, outputs_);
  const TimePoint computed = clock_.Now();
  durations.compute_infer = computed - ready;
  OCTET_RETURN_IF_ERROR(Annotate(status, batch.queue->target().name));

  if (scatter) OCTET_RETURN_IF_ERROR(Scatter(batch, *plan, plan_rows));
  durations.compute_output = clock_.Now() - computed;
  return absl::OkStatus();
}

absl::Status BatchRunner::ComputeDynamic(const Batch& batch, const Plan& plan, TimePoint start,
                                         Durations& durations) {
  std::vector<Datum> inputs;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const TensorSpec& spec = plan.inputs()[i];
    // The elements are the wire's or the worker's, and stay where they are until the run is over.
    inputs.push_back(Datum::Of(Tensor(spec.dtype, spec.shape, nullptr, inputs_[i])));
  }
  const TimePoint ready = clock_.Now();
  durations.compute_input = ready - start;

  const InferenceRequest& request = *batch.requests[0];
  const auto answers = plan.RunDynamic(
      workspace_, inputs, {.deadline = request.deadline, .cancelled = request.cancelled});
  const TimePoint computed = clock_.Now();
  durations.compute_infer = computed - ready;
  OCTET_RETURN_IF_ERROR(Annotate(answers.status(), batch.queue->target().name));

  for (size_t i = 0; i < answers->size(); ++i) {
    const Tensor& answer = (*answers)[i].tensor;
    if (answer.dtype() == DType::kString) {
      OCTET_RETURN_IF_ERROR(request.outputs->TakeStrings(i, answer.view()));
      continue;
    }
    // Without an owner they are an input's.
    const auto* elements = static_cast<const std::byte*>(answer.data());
    if (answer.owner() != nullptr &&
        request.outputs->Keep(i, answer.spec(), {answer.owner(), elements}, elements)) {
      continue;
    }
    void* to = request.outputs->Reserve(i, answer.spec());
    if (to != nullptr && answer.bytes() > 0) std::memcpy(to, answer.data(), answer.bytes());
  }
  durations.compute_output = clock_.Now() - computed;
  return absl::OkStatus();
}

void BatchRunner::Gather(const Batch& batch, const Plan& plan, int64_t rows) {
  const std::vector<InputRecipe>& recipes = batch.queue->target().recipes;
  const bool batches = batch.queue->target().batches();
  const auto specs = plan.inputs();
  inputs_.assign(specs.size(), nullptr);
  if (input_buffers_.size() < specs.size()) input_buffers_.resize(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const WireTensor& first = batch.requests[0]->inputs[i];
    const bool alone = batch.requests.size() == 1 && (!batches || specs[i].shape[0] == rows);
    if (alone && CanReadWire(first, recipes[i])) {
      inputs_[i] = first.data;
      continue;
    }
    const size_t bytes = specs[i].bytes();
    std::byte* dst = input_buffers_[i].Grow(bytes);
    inputs_[i] = dst;
    const std::byte* end = dst + bytes;
    for (const auto& request : batch.requests) {
      const WireTensor& wire = request->inputs[i];
      recipes[i].Convert(wire, dst);
      dst += static_cast<size_t>(wire.elements()) * SizeOf(specs[i].dtype);
    }
    // What a layer quantizes when it runs, it does by the range of all rows, these too.
    std::memset(dst, recipes[i].zero(), static_cast<size_t>(end - dst));
  }
}

bool BatchRunner::PrepareOutputs(const Batch& batch, const Plan& plan, bool direct) {
  const auto specs = plan.outputs();
  outputs_.assign(specs.size(), nullptr);
  if (output_buffers_.size() < specs.size()) output_buffers_.resize(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    if (direct) outputs_[i] = batch.requests[0]->outputs->Reserve(i, specs[i]);
    if (outputs_[i] == nullptr) outputs_[i] = output_buffers_[i].Grow(specs[i].bytes());
  }
  return !direct;
}

absl::Status BatchRunner::Scatter(const Batch& batch, const Plan& plan, int64_t plan_rows) {
  const auto specs = plan.outputs();
  for (size_t i = 0; i < specs.size(); ++i) {
    TensorSpec slice = specs[i];
    if (slice.shape.rank() == 0 || slice.shape[0] % plan_rows != 0) {
      return Internal("output {} cannot be sliced into {} rows, its shape is {}: {}", i, plan_rows,
                      slice.shape.ToString(), batch.queue->target().name);
    }
    const int64_t extent_per_row = slice.shape[0] / plan_rows;
    const auto* src = static_cast<const std::byte*>(outputs_[i]);
    for (const auto& request : batch.requests) {
      slice.shape[0] = extent_per_row * request->rows;
      const size_t bytes = slice.bytes();
      const bool keepable = bytes * kMostKept >= specs[i].bytes();
      if (!keepable || !request->outputs->Keep(i, slice, output_buffers_[i].data, src)) {
        if (void* dst = request->outputs->Reserve(i, slice)) std::memcpy(dst, src, bytes);
      }
      src += bytes;
    }
  }
  return absl::OkStatus();
}

BatchRecord BatchRunner::RecordOf(absl::StatusCode code, int64_t rows, int64_t plan_rows,
                                  const Durations& durations) {
  BatchRecord record;
  record.code = code;
  record.rows = rows;
  record.plan_rows = plan_rows;
  record.compute_input = durations.compute_input;
  record.compute_infer = durations.compute_infer;
  record.compute_output = durations.compute_output;
  return record;
}

void BatchRunner::Finish(Batch& batch, const absl::Status& status, int64_t rows, int64_t plan_rows,
                         const Durations& durations) {
  BatchRecord record = RecordOf(status.code(), rows, plan_rows, durations);
  record.queue_times = queue_times_;
  if (status.ok()) {
    const Nanoseconds time =
        durations.compute_input + durations.compute_infer + durations.compute_output;
    record.smoothed = batch.queue->times().Observe(plan_rows, time, clock_.Now());
    if (durations.steady && batch.requests.size() == 1)
      batch.queue->LearnTime(*batch.requests[0], time, clock_.Now());
  }
  batch.queue->target().observer->OnBatch(record);
  const TimePoint now = clock_.Now();
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    const RequestTimings timings = {.queue = batch.taken - batch.requests[i]->queued,
                                    .compute_input = durations.compute_input,
                                    .compute_infer = durations.compute_infer,
                                    .compute_output = durations.compute_output,
                                    .ran = true};
    FinishRequest(*batch.queue, std::move(batch.requests[i]), status, timings, now);
  }
}

}  // namespace octet
