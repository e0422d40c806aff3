// Time for everything in the server that waits or measures; tests drive a fake one.
#pragma once

#include <chrono>

#include "absl/synchronization/mutex.h"

namespace octet {

using TimePoint = std::chrono::steady_clock::time_point;
using Nanoseconds = std::chrono::nanoseconds;

/// A time that never comes: no deadline, wait for ever.
inline constexpr TimePoint kNever = TimePoint::max();

/// A monotonic clock. Thread-safety: safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
  /// Releases `mutex`, waits until `signal` is signalled or `time` is reached, and takes it again.
  /// May return early: callers look at their condition in a loop. Requires: `mutex` is held.
  virtual void WaitUntil(absl::CondVar& signal, absl::Mutex& mutex, TimePoint time) = 0;

  /// The machine's own clock.
  static Clock& Real();
};

}  // namespace octet
