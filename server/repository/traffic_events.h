// The last things that guards and ramps did to a model's traffic, for whoever looks at the status page.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace octet {

struct TrafficEvent {
  int64_t time_ms = 0;  ///< Since the epoch.
  std::string who;      ///< "net/4/int8", "net: int8".
  std::string action;   ///< As the metrics' label and the log say it.
  std::string reason;
};

/// Remembers the last kMost of a model, through reloads. Thread-safety: safe.
class TrafficEvents {
 public:
  static constexpr size_t kMost = 50;

  /// Now.
  void Add(std::string who, std::string_view action, std::string_view reason);
  /// The oldest first.
  std::vector<TrafficEvent> Read() const;

 private:
  mutable absl::Mutex mutex_;
  std::deque<TrafficEvent> events_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
