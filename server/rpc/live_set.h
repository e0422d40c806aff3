// The long calls that are open: streams and watches, which end only when somebody tells them to.
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace octet {

/// Holds its members until they leave; closed, it takes no more. Thread-safety: safe.
template <typename T>
class LiveSet {
 public:
  /// False once closed.
  bool Add(std::shared_ptr<T> member) {
    absl::MutexLock lock(&mutex_);
    if (closed_) return false;
    members_.insert(std::move(member));
    return true;
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
  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<T>> members_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
