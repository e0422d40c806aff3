// A clock that moves only when a test says so.
#pragma once

#include <algorithm>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/scheduling/clock.h"

namespace octet {

/// Starts at one hour. Thread-safety: safe.
class FakeClock final : public Clock {
 public:
  TimePoint Now() const override {
    absl::MutexLock lock(&mutex_);
    return now_;
  }

  void WaitUntil(absl::CondVar& signal, absl::Mutex& mutex, TimePoint time) override {
    {
      absl::MutexLock lock(&mutex_);
      if (now_ >= time) return;
      waiters_.push_back({&signal, &mutex});
    }
    signal.Wait(&mutex);
    absl::MutexLock lock(&mutex_);
    const auto mine = [&](const Waiter& w) { return w.signal == &signal && w.mutex == &mutex; };
    waiters_.erase(std::find_if(waiters_.begin(), waiters_.end(), mine));
  }

  /// Moves time and wakes everybody who waits.
  void Advance(Nanoseconds by) {
    std::vector<Waiter> waiters;
    {
      absl::MutexLock lock(&mutex_);
      now_ += by;
      waiters = waiters_;
    }
    for (const Waiter& waiter : waiters) {
      // Taking the waiter's lock makes sure that it sleeps, or has not yet looked at the time.
      absl::MutexLock lock(waiter.mutex);
      waiter.signal->SignalAll();
    }
  }

  /// Blocks until `count` threads wait on this clock.
  void AwaitWaiters(size_t count) const {
    absl::MutexLock lock(&mutex_);
    struct Args {
      const FakeClock* clock;
      size_t count;
    } args = {this, count};
    mutex_.Await(
        absl::Condition(+[](Args* a) { return a->clock->WaiterCount() >= a->count; }, &args));
  }

 private:
  struct Waiter {
    absl::CondVar* signal;
    absl::Mutex* mutex;
  };
  size_t WaiterCount() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return waiters_.size(); }

  mutable absl::Mutex mutex_;
  TimePoint now_ ABSL_GUARDED_BY(mutex_) = TimePoint{} + std::chrono::hours(1);
  std::vector<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
