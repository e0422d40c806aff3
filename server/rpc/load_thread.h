// Loads and unloads take seconds: they have a thread of their own, and gRPC's keep answering.
#pragma once

#include <deque>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace octet {

/// Runs tasks one after the other, in order. What one throws is logged. Thread-safety: safe.
class LoadThread {
 public:
  static constexpr size_t kMaxWaiting = 64;

  LoadThread();
  /// Runs what was posted, then ends.
  ~LoadThread();
  LoadThread(const LoadThread&) = delete;
  LoadThread& operator=(const LoadThread&) = delete;

  /// False, and the task is not run, when kMaxWaiting wait already.
  bool Post(absl::AnyInvocable<void() &&> task);
  /// Whether a task runs or waits.
  bool busy() const;

 private:
  void Run();

  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<absl::AnyInvocable<void() &&>> tasks_ ABSL_GUARDED_BY(mutex_);
  std::jthread thread_;
};

}  // namespace octet
