#include "server/scheduling/caller_runners.h"

#include <optional>
#include <utility>

namespace octet {

CallerRunners::CallerRunners(Dispatcher& dispatcher, int most, Clock& clock)
    : dispatcher_(dispatcher), most_(static_cast<size_t>(most)) {
  for (int i = 0; i < most; ++i) free_.push_back(std::make_unique<BatchRunner>(clock));
}

void CallerRunners::Submit(std::shared_ptr<VariantQueue> queue,
                           std::unique_ptr<InferenceRequest> request) {
  std::unique_ptr<BatchRunner> runner;
  bool alone = false;
  {
    absl::MutexLock lock(&mutex_);
    if (!free_.empty()) {
      alone = free_.size() == most_;
      runner = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (runner == nullptr) return dispatcher_.Submit(std::move(queue), std::move(request));
  if (auto batch = dispatcher_.SubmitOrTake(std::move(queue), std::move(request),
                                            alone ? kLoneHandOver : kHandOver)) {
    const FlushToZero while_it_runs;
    thread_local const bool configured = (ConfigureWorkerThread(1), true);
    static_cast<void>(configured);
    runner->Run(*std::move(batch));
  }
  absl::MutexLock lock(&mutex_);
  free_.push_back(std::move(runner));  // there is room: it was here before
}

}  // namespace octet
