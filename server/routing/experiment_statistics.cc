#include "server/routing/experiment_statistics.h"

#include <algorithm>
#include <cmath>

namespace octet {
namespace {

/// P(X >= x) of the chi-square distribution. Source: Abramowitz and Stegun, 26.4.4, 26.4.5 and 26.4.8.
double ChiSquareTail(double x, int degrees) {
  const double half = x / 2;
  // From one or two degrees in steps of two: Q(k + 2) = Q(k) + half^(k/2) e^-half / Gamma(k/2 + 1).
  double tail = degrees % 2 == 0 ? std::exp(-half) : std::erfc(std::sqrt(half));
  for (int k = degrees % 2 == 0 ? 2 : 1; k < degrees; k += 2) {
    tail += std::pow(half, k / 2.0) * std::exp(-half) / std::tgamma(k / 2.0 + 1);
  }
  return std::min(tail, 1.0);
}

}  // namespace

double Moments::variance() const {
  if (count < 2) return 0;
  const auto n = static_cast<double>(count);
  // Rounding may leave a little below 0 when all are equal.
  return std::max(0.0, (sum_of_squares - sum * sum / n) / (n - 1));
}

std::optional<Estimate> MeanDifference(const Moments& a, const Moments& b) {
  if (std::min(a.count, b.count) < kLeastObservations) return std::nullopt;
  constexpr double kNormalQuantile = 1.959964;  // of 97.5 %
  const double error = std::sqrt(a.variance() / static_cast<double>(a.count) +
                                 b.variance() / static_cast<double>(b.count));
  const double difference = a.mean() - b.mean();
  return Estimate{difference, difference - kNormalQuantile * error,
                  difference + kNormalQuantile * error};
}

std::optional<SampleRatio> TestSampleRatio(std::span<const uint64_t> counts,
                                           std::span<const double> weights) {
  constexpr double kLeastExpected = 5;  // below, the statistic is not chi-square
  constexpr double kAlarm = 0.001;
  double weight_sum = 0;
  double total = 0;
  int shares = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    weight_sum += weights[i];
    total += static_cast<double>(counts[i]);
    ++shares;
  }
  if (shares < 2) return std::nullopt;
  SampleRatio ratio;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    const double expected = total * weights[i] / weight_sum;
    if (expected < kLeastExpected) return std::nullopt;
    const double apart = static_cast<double>(counts[i]) - expected;
    ratio.chi_square += apart * apart / expected;
  }
  ratio.p_value = ChiSquareTail(ratio.chi_square, shares - 1);
  ratio.alarm = ratio.p_value < kAlarm;
  return ratio;
}

}  // namespace octet
