#include "server/rpc/inference.h"

#include <algorithm>
#include <new>
#include <utility>

#include "engine/tensor/status.h"
#include "server/logging/event_log.h"
#include "server/pipeline/pipeline_run.h"
#include "server/routing/draw.h"
#include "server/rpc/sequence_request.h"
#include "server/scheduling/caller_runners.h"
#include "server/scheduling/retry_after.h"

namespace octet {
namespace {

/// The beginning of a text that a client chose, in whole code points: it is escaped and written while others wait to log.
std::string_view BeginningOf(std::string_view text) {
  constexpr size_t kMost = 256;
  if (text.size() <= kMost) return text;
  size_t end = kMost;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80) --end;
  return text.substr(0, end);
}

int64_t Microseconds(Nanoseconds time) {
  return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

}  // namespace

void Inference::Start(const Call& call, Done done) {
  received_ = parts_.clock.Now();
  done_ = std::move(done);
  if (parts_.tracer != nullptr) {
    trace_ = parts_.tracer->Sample(request_.model_name(), call.metadata);
  }
  absl::Status status;
  std::unique_ptr<InferenceRequest> request;
  try {
    status = Prepare(call);
    if (status.ok()) request = MakeRequest();
  } catch (const std::bad_alloc&) {
    status = absl::ResourceExhaustedError("out of memory for a request");
  }
  if (status.ok()) return Submit(std::move(request));
  parts_.metrics.server().unrouted.Add(static_cast<size_t>(status.code()));
  Finish(status, {.total = parts_.clock.Now() - received_});
}

absl::Status Inference::Prepare(const Call& call) {
  pass_ = parts_.gate.TryEnter();
  if (!pass_) return ShuttingDown();
  OCTET_RETURN_IF_ERROR(call.read);
  OCTET_ASSIGN_OR_RETURN(version_, FindVersion());
  OCTET_ASSIGN_OR_RETURN(const InferOptions options,
                         ReadInferOptions(request_, call.metadata, version_->routing.sticky));
  if (version_->sequences == nullptr || !GoesOnInSequence(request_)) {
    OCTET_RETURN_IF_ERROR(DrawVersion(options));
  }
  if (version_->sequences != nullptr) return PrepareInSequence(call, options);
  if (version_->pipeline != nullptr) {
    if (!options.precision.empty()) {
      return InvalidArgument("model \"{}\" is a pipeline: its steps have precisions, got {}",
                             version_->model, options.precision);
    }
    sticky_key_ = options.sticky_key;
    return ReadTensors(call, options, version_->pipeline->recipes);
  }
  OCTET_RETURN_IF_ERROR(ChooseVariant(options));
  return ReadTensors(call, options, variant_->queue->target().recipes);
}

absl::StatusOr<std::shared_ptr<const ModelVersion>> Inference::FindVersion() const {
  auto found = parts_.repository.Find(request_.model_name(), request_.model_version());
  if (found.ok() || !GoesOnInSequence(request_)) return found;
  // A sequence may go on for a while on a version that was replaced; the others know where it is.
  auto other = parts_.repository.Find(request_.model_name(), "");
  return other.ok() && (*other)->sequences != nullptr ? std::move(other) : std::move(found);
}

absl::Status Inference::DrawVersion(const InferOptions& options) {
  if (version_->routing.versions.empty()) return absl::OkStatus();
  const std::string& asked = request_.model_version();
  if (!asked.empty() && !ParsePrecision(asked)) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(version_, parts_.repository.FindShare(request_.model_name(),
                                                               {.precision = options.precision,
                                                                .sticky_key = options.sticky_key,
                                                                .draw = Draw()}));
  return absl::OkStatus();
}

absl::Status Inference::PrepareInSequence(const Call& call, const InferOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const SequenceCall sequence, ReadSequenceCall(request_));
  const std::shared_ptr<SequenceStore> store = version_->sequences->store;
  if (sequence.start) {
    OCTET_RETURN_IF_ERROR(ChooseVariant(options));
  } else {
    OCTET_ASSIGN_OR_RETURN(step_, store->Enter(sequence, std::nullopt));
    OCTET_RETURN_IF_ERROR(CheckSameHome(request_, options.precision, step_->home()));
    version_ = step_->home().version;
    route_ = step_->home().route;
    // Drawn once, for its start: what follows keeps to it, and is no draw that the weights could be held to.
    if (route_.reason == RouteReason::kSplit) route_.reason = RouteReason::kSticky;
    variant_ = version_->Find(route_.precision);
  }
  const ServedSequences& served = *version_->sequences;
  OCTET_RETURN_IF_ERROR(CheckNoStates(request_, *served.layout));
  OCTET_RETURN_IF_ERROR(ReadTensors(call, options, served.recipes));
  if (inputs_.rows != 1) {
    return InvalidArgument(
        "inference request to model '{}' must specify batch-size 1 due to requirements of sequence "
        "batcher, got {}",
        version_->model, inputs_.rows);
  }
  if (!sequence.start) return absl::OkStatus();
  // The last thing: a start that cannot be read does not end the sequence that has its name.
  OCTET_ASSIGN_OR_RETURN(step_, store->Enter(sequence, HomeOf(version_, route_)));
  return absl::OkStatus();
}

absl::Status Inference::ReadTensors(const Call& call, const InferOptions& options,
                                    std::span<const InputRecipe> recipes) {
  captures_ = options.capture;
  priority_ = options.priority;
  deadline_ = call.deadline;
  if (options.timeout < kNever - received_) {
    deadline_ = std::min(deadline_, received_ + options.timeout);
  }
  RawInputs raw_inputs;
  if (call.only_input != nullptr) {
    OCTET_RETURN_IF_ERROR(
        DescribeOnlyInput(version_->signature, *call.only_input, messages_->request, raw_inputs));
    messages_->bytes = call.only_input->capacity();  // It may have moved into the message.
  } else if (call.raw_inputs == nullptr) {
    OCTET_ASSIGN_OR_RETURN(raw_inputs, RawInputsOf(request_, call.raw_contents));
  } else {
    raw_inputs = *call.raw_inputs;
  }
  OCTET_RETURN_IF_ERROR(ReadSharedInputs(request_, parts_.shared_memory, raw_inputs, inputs_));
  const int64_t max_batch = version_->pipeline == nullptr
                                ? variant_->queue->target().batch.max_batch
                                : version_->batching.max_batch;
  OCTET_RETURN_IF_ERROR(
      DecodeInputs(request_, raw_inputs, version_->signature, recipes, max_batch, inputs_));
  return writer_.Begin(*version_, parts_.shared_memory, *messages_);
}

absl::Status Inference::ChooseVariant(const InferOptions& options) {
  const auto route = ChoosePrecision(
      version_->routes,
      {.precision = options.precision, .sticky_key = options.sticky_key, .draw = Draw()});
  if (!route.ok()) {
    return Annotate(route.status(),
                    Format("model \"{}\" version {}", version_->model, version_->version));
  }
  route_ = *route;
  variant_ = version_->Find(route_.precision);
  if (variant_ == nullptr || !variant_->ready()) {
    return Internal("precision {} was chosen and is not there: model \"{}\" version {}",
                    PrecisionName(route_.precision), version_->model, version_->version);
  }
  return absl::OkStatus();
}

std::unique_ptr<InferenceRequest> Inference::MakeRequest() {
  copies_ = AnswerCopies(*version_, route_.precision, captures_);
  auto request = std::make_unique<InferenceRequest>();
  if (copies_.any()) {
    request->inputs = inputs_.views;
  } else {
    request->inputs = std::move(inputs_.views);
  }
  // Of a number that was a byte on the wire the message has four; a long id or fields that nobody knows wait, too.
  const size_t held = messages_->HeldBytes();
  request->held_bytes = held - std::min(held, request->bytes());
  request->rows = inputs_.rows;
  request->received = received_;
  request->deadline = deadline_;
  request->priority = priority_;
  request->cancelled = &cancelled_;
  request->outputs = &writer_;
  request->done = [this](const absl::Status& status, const RequestTimings& timings) {
    Answer(status, timings);
  };
  // A copy that waits would keep the answers of its whole batch.
  if (copies_.compares()) writer_.CopyAll();
  return request;
}

void Inference::Submit(std::unique_ptr<InferenceRequest> request) {
  if (step_ == nullptr) return Dispatch(std::move(request));
  const SequenceStep::Wait wait = {
      .bytes = request->bytes(), .deadline = deadline_, .cancelled = &cancelled_};
  step_->AwaitTurn(wait, [this, request = std::move(request)](const absl::Status& turn) mutable {
    if (!turn.ok()) {
      parts_.metrics.server().unrouted.Add(static_cast<size_t>(turn.code()));
      return Finish(turn, {.total = parts_.clock.Now() - received_});
    }
    const size_t waiting = request->bytes();
    request->inputs = step_->Inputs(std::move(request->inputs), writer_);
    request->state_bytes = request->bytes() - waiting;
    request->outputs = step_.get();
    Dispatch(std::move(request));
  });
}

void Inference::Dispatch(std::unique_ptr<InferenceRequest> request) {
  if (trace_ != nullptr) submitted_ = parts_.clock.Now();
  if (version_->pipeline != nullptr) {
    KeptTensors kept = {.owners = {messages_}};
    if (version_->pipeline->compares) kept.bytes = messages_->HeldBytes();
    return RunPipeline({.version = version_,
                        .sticky_key = std::move(sticky_key_),
                        .dispatcher = parts_.dispatcher,
                        .clock = parts_.clock,
                        .captures = captures_,
                        .kept = std::move(kept),
                        .trace = trace_ == nullptr ? nullptr : &traced_steps_},
                       std::move(request));
  }
  variant_->metrics->routed.Add(static_cast<size_t>(route_.reason));
  // Behind another request of its sequence it would run inside of that one's answer; and what is copied would wait no more
  // behind the answer, which is sent when this returns.
  if (parts_.callers == nullptr || step_ != nullptr || copies_.any()) {
    parts_.dispatcher.Submit(variant_->queue, std::move(request));
  } else {
    parts_.callers->Submit(variant_->queue, std::move(request));
  }
}

absl::Status Inference::Complete() {
  try {
    OCTET_RETURN_IF_ERROR(writer_.Complete(route_));
    OCTET_RETURN_IF_ERROR(messages_->CheckAnswer());
    if (step_ == nullptr) return absl::OkStatus();
    // Nobody hears the answer: who asks once more is to find the state as it was.
    if (cancelled_.load(std::memory_order_relaxed))
      return absl::CancelledError("the client has gone");
    return step_->Commit();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory for an answer");
  }
}

void Inference::Answer(const absl::Status& status, const RequestTimings& timings) {
  const absl::Status completed = status.ok() ? Complete() : status;
  if (!completed.ok() || !copies_.any()) return Finish(completed, timings);
  Dispatcher& dispatcher = parts_.dispatcher;
  AnswerCopies copies = std::move(copies_);
  AnsweredRequest answered = {.precision = route_.precision,
                              .received = received_,
                              .inputs = std::move(inputs_.views),
                              .rows = inputs_.rows,
                              .outputs = writer_.Answers(),
                              .kept = {messages_}};
  if (copies.compares()) {
    answered.kept_bytes = messages_->HeldBytes() + messages_->response.SpaceUsedLong();
  }
  Finish(completed, timings);
  // This object may be gone. What is copied waits behind the answer, never the other way round.
  std::move(copies).Make(std::move(answered), dispatcher);
}

void Inference::Finish(const absl::Status& status, const RequestTimings& timings) {
  if (access_log_) Log(status, timings);
  if (trace_ != nullptr) FinishTrace(status, timings);
  // The next request of the sequence gets its turn behind the answer.
  const std::unique_ptr<SequenceStep> step = std::move(step_);
  // The last thing, from the stack: this object may be gone before it returns.
  Done done = std::move(done_);
  std::move(done)(status);
}

void Inference::Log(const absl::Status& status, const RequestTimings& timings) const {
  const std::string_view precision =
      variant_ == nullptr ? std::string_view() : PrecisionName(route_.precision);
  const std::string_view route =
      variant_ == nullptr ? std::string_view() : RouteReasonName(route_.reason);
  LogEvent(LogLevel::kInfo, "request",
           {{"id", BeginningOf(request_.id())},
            {"model", BeginningOf(request_.model_name())},
            {"version", BeginningOf(version_ ? version_->version : request_.model_version())},
            {"precision", precision},
            {"route", route},
            {"code", CodeLabel::kValues[static_cast<size_t>(status.code())]},
            {"rows", inputs_.rows},
            {"queue_us", Microseconds(timings.queue)},
            {"compute_us",
             Microseconds(timings.compute_input + timings.compute_infer + timings.compute_output)},
            {"total_us", Microseconds(timings.total)},
            {"error", BeginningOf(Message(status))}});
}

void Inference::FinishTrace(const absl::Status& status, const RequestTimings& timings) {
  TracedRequest traced = {.id = request_.id(),
                          .model = request_.model_name(),
                          .rows = inputs_.rows,
                          .received = received_,
                          .submitted = submitted_,
                          .timings = timings,
                          .status = status,
                          .steps = traced_steps_};
  if (version_ != nullptr) traced.version = version_->version;
  if (variant_ != nullptr) {
    traced.precision = PrecisionName(route_.precision);
    traced.route = RouteReasonName(route_.reason);
  }
  trace_->Finish(traced);
}

}  // namespace octet
