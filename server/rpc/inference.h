// One inference request from its message to its answer.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"

#include "proto/inference.pb.h"
#include "server/repository/model_version.h"
#include "server/rpc/infer_messages.h"
#include "server/rpc/infer_options.h"
#include "server/rpc/response_writer.h"
#include "server/rpc/serving_parts.h"
#include "server/scheduling/gate.h"
#include "server/sequence/sequence_store.h"
#include "server/shadow/answer_copies.h"
#include "server/tracing/tracer.h"

namespace octet {

/// Decodes, routes, submits, and completes the answer.
///
///     Start --refused--------------------------------------> done(error)
///        +---submitted---> the dispatcher: batch, run -----> done(OK or error)
///
/// A request to a model with state takes its place in its sequence first, and is submitted when its turn comes; its step of the
/// sequence counts when its answer is complete.
///
/// `done` is called exactly once, perhaps before Start returns; the object and the messages live until
/// then. It is inside the gate from Start until it is destroyed, which is when the answer was sent, or its pass was taken.
class Inference {
 public:
  using Done = absl::AnyInvocable<void(const absl::Status&) &&>;

  /// What the call says beside the message, read before Start returns.
  struct Call {
    MetadataLookup metadata;
    TimePoint deadline = kNever;
    /// What was wrong with the message as it came: the answer.
    absl::Status read;
    /// The message's raw_input_contents, wherever they are...
    std::span<const WireBytes> raw_contents = {};
    /// ...or the inputs' bytes, when the protocol has said of which inputs they are. Null: RawInputsOf the message.
    const RawInputs* raw_inputs = nullptr;
    /// Not null: the message names no inputs, and this is the only one, as DescribeOnlyInput. Kept by the messages.
    std::string* only_input = nullptr;
  };

  /// `messages` has or keeps the raw inputs, too: a shadow copy may need them when the call is over.
  Inference(const ServingParts& parts, bool access_log, std::shared_ptr<InferMessages> messages)
      : parts_(parts),
        access_log_(access_log),
        request_(messages->request),
        messages_(std::move(messages)),
        inputs_(messages_->inputs) {}

  void Start(const Call& call, Done done);

  /// Nobody waits any more: dropped if it has not run yet. Thread-safety: safe, until destroyed.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }

  /// For who sends the answer when this is gone: it is inside the gate as long as this is kept. Requires: `done` was called.
  std::optional<Gate::Pass> TakePass() { return std::exchange(pass_, std::nullopt); }

 private:
  /// Everything that can be the client's fault.
  absl::Status Prepare(const Call& call);
  absl::StatusOr<std::shared_ptr<const ModelVersion>> FindVersion() const;
  /// Chooses among the versions where routing.versions says so and the request names none.
  absl::Status DrawVersion(const InferOptions& options);
  /// The same for a model with state: takes its place in its sequence, whose variant it is given.
  absl::Status PrepareInSequence(const Call& call, const InferOptions& options);
  /// Everything but the choice of the variant. `recipes`: of the version's signature.
  absl::Status ReadTensors(const Call& call, const InferOptions& options,
                           std::span<const InputRecipe> recipes);
  absl::Status ChooseVariant(const InferOptions& options);
  std::unique_ptr<InferenceRequest> MakeRequest();
  void Submit(std::unique_ptr<InferenceRequest> request);
  void Dispatch(std::unique_ptr<InferenceRequest> request);
  /// The worker is done with it: completes the answer, and lets a copy follow once it was given.
  void Answer(const absl::Status& status, const RequestTimings& timings);
  absl::Status Complete();
  void Finish(const absl::Status& status, const RequestTimings& timings);
  void Log(const absl::Status& status, const RequestTimings& timings) const;
  void FinishTrace(const absl::Status& status, const RequestTimings& timings);

  const ServingParts& parts_;
  const bool access_log_;
  const inference::ModelInferRequest& request_;
  const std::shared_ptr<InferMessages> messages_;
  DecodedInputs& inputs_;  ///< Of the messages.
  Done done_;
  std::optional<Gate::Pass> pass_;
  std::unique_ptr<SequenceStep> step_;  ///< Null for a model without state.
  std::atomic<bool> cancelled_{false};
  TimePoint received_;
  TimePoint deadline_ = kNever;
  uint64_t priority_ = 0;
  std::unique_ptr<RequestTrace> trace_;   ///< Null = none.
  std::optional<TimePoint> submitted_;    ///< Only where there is a trace, as the next.
  std::vector<TracedStep> traced_steps_;  ///< Of a pipeline.
  std::shared_ptr<const ModelVersion> version_;
  const ServedVariant* variant_ = nullptr;  ///< Null for a pipeline.
  std::string sticky_key_;                  ///< For a pipeline's steps.
  Route route_;
  bool captures_ = true;  ///< The client lets its inputs be kept.
  AnswerCopies copies_;   ///< Of a pipeline none: its steps have theirs.
  ResponseWriter writer_;
};

}  // namespace octet
