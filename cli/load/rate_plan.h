// When the requests of an open loop are to be sent.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string_view>

#include "absl/status/statusor.h"

namespace octet::cli {

/// Requests per second over a run: r(t) = from + (to - from) * t / seconds.
struct RatePlan {
  double from = 0;
  double to = 0;
  double seconds = 0;

  /// "R", "FROM:TO" or "FROM:TO:SECONDS", the last with or without an "s"; `seconds` where it says none.
  /// INVALID_ARGUMENT naming the text unless rates are in [0, 1e6], one is positive, and the time is in [0.01, 3600].
  static absl::StatusOr<RatePlan> Parse(std::string_view text, double seconds);

  double mean() const { return (from + to) / 2; }
  /// Requests of the whole plan.
  double total() const { return mean() * seconds; }
  /// The time in seconds by which `requests` are expected, which is in [0, total()]: r's integral, inverted.
  double TimeOf(double requests) const;
};

/// The seed of who is asked, of that of when (Arrivals): with one sequence of random numbers for both, the streams of a load
/// would differ in the gaps before their requests.
uint64_t ChooserSeed(uint64_t seed);

enum class ArrivalKind : uint8_t { kPoisson, kConstant };

/// The times of a plan's requests, in order. Poisson: the process whose rate is the plan's, its gaps being exponential in r's
/// integral; constant: one request per unit of that integral. The same seed gives the same times.
class Arrivals {
 public:
  Arrivals(const RatePlan& plan, ArrivalKind kind, uint64_t seed)
      : plan_(plan), kind_(kind), random_(seed) {}

  /// Seconds after the start; nullopt when the plan is over.
  std::optional<double> Next();

 private:
  const RatePlan plan_;
  const ArrivalKind kind_;
  std::mt19937_64 random_;
  std::exponential_distribution<double> gap_{1};
  double expected_ = 0;
};

}  // namespace octet::cli
