// How many requests took longer than they may.
#pragma once

#include <cmath>
#include <cstdint>

#include "server/metrics/cells.h"
#include "server/scheduling/clock.h"

namespace octet {

/// Counts requests, and those above a limit one by one: a histogram's buckets, 1.8 times as wide as the one before, do not say
/// on which side of a limit within them a percentile lies. Thread-safety: safe.
class LatencyLimit {
 public:
  explicit LatencyLimit(double most_us) : most_(std::llround(1e3 * most_us)) {}

  void Observe(Nanoseconds time) {
    requests_.Add();
    if (time > most_) slow_.Add();
  }
  uint64_t requests() const { return requests_.value(); }
  /// Of these, above the limit. Read before requests(), while others observe: never more than they.
  uint64_t slow() const { return slow_.value(); }

 private:
  const Nanoseconds most_;
  Counter requests_;
  Counter slow_;
};

}  // namespace octet
