#include "server/repository/traffic_events.h"

#include <chrono>
#include <utility>

namespace octet {

void TrafficEvents::Add(std::string who, std::string_view action, std::string_view reason) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  absl::MutexLock lock(&mutex_);
  if (events_.size() == kMost) events_.pop_front();
  events_.push_back({std::chrono::duration_cast<std::chrono::milliseconds>(now).count(),
                     std::move(who), std::string(action), std::string(reason)});
}

std::vector<TrafficEvent> TrafficEvents::Read() const {
  absl::MutexLock lock(&mutex_);
  return {events_.begin(), events_.end()};
}

}  // namespace octet
