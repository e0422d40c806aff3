// The thread that looks for changed models.
#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/repository/model_repository.h"
#include "server/scheduling/clock.h"

namespace octet {

/// Calls repository.Poll every `interval` on a thread of its own, from construction on.
class RepositoryPoller {
 public:
  /// `repository` and `clock` outlive it.
  RepositoryPoller(ModelRepository& repository, Nanoseconds interval, Clock& clock);
  /// Stop, and waits for the load under way.
  ~RepositoryPoller();
  RepositoryPoller(const RepositoryPoller&) = delete;
  RepositoryPoller& operator=(const RepositoryPoller&) = delete;

  /// Begins no load from now on.
  void Stop();

 private:
  void Run(const std::stop_token& stop);

  ModelRepository& repository_;
  const Nanoseconds interval_;
  Clock& clock_;
  absl::Mutex mutex_;
  absl::CondVar stopping_;
  std::jthread thread_;
};

}  // namespace octet
