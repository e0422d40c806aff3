// What happens to the requests of one variant, told to whoever counts: metrics and statistics.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"

#include "server/scheduling/batch_policy.h"
#include "server/scheduling/request.h"

namespace octet {

/// One run of a plan, for one or several requests.
struct BatchRecord {
  absl::StatusCode code = absl::StatusCode::kOk;
  int64_t rows = 0;
  int64_t plan_rows = 0;  ///< Rows computed: `rows` and padding.
  Nanoseconds compute_input{0};
  Nanoseconds compute_infer{0};
  Nanoseconds compute_output{0};
  Nanoseconds smoothed{
      0};  ///< What the next batch of this size is expected to take; 0 when it failed.
  std::span<const Nanoseconds>
      queue_times;  ///< One per request; none where these run again, in halves.
};

/// Called on the submitting thread or on a worker, without locks held; may be called from several
/// threads. Everything about a request has been told before its `done` is called.
///
///     OnQueued -> OnDequeued --refused, expired, cancelled or stopped--> OnFinished
///                      +-----------------> OnBatch ------------------------^
///
/// A batch of several that is told as INVALID_ARGUMENT runs again, in halves: more of OnBatch, or as behind OnDequeued.
class QueueObserver {
 public:
  virtual ~QueueObserver() = default;
  virtual void OnQueued(size_t bytes) = 0;
  virtual void OnDequeued(size_t bytes) = 0;
  /// Before OnFinished, of one that was refused or whose deadline did not let it run.
  virtual void OnRefused(Refusal reason) = 0;
  virtual void OnBatch(const BatchRecord& record) = 0;
  virtual void OnFinished(absl::StatusCode code, int64_t rows, const RequestTimings& timings) = 0;
};

}  // namespace octet
