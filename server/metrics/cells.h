// The things that are counted with: lock-free, without allocation, cheap enough for every request.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace octet {

/// Only grows. Thread-safety: safe.
class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

/// Goes up and down. Thread-safety: safe.
class Gauge {
 public:
  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  void Add(double value) { value_.fetch_add(value, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

/// A gauge that may have nothing to say, as in the beginning it has: then it has no series. Thread-safety: safe.
class OptionalGauge {
 public:
  void Set(double value) { value_.store(value, std::memory_order_relaxed); }
  void Clear() { Set(kNothing); }
  /// Nothing: NaN.
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  static constexpr double kNothing = std::numeric_limits<double>::quiet_NaN();
  std::atomic<double> value_{kNothing};
};

/// A copy of a histogram's counts.
struct HistogramCounts {
  std::span<const double> bounds;   ///< Upper bounds, inclusive; one bucket more is unbounded.
  std::array<uint64_t, 40> counts;  ///< bounds.size() + 1 of them are used; not cumulative.
  double sum = 0;
  double sum_of_squares = 0;

  /// Observations.
  uint64_t total() const;
};

/// What was observed between two readings of one histogram.
HistogramCounts Between(const HistogramCounts& from, const HistogramCounts& to);

/// Counts observations in buckets with the upper bounds `Bounds()`. Thread-safety: safe; a copy
/// taken while others observe may miss the newest.
template <const auto& kBounds>
class BucketHistogram {
 public:
  static_assert(kBounds.size() < std::tuple_size_v<decltype(HistogramCounts::counts)>);

  void Observe(double value) {
    const auto bucket = std::ranges::lower_bound(kBounds, value) - kBounds.begin();
    counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
    sum_.fetch_add(value, std::memory_order_relaxed);
    sum_of_squares_.fetch_add(value * value, std::memory_order_relaxed);
  }

  HistogramCounts Read() const {
    HistogramCounts copy{.bounds = kBounds, .counts = {}};
    for (size_t i = 0; i < counts_.size(); ++i) {
      copy.counts[i] = counts_[i].load(std::memory_order_relaxed);
    }
    copy.sum = sum_.load(std::memory_order_relaxed);
    copy.sum_of_squares = sum_of_squares_.load(std::memory_order_relaxed);
    return copy;
  }

 private:
  std::array<std::atomic<uint64_t>, kBounds.size() + 1> counts_{};
  std::atomic<double> sum_{0};
  std::atomic<double> sum_of_squares_{0};  ///< For the variance that an experiment compares with.
};

namespace metric_bounds {

/// 10 us x 1.8^i, 28 of them: up to 78 s.
inline const std::array<double, 28> kLatencySeconds = [] {
  std::array<double, 28> bounds{};
  // Three significant digits: a label that can be read and typed.
  for (size_t i = 0; i < bounds.size(); ++i) {
    const double exact = 10e-6 * std::pow(1.8, static_cast<double>(i));
    const double digit = std::floor(std::log10(exact)) - 2;  // The power of ten of the last one.
    // A negative one has no exact value: a product with it would not be the number that the digits spell.
    const double unit = std::pow(10, std::abs(digit));
    bounds[i] = digit < 0 ? std::round(exact * unit) / unit : std::round(exact / unit) * unit;
  }
  return bounds;
}();

/// Of differences between outputs, absolute, relative and in nats: two a decade, in three significant digits.
inline constexpr std::array<double, 19> kDifference = {
    1e-6, 3.16e-6, 1e-5, 3.16e-5, 1e-4, 3.16e-4, 1e-3, 3.16e-3, 0.01, 0.0316,
    0.1,  0.316,   1,    3.16,    10,   31.6,    100,  316,     1000};

/// 0 dB: as much noise as signal, and below it what has no signal or is lost, which other counters tell apart: a quantile of
/// Prometheus takes the first bound for that of a bucket without a lower one. 144 dB: the rounding of a float.
inline constexpr std::array<double, 14> kDecibels = {0,  5,  10, 15, 20, 25,  30,
                                                     35, 40, 50, 60, 80, 100, 144};

inline constexpr std::array<double, 11> kRows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

}  // namespace metric_bounds

using LatencyHistogram = BucketHistogram<metric_bounds::kLatencySeconds>;
using RowsHistogram = BucketHistogram<metric_bounds::kRows>;
using DifferenceHistogram = BucketHistogram<metric_bounds::kDifference>;
using DecibelHistogram = BucketHistogram<metric_bounds::kDecibels>;

/// One counter per value of a label with few values. `Label` has `kName` and `kValues`.
template <typename Label>
class CounterPer {
 public:
  /// Requires: index < Label::kValues.size().
  void Add(size_t index) { counters_[index].Add(); }
  uint64_t value(size_t index) const { return counters_[index].value(); }
  static constexpr std::string_view label() { return Label::kName; }
  static constexpr auto values() { return std::span(Label::kValues); }

 private:
  std::array<Counter, Label::kValues.size()> counters_;
};

/// One gauge per value of a label with few values. `Label` has `kName` and `kValues`.
template <typename Label>
class GaugePer {
 public:
  /// Requires: index < Label::kValues.size().
  void Set(size_t index, double value) { gauges_[index].Set(value); }
  double value(size_t index) const { return gauges_[index].value(); }
  static constexpr std::string_view label() { return Label::kName; }
  static constexpr auto values() { return std::span(Label::kValues); }

 private:
  std::array<Gauge, Label::kValues.size()> gauges_;
};

/// gRPC's canonical codes; the index is the number of the code.
struct CodeLabel {
  static constexpr std::string_view kName = "code";
  static constexpr std::array<std::string_view, 17> kValues = {"OK",
                                                               "CANCELLED",
                                                               "UNKNOWN",
                                                               "INVALID_ARGUMENT",
                                                               "DEADLINE_EXCEEDED",
                                                               "NOT_FOUND",
                                                               "ALREADY_EXISTS",
                                                               "PERMISSION_DENIED",
                                                               "RESOURCE_EXHAUSTED",
                                                               "FAILED_PRECONDITION",
                                                               "ABORTED",
                                                               "OUT_OF_RANGE",
                                                               "UNIMPLEMENTED",
                                                               "INTERNAL",
                                                               "UNAVAILABLE",
                                                               "DATA_LOSS",
                                                               "UNAUTHENTICATED"};
};

/// Why a request did not run; the order of Refusal.
struct RefusalLabel {
  static constexpr std::string_view kName = "reason";
  static constexpr std::array<std::string_view, 4> kValues = {"queue_full", "expired", "deadline",
                                                              "p99_target"};
};

/// Compiled batch sizes; the order of BatchSizeIndex.
struct BatchSizeLabel {
  static constexpr std::string_view kName = "rows";
  static constexpr std::array<std::string_view, 17> kValues = {
      "1",   "2",    "4",    "8",    "16",   "32",    "64",    "128",  "256",
      "512", "1024", "2048", "4096", "8192", "16384", "32768", "65536"};
};

/// Why routing chose the variant; the order of RouteReason.
struct RouteLabel {
  static constexpr std::string_view kName = "reason";
  static constexpr std::array<std::string_view, 4> kValues = {"explicit", "sticky", "split",
                                                              "default"};
};

/// What a guard did; the order of GuardAction.
struct GuardActionLabel {
  static constexpr std::string_view kName = "action";
  static constexpr std::array<std::string_view, 4> kValues = {"alert", "fall_back", "recover",
                                                              "shift"};
};

/// What a ramp did; the order of RampAction.
struct RampActionLabel {
  static constexpr std::string_view kName = "action";
  static constexpr std::array<std::string_view, 2> kValues = {"forward", "back"};
};

/// Why a shadow copy did not run; the order of ShadowDrop.
struct ShadowDropLabel {
  static constexpr std::string_view kName = "reason";
  static constexpr std::array<std::string_view, 4> kValues = {"queue_full", "not_ready", "unloaded",
                                                              "draining"};
};

/// Why a sequence is no longer live; the order of SequenceEnd.
struct SequenceEndLabel {
  static constexpr std::string_view kName = "reason";
  static constexpr std::array<std::string_view, 5> kValues = {"end", "restart", "failed_start",
                                                              "idle", "replaced"};
};

/// Why a request did not get into a sequence; the order of SequenceRefusal.
struct SequenceRefusalLabel {
  static constexpr std::string_view kName = "reason";
  static constexpr std::array<std::string_view, 4> kValues = {"no_start", "too_many",
                                                              "too_many_wait", "replaced"};
};

/// Why a request that was drawn is not captured; the order of CaptureDrop.
struct CaptureDropLabel {
  static constexpr std::string_view kName = "reason";
  static constexpr std::array<std::string_view, 7> kValues = {
      "too_large", "axis_0", "shapes", "dtype", "busy", "memory", "trailing_nul"};
};

}  // namespace octet
