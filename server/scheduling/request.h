// A request as the scheduler sees it: views onto the wire, a place for the answer, and one call at
// the end.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"

#include "engine/engine.h"
#include "engine/tensor/wire_tensor.h"
#include "server/scheduling/batch_policy.h"
#include "server/scheduling/clock.h"

namespace octet {

/// Where a request's time went. What it did not reach is zero.
struct RequestTimings {
  Nanoseconds queue{0};           ///< Accepted to taken into a batch.
  Nanoseconds compute_input{0};   ///< Wire to batch, of the whole batch.
  Nanoseconds compute_infer{0};   ///< The plan's run, of the whole batch.
  Nanoseconds compute_output{0};  ///< Batch to replies, of the whole batch.
  Nanoseconds total{0};           ///< Received to finished.
  bool ran = false;               ///< It was taken into a batch, well or not.
  std::optional<Refusal> refusal =
      std::nullopt;  ///< Of one that did not run for want of room or time.
};

/// Receives the answer, before the request is finished with OK. Called by one thread at a time.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  /// Returns room for spec.bytes() bytes of output `index` (the signature's order), which the
  /// worker fills; null when this output was not asked for. Called at most once per output.
  virtual void* Reserve(size_t index, const TensorSpec& spec) = 0;
  /// Instead of Reserve, where the elements have been written already: takes them as they are, and `owner`, which keeps
  /// them. False when Reserve is to be called: they are few, say.
  virtual bool Keep(size_t /*index*/, const TensorSpec& /*spec*/,
                    std::shared_ptr<const std::byte[]> /*owner*/, const std::byte* /*elements*/) {
    return false;
  }
  /// Reserve for an output of BYTES, whose size on the wire is its elements': copies them. Does
  /// nothing when it was not asked for. RESOURCE_EXHAUSTED when no answer can hold them.
  virtual absl::Status TakeStrings(size_t index, ConstTensorView strings) = 0;
};

/// One request for one variant. Move it into a Dispatcher, which calls `done` exactly once.
struct InferenceRequest {
  /// In the order of the signature, in a type that the variant's recipes accept; CheckInput and CheckRows
  /// have passed; BOOL is 0 or 1. The bytes stay where they are until `done` is called.
  std::vector<WireTensor> inputs;
  int64_t rows = 1;  ///< Extent 0 of the inputs; 1 for a model that does not batch.
  TimePoint received;
  TimePoint deadline = kNever;
  uint64_t priority = 0;  ///< Level that was asked for, as PriorityLevels; 0 = none.
  /// Set by the caller when nobody waits for the answer any more; read until `done` is called. Null
  /// = never.
  const std::atomic<bool>* cancelled = nullptr;
  OutputSink* outputs = nullptr;  ///< Outlives the call of `done`.
  size_t held_bytes = 0;          ///< Memory that waiting for it keeps, beside the inputs.
  /// Of the inputs, those that its sequence keeps whether or not this waits, and bounds by itself (sequences.max_state_bytes):
  /// counted among what waits they would be counted twice, and long sequences refused for want of room that they have.
  size_t state_bytes = 0;
  /// Called once, on any thread, without locks held. OK: every output has been written to the sink.
  absl::AnyInvocable<void(const absl::Status&, const RequestTimings&) &&> done;

  // Set by the Dispatcher:
  TimePoint queued;
  size_t queued_bytes = 0;  ///< bytes() then: to ask it, all strings are walked.
  Nanoseconds own_time{0};  ///< What its run was expected to take then, as QueuedFacts::own_time.

  bool is_cancelled() const {
    return cancelled != nullptr && cancelled->load(std::memory_order_relaxed);
  }
  /// Memory that is there because it waits.
  size_t bytes() const {
    size_t sum = held_bytes;
    for (const ConstTensorView& input : inputs) sum += MemoryBytes(input);
    return sum - state_bytes;
  }
};

}  // namespace octet
