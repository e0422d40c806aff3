#include "server/pipeline/pipeline_run.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "engine/tensor/status.h"
#include "server/routing/draw.h"
#include "server/scheduling/request_check.h"
#include "server/shadow/answer_copies.h"

namespace octet {
namespace {

/// The outputs of a step that somebody reads. The dispatcher orders the worker that writes them and those that read.
class StepOutputs final : public OutputSink {
 public:
  explicit StepOutputs(const PipelineStep& step) : step_(step), tensors_(step.wanted.size()) {}

  void* Reserve(size_t index, const TensorSpec& spec) override {
    if (!step_.wanted[index]) return nullptr;
    tensors_[index] = Tensor(spec.dtype, spec.shape);
    return tensors_[index].mutable_data();
  }
  /// Of pictures alone, which nobody shares: a part of a batch would keep all of it for as long as the request takes.
  bool Keep(size_t index, const TensorSpec& spec, std::shared_ptr<const std::byte[]> owner,
            const std::byte* elements) override {
    if (step_.pictures == nullptr || !step_.wanted[index]) return false;
    tensors_[index] = Tensor(spec.dtype, spec.shape, std::move(owner), elements);
    return true;
  }
  absl::Status TakeStrings(size_t index, ConstTensorView strings) override {
    if (!step_.wanted[index]) return absl::OkStatus();
    tensors_[index] = Tensor::Strings(strings.shape(), strings.span<std::string_view>());
    return absl::OkStatus();
  }
  const Tensor& tensor(size_t index) const { return tensors_[index]; }

 private:
  const PipelineStep& step_;
  std::vector<Tensor> tensors_;
};

/// What follows the answer of a step.
struct StepCopies {
  AnswerCopies copies;
  AnsweredRequest request;  ///< Complete when it was answered.
};

class PipelineRun : public std::enable_shared_from_this<PipelineRun> {
 public:
  PipelineRun(PipelineCall call, std::unique_ptr<InferenceRequest> request)
      : call_(std::move(call)),
        pipeline_(*call_.version->pipeline),
        request_(std::move(request)),
        outputs_(pipeline_.steps.begin(), pipeline_.steps.end()),
        copies_(pipeline_.steps.size()) {
    for (const PipelineStep& step : pipeline_.steps) waits_.push_back(step.waits_for);
    if (call_.trace != nullptr) call_.trace->resize(pipeline_.steps.size());
  }

  void Start();

 private:
  void Submit(size_t index);
  /// Checks what the step reads, chooses its precision and submits it.
  absl::Status TrySubmit(size_t index);
  /// Where the step's trace goes, which belongs to whoever runs the step; null without one.
  TracedStep* Traced(size_t index) const {
    return call_.trace == nullptr ? nullptr : &(*call_.trace)[index];
  }
  void BeginTrace(size_t index, TimePoint now) const;
  absl::Status Check(const PipelineStep& step, InferenceRequest& part) const;
  /// A tensor of another step that does not fit is not the client's mistake: FAILED_PRECONDITION that names the step.
  absl::Status Blame(const PipelineSource& source, const absl::Status& status) const;
  bool failed() {
    absl::MutexLock lock(&mutex_);
    return !status_.ok();
  }
  /// A step is over: starts those that waited for it alone, or ends the request.
  void Finished(size_t index, const absl::Status& status, const RequestTimings& timings);
  /// Lets the copies of a step that was answered follow.
  void Copy(size_t index);
  KeptTensors KeptInputs(const PipelineStep& step) const;
  void End();
  absl::Status WriteOutputs();
  WireTensor View(const PipelineSource& source) const {
    if (source.step) return outputs_[*source.step].tensor(source.index).view();
    return request_->inputs[source.index];
  }

  const PipelineCall call_;
  const Pipeline& pipeline_;
  const std::unique_ptr<InferenceRequest> request_;
  std::vector<StepOutputs> outputs_;  ///< By step.
  std::vector<StepCopies> copies_;    ///< Likewise; each belongs to whoever runs the step.

  absl::Mutex mutex_;
  std::vector<size_t> waits_ ABSL_GUARDED_BY(mutex_);  ///< Steps that each still waits for.
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;         ///< Steps submitted and not over.
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  RequestTimings timings_
      ABSL_GUARDED_BY(mutex_);  ///< Sums over the steps; refused as the one that failed.
};

void PipelineRun::Start() {
  pipeline_.observer->OnQueued(0);
  pipeline_.observer->OnDequeued(0);
  std::vector<size_t> first;
  for (size_t i = 0; i < pipeline_.steps.size(); ++i) {
    if (pipeline_.steps[i].waits_for == 0) first.push_back(i);
  }
  {
    absl::MutexLock lock(&mutex_);
    running_ = first.size();
  }
  for (const size_t index : first) Submit(index);
}

void PipelineRun::Submit(size_t index) {
  absl::Status status;
  try {
    status = failed() ? absl::CancelledError("another step failed") : TrySubmit(index);
  } catch (const std::bad_alloc&) {
    status = absl::ResourceExhaustedError("out of memory for a request");
  }
  if (!status.ok()) Finished(index, status, {});
}

absl::Status PipelineRun::Blame(const PipelineSource& source, const absl::Status& status) const {
  if (status.ok() || !source.step) return status;
  return MakeError(absl::StatusCode::kFailedPrecondition, "what step \"{}\" gave does not fit: {}",
                   pipeline_.steps[*source.step].name, Message(status));
}

absl::Status PipelineRun::Check(const PipelineStep& step, InferenceRequest& part) const {
  PipelineSource of_rows;  // a step that gave an input, where one did
  for (size_t i = 0; i < part.inputs.size(); ++i) {
    const ConstTensorView& view = part.inputs[i];
    const Shape& shape = view.shape();
    const absl::Status status = CheckInput(step.signature.inputs[i], step.recipes[i], view.dtype(),
                                           {shape.begin(), shape.end()}, view.bytes());
    OCTET_RETURN_IF_ERROR(Blame(step.inputs[i], status));
    if (step.inputs[i].step) of_rows = step.inputs[i];
  }
  const auto rows = CheckRows(step.signature, part.inputs, step.max_batch);
  OCTET_RETURN_IF_ERROR(Blame(of_rows, rows.status()));
  part.rows = *rows;
  if (step.pictures == nullptr) return absl::OkStatus();
  const int64_t pictures = part.inputs[0].shape()[0];
  if (pictures < 1) return InvalidArgument("pictures, expected at least 1, got {}", pictures);
  if (pictures <= step.max_batch) return absl::OkStatus();
  return InvalidArgument("pictures, expected at most {}, got {}", step.max_batch, pictures);
}

void PipelineRun::BeginTrace(size_t index, TimePoint now) const {
  TracedStep* const traced = Traced(index);
  if (traced == nullptr) return;
  const PipelineStep& step = pipeline_.steps[index];
  traced->name = step.name;
  traced->begin = now;
  if (step.pictures != nullptr) {
    traced->model = PicturesModel(call_.version->model, step.name);
    traced->version = call_.version->version;
    traced->precision = kPicturesPrecision;
  } else {
    traced->model = step.version->model;
    traced->version = step.version->version;
  }
}

absl::Status PipelineRun::TrySubmit(size_t index) {
  const PipelineStep& step = pipeline_.steps[index];
  const TimePoint now = call_.clock.Now();
  BeginTrace(index, now);
  auto part = std::make_unique<InferenceRequest>();
  for (const PipelineSource& source : step.inputs) part->inputs.push_back(View(source));
  OCTET_RETURN_IF_ERROR(Check(step, *part));
  part->received = now;
  part->deadline = request_->deadline;
  part->priority = request_->priority;
  part->cancelled = request_->cancelled;
  part->outputs = &outputs_[index];
  part->done = [self = shared_from_this(), index](const absl::Status& status,
                                                  const RequestTimings& timings) {
    self->Finished(index, status, timings);
  };
  if (step.pictures != nullptr) {
    call_.dispatcher.Submit(step.pictures, std::move(part));
    return absl::OkStatus();
  }
  const ModelVersion& version = *step.version;
  if (version.pipeline != nullptr) {
    TracedStep* const traced = Traced(index);
    RunPipeline({.version = step.version,
                 .sticky_key = call_.sticky_key,
                 .dispatcher = call_.dispatcher,
                 .clock = call_.clock,
                 .captures = call_.captures,
                 .kept = KeptInputs(step),
                 .trace = traced == nullptr ? nullptr : &traced->steps},
                std::move(part));
    return absl::OkStatus();
  }
  const std::string_view precision = step.precision ? PrecisionName(*step.precision) : "";
  OCTET_ASSIGN_OR_RETURN(
      const Route route,
      ChoosePrecision(version.routes,
                      {.precision = precision, .sticky_key = call_.sticky_key, .draw = Draw()}));
  if (TracedStep* const traced = Traced(index)) {
    traced->precision = PrecisionName(route.precision);
    traced->route = RouteReasonName(route.reason);
  }
  const ServedVariant& variant = *version.Find(route.precision);
  variant.metrics->routed.Add(static_cast<size_t>(route.reason));
  AnswerCopies copies(version, route.precision, call_.captures);
  if (copies.any()) {
    copies_[index] = {.copies = std::move(copies),
                      .request = {.precision = route.precision,
                                  .received = now,
                                  .inputs = part->inputs,
                                  .rows = part->rows}};
  }
  call_.dispatcher.Submit(variant.queue, std::move(part));
  return absl::OkStatus();
}

void PipelineRun::Finished(size_t index, const absl::Status& status,
                           const RequestTimings& timings) {
  const PipelineStep& step = pipeline_.steps[index];
  if (TracedStep* const traced = Traced(index)) {
    traced->timings = timings;
    traced->status = status;
  }
  std::vector<size_t> next;
  bool last = false;
  {
    absl::MutexLock lock(&mutex_);
    timings_.queue += timings.queue;
    timings_.compute_input += timings.compute_input;
    timings_.compute_infer += timings.compute_infer;
    timings_.compute_output += timings.compute_output;
    timings_.ran |= timings.ran;
    if (status_.ok() && !status.ok()) {
      status_ = Annotate(status, Format("step \"{}\"", step.name));
      timings_.refusal = timings.refusal;
    }
    if (status_.ok()) {
      for (const size_t reader : step.readers) {
        if (--waits_[reader] == 0) next.push_back(reader);
      }
    }
    running_ += next.size();
    last = --running_ == 0;
  }
  for (const size_t reader : next) Submit(reader);
  // Else whoever finishes the last step ends the request.
  if (last) End();
  if (status.ok() && copies_[index].copies.any()) Copy(index);
}

KeptTensors PipelineRun::KeptInputs(const PipelineStep& step) const {
  KeptTensors kept;
  bool reads_request = false;
  for (const PipelineSource& source : step.inputs) {
    reads_request |= !source.step;
    if (!source.step) continue;
    const Tensor& tensor = outputs_[*source.step].tensor(source.index);
    kept.owners.push_back(tensor.owner());
    kept.bytes += MemoryBytes(tensor.view());
  }
  if (reads_request) {
    kept.owners.insert(kept.owners.end(), call_.kept.owners.begin(), call_.kept.owners.end());
    kept.bytes += call_.kept.bytes;
  }
  return kept;
}

void PipelineRun::Copy(size_t index) {
  const PipelineStep& step = pipeline_.steps[index];
  auto& [copies, answered] = copies_[index];
  KeptTensors kept = KeptInputs(step);
  answered.kept = std::move(kept.owners);
  answered.kept_bytes = kept.bytes;
  answered.outputs.resize(step.wanted.size());
  for (size_t i = 0; i < step.wanted.size(); ++i) {
    if (!step.wanted[i]) continue;
    const Tensor& tensor = outputs_[index].tensor(i);
    const size_t bytes = MemoryBytes(tensor.view());
    answered.outputs[i] = AnsweredOutput{
        .spec = tensor.spec(), .data = tensor.data(), .bytes = bytes, .tensor = tensor};
    answered.kept_bytes += bytes;
  }
  std::move(copies).Make(std::move(answered), call_.dispatcher);
}

absl::Status PipelineRun::WriteOutputs() {
  for (size_t i = 0; i < pipeline_.outputs.size(); ++i) {
    const WireTensor view = View(pipeline_.outputs[i]);
    if (view.dtype() == DType::kString) {
      OCTET_RETURN_IF_ERROR(request_->outputs->TakeStrings(i, view));
      continue;
    }
    void* to = request_->outputs->Reserve(i, view.spec);
    if (to != nullptr) view.CopyTo(to);
  }
  return absl::OkStatus();
}

void PipelineRun::End() {
  absl::Status status;
  RequestTimings timings;
  {
    absl::MutexLock lock(&mutex_);
    status = status_;
    timings = timings_;
  }
  if (status.ok()) {
    try {
      status = WriteOutputs();
    } catch (const std::bad_alloc&) {
      status = absl::ResourceExhaustedError("out of memory for an answer");
    }
  }
  timings.total = call_.clock.Now() - request_->received;
  if (timings.ran) {
    pipeline_.observer->OnBatch({.code = status.code(),
                                 .rows = request_->rows,
                                 .plan_rows = request_->rows,
                                 .compute_input = timings.compute_input,
                                 .compute_infer = timings.compute_infer,
                                 .compute_output = timings.compute_output,
                                 .queue_times = {&timings.queue, 1}});
  }
  if (timings.refusal) pipeline_.observer->OnRefused(*timings.refusal);
  pipeline_.observer->OnFinished(status.code(), request_->rows, timings);
  std::move(request_->done)(status, timings);
}

}  // namespace

void RunPipeline(PipelineCall call, std::unique_ptr<InferenceRequest> request) {
  std::make_shared<PipelineRun>(std::move(call), std::move(request))->Start();
}

}  // namespace octet
