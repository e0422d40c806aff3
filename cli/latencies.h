// Latencies of one run in buckets that grow with the value: bounded memory, however long the run.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <vector>

namespace octet::cli {

/// A log-linear histogram, as HdrHistogram's: below 2 * kSteps ns one bucket per ns, above it kSteps equal buckets per
/// power of two. At most 220 kB; 45 kB while all values are below 2 ms. Thread-safety: one call at a time.
class Latencies {
 public:
  static constexpr int64_t kSteps = 512;
  /// What a percentile may be off by: half a bucket, relative to the value.
  static constexpr double kRelativeError = 0.5 / kSteps;

  /// A negative latency counts as 0.
  void Add(std::chrono::nanoseconds latency) {
    const int64_t value = std::max<int64_t>(latency.count(), 0);
    const size_t bucket = BucketOf(value);
    if (bucket >= counts_.size()) counts_.resize(bucket + 1);
    ++counts_[bucket];
    least_ = count_ == 0 ? value : std::min(least_, value);
    most_ = std::max(most_, value);
    ++count_;
  }
  void Merge(const Latencies& other) {
    if (other.count_ == 0) return;
    if (counts_.size() < other.counts_.size()) counts_.resize(other.counts_.size());
    for (size_t i = 0; i < other.counts_.size(); ++i) counts_[i] += other.counts_[i];
    least_ = count_ == 0 ? other.least_ : std::min(least_, other.least_);
    most_ = std::max(most_, other.most_);
    count_ += other.count_;
  }
  int64_t count() const { return count_; }

  /// The nearest-rank percentile: the smallest latency that `percent` of them do not exceed, up to kRelativeError; the first
  /// (0) and the last (100) exactly. 0 for none.
  double MicrosecondsAt(double percent) const {
    const double wanted = std::ceil(percent * static_cast<double>(count_) / 100);
    const auto rank =
        std::clamp<int64_t>(static_cast<int64_t>(wanted), 1, std::max<int64_t>(count_, 1));
    if (rank == count_) return static_cast<double>(most_) / 1e3;
    if (rank == 1) return static_cast<double>(least_) / 1e3;
    size_t bucket = 0;
    for (int64_t seen = counts_[0]; seen < rank;) seen += counts_[++bucket];
    const double middle = MiddleOf(static_cast<int64_t>(bucket));
    return std::clamp(middle, static_cast<double>(least_), static_cast<double>(most_)) / 1e3;
  }

 private:
  // Bucket kSteps * power + step holds [step << power, (step + 1) << power): step is in [kSteps, 2 * kSteps) but for power 0.
  static size_t BucketOf(int64_t value) {
    const auto bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(value)));
    const int power = std::max(bits - static_cast<int>(std::bit_width(uint64_t{kSteps})), 0);
    return static_cast<size_t>(kSteps * power + (value >> power));
  }
  static double MiddleOf(int64_t bucket) {
    if (bucket < 2 * kSteps) return static_cast<double>(bucket);
    const auto power = static_cast<int>(bucket / kSteps) - 1;
    return std::ldexp(static_cast<double>(bucket - kSteps * power) + 0.5, power);
  }

  std::vector<int64_t> counts_;
  int64_t count_ = 0;
  int64_t least_ = 0;
  int64_t most_ = 0;
};

}  // namespace octet::cli
