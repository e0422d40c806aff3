// Runs requests on the threads that bring them, where that is shorter than the way to a worker.
#pragma once

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/scheduling/batch_runner.h"

namespace octet {

/// Threads that bring requests compute beside the workers, at most so many at once; what comes beyond waits in the
/// queues, where batches form. Thread-safety: safe.
class CallerRunners {
 public:
  /// `most`: threads at once. The dispatcher outlives this.
  CallerRunners(Dispatcher& dispatcher, int most, Clock& clock);

  /// Submits the request, or runs it on this thread, as Dispatcher::SubmitOrTake decides. Requires: the plans' steps run on
  /// one thread each; nothing that the request's `done` calls comes back here.
  void Submit(std::shared_ptr<VariantQueue> queue, std::unique_ptr<InferenceRequest> request);

 private:
  Dispatcher& dispatcher_;
  const size_t most_;
  absl::Mutex mutex_;
  std::vector<std::unique_ptr<BatchRunner>> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
