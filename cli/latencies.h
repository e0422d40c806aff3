// Latencies of one run, kept whole: a run of minutes is a few megabytes.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

namespace octet::cli {

class Latencies {
 public:
  void Add(std::chrono::nanoseconds latency) {
    nanoseconds_.push_back(latency.count());
    sorted_ = false;
  }
  void Merge(const Latencies& other) {
    nanoseconds_.insert(nanoseconds_.end(), other.nanoseconds_.begin(), other.nanoseconds_.end());
    sorted_ = false;
  }
  size_t count() const { return nanoseconds_.size(); }

  /// The nearest-rank percentile: the smallest latency that `percent` of them do not exceed; 0 the minimum. 0 for none.
  double MicrosecondsAt(double percent) {
    if (nanoseconds_.empty()) return 0;
    if (!sorted_) std::ranges::sort(nanoseconds_);
    sorted_ = true;
    const double rank = std::ceil(percent / 100 * static_cast<double>(nanoseconds_.size()));
    const auto index = static_cast<size_t>(std::max(rank, 1.0)) - 1;
    return static_cast<double>(nanoseconds_[std::min(index, nanoseconds_.size() - 1)]) / 1e3;
  }

 private:
  std::vector<int64_t> nanoseconds_;
  bool sorted_ = false;
};

}  // namespace octet::cli
