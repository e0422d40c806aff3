// Whether two precisions really differ in latency, and whether a split drew as its weights say: pure
// functions of sums.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

namespace octet {

/// Sums over observations.
struct Moments {
  uint64_t count = 0;
  double sum = 0;
  double sum_of_squares = 0;

  double mean() const { return count == 0 ? 0 : sum / static_cast<double>(count); }
  /// Unbiased; 0 below two observations.
  double variance() const;
};

/// An estimate and the bounds of its confidence interval of 95 %.
struct Estimate {
  double value = 0;
  double low = 0;
  double high = 0;
};

/// mean(a) - mean(b), with Welch's standard error sqrt(var_a / n_a + var_b / n_b) and the normal
/// quantile 1.96. nullopt with fewer than kLeastObservations on a side: the means of few latencies
/// are not normal.
inline constexpr uint64_t kLeastObservations = 30;
std::optional<Estimate> MeanDifference(const Moments& a, const Moments& b);

/// Pearson's goodness of fit: were these counts drawn in proportion to the weights?
struct SampleRatio {
  double chi_square = 0;
  double p_value = 1;
  /// p_value < 0.001: something other than the split decides who is answered by whom, and what
  /// the experiment says about the precisions may come from that.
  bool alarm = false;
};

/// nullopt when nothing can be said: fewer than two weights above 0, or fewer than five requests
/// expected of one of them. Requires: as many counts as weights.
/// Source: Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", 2019.
std::optional<SampleRatio> TestSampleRatio(std::span<const uint64_t> counts,
                                           std::span<const double> weights);

}  // namespace octet
