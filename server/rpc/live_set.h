// The long calls that are open: streams and watches, which end only when somebody tells them to.
#pragma once

#include <cstddef>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "engine/tensor/status.h"
#include "server/scheduling/retry_after.h"

namespace octet {

/// Holds at most so many members until they leave; closed, it takes no more. Thread-safety: safe.
template <typename T>
class LiveSet {
 public:
  explicit LiveSet(size_t most) : most_(most) {}

  /// UNAVAILABLE once closed, RESOURCE_EXHAUSTED of one too many.
  absl::Status Add(std::shared_ptr<T> member) {
    absl::MutexLock lock(&mutex_);
    if (closed_) return ShuttingDown();
    if (members_.size() >= most_) {
      return MakeError(absl::StatusCode::kResourceExhausted,
                       "too many such calls are open on this server, at most {}", most_);
    }
    members_.insert(std::move(member));
    return absl::OkStatus();
  }
  void Remove(const std::shared_ptr<T>& member) {
    absl::MutexLock lock(&mutex_);
    members_.erase(member);
  }
  /// Those in it now: to be called without a lock held.
  std::vector<std::shared_ptr<T>> Members() const {
    absl::MutexLock lock(&mutex_);
    return {members_.begin(), members_.end()};
  }
  std::vector<std::shared_ptr<T>> Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    return {members_.begin(), members_.end()};
  }

 private:
  const size_t most_;
  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<T>> members_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
