#include "server/scheduling/shape_times.h"

#include <algorithm>
#include <new>
#include <utility>

namespace octet {

ShapeTimes::Extents ShapeTimes::ExtentsOf(std::span<const WireTensor> inputs) {
  Extents extents;
  for (const WireTensor& input : inputs) {
    extents.push_back(input.shape().rank());
    extents.insert(extents.end(), input.shape().begin(), input.shape().end());
  }
  return extents;
}

void ShapeTimes::Observe(std::span<const WireTensor> inputs, Nanoseconds time, TimePoint now) {
  try {
    Learn(ExtentsOf(inputs), std::max(time, Nanoseconds(1)), now);
  } catch (const std::bad_alloc&) {
    return;
  }
}

void ShapeTimes::Learn(Extents extents, Nanoseconds time, TimePoint now) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_[std::move(extents)];
  if (entry.runs < 2) {
    entry.time.smoothed = entry.runs == 0 ? time : std::min(entry.time.smoothed, time);
    ++entry.runs;
  } else {
    entry.time.smoothed = Smoothed(entry.time.smoothed, time);
  }
  entry.time.measured = now;
  if (entries_.size() <= kMost) return;
  entries_.erase(std::ranges::min_element(
      entries_, {}, [](const auto& item) { return item.second.time.measured; }));
}

Nanoseconds ShapeTimes::Expected(std::span<const WireTensor> inputs, TimePoint now) const {
  try {
    const Extents extents = ExtentsOf(inputs);
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(extents);
    if (found == entries_.end()) return Nanoseconds::zero();
    const auto& [time, runs] = found->second;
    return runs >= 2 && now - time.measured <= kFresh ? time.smoothed : Nanoseconds::zero();
  } catch (const std::bad_alloc&) {
    return Nanoseconds::zero();
  }
}

}  // namespace octet
