// Times since the epoch that nobody's setting of the clock moves.
#pragma once

#include <chrono>
#include <cstdint>

namespace octet {

/// Milliseconds since the epoch that a steady clock counts on, from one look at the time of day: what is held for so long neither
/// ends nor stretches when somebody sets the clock meanwhile. Two processes agree as far as the time of day of their looks does: what
/// one has written and another goes on with is as long ago as the clock says then. Immutable.
class SteadyEpoch {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  /// Looks at the time of day, which it is at `now`.
  explicit SteadyEpoch(TimePoint now)
      : SteadyEpoch(now, Milliseconds(std::chrono::system_clock::now().time_since_epoch())) {}
  SteadyEpoch(TimePoint now, int64_t epoch_ms) : began_(now), epoch_ms_(epoch_ms) {}

  int64_t MsAt(TimePoint now) const { return epoch_ms_ + Milliseconds(now - began_); }

 private:
  template <typename Duration>
  static int64_t Milliseconds(Duration time) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
  }

  TimePoint began_;
  int64_t epoch_ms_;
};

}  // namespace octet
