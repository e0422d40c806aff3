// "Stop taking, and tell me when the taken are done": how the server drains.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/scheduling/clock.h"

namespace octet {

/// Counts who is inside; once closed nobody enters any more. Thread-safety: safe.
///
///     open --Announce()--> announced --Close()--> closing --the last Pass is gone--> empty
///      +--------------------Close()---------------^ +--Abandon()--> whoever is inside is to give up
class Gate {
 public:
  /// Being inside, until destroyed. The gate must outlive it.
  class Pass {
   public:
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept {
      std::swap(gate_, other.gate_);
      return *this;
    }
    ~Pass() {
      if (gate_ != nullptr) gate_->Leave();
    }

   private:
    friend class Gate;
    explicit Pass(Gate* gate) : gate_(gate) {}
    Gate* gate_;
  };

  explicit Gate(Clock& clock = Clock::Real()) : clock_(clock) {}

  /// Nullopt once the gate is closed.
  std::optional<Pass> TryEnter();
  /// It is about to close: whoever asks whether to come here is to hear no, and everybody is let in as before.
  void Announce() { announced_.store(true, std::memory_order_relaxed); }
  /// From Announce or Close on.
  bool announced() const { return announced_.load(std::memory_order_relaxed); }
  /// Lets nobody in from now on. May be called again.
  void Close();
  /// Close, and asks those inside, who look at abandoned(), to give up.
  void Abandon();
  bool abandoned() const { return abandoned_.load(std::memory_order_relaxed); }
  /// Waits until nobody is inside, at most until `deadline`; true when nobody is.
  bool WaitUntilEmpty(TimePoint deadline);
  bool closed() const;
  int64_t inside() const;

 private:
  void Leave();

  Clock& clock_;
  std::atomic<bool> announced_{false};
  std::atomic<bool> abandoned_{false};
  mutable absl::Mutex mutex_;
  absl::CondVar empty_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t inside_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace octet
