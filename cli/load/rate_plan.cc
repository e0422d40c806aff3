#include "cli/load/rate_plan.h"

#include <array>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

constexpr double kMostPerSecond = 1e6;
constexpr double kLeastSeconds = 0.01;
constexpr double kMostSeconds = 3600;

std::optional<double> NumberIn(std::string_view text) {
  double value = 0;
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

/// The text up to the next ':', which is taken off.
std::string_view TakeField(std::string_view& text) {
  const size_t colon = text.find(':');
  const std::string_view field = text.substr(0, colon);
  text.remove_prefix(colon == std::string_view::npos ? text.size() : colon + 1);
  return field;
}

}  // namespace

absl::StatusOr<RatePlan> RatePlan::Parse(std::string_view text, double seconds) {
  std::string_view rest = text;
  const bool ramp = text.find(':') != std::string_view::npos;
  const bool timed = ramp && text.find(':') != text.rfind(':');
  const std::optional<double> from = NumberIn(TakeField(rest));
  const std::optional<double> to = ramp ? NumberIn(TakeField(rest)) : from;
  if (timed && rest.ends_with('s')) rest.remove_suffix(1);
  const std::optional<double> time = timed ? NumberIn(rest) : seconds;
  if (!from || !to || !time) {
    return InvalidArgument(
        "a rate is R, FROM:TO or FROM:TO:SECONDS, requests per second, got \"{}\"", text);
  }
  for (const double rate : {*from, *to}) {
    if (rate < 0 || rate > kMostPerSecond || *from + *to <= 0) {
      return InvalidArgument("rates are from 0 to {}, and not both 0, got \"{}\"", kMostPerSecond,
                             text);
    }
  }
  if (*time < kLeastSeconds || *time > kMostSeconds) {
    return InvalidArgument("a rate's seconds are from {} to {}, got \"{}\"", kLeastSeconds,
                           kMostSeconds, text);
  }
  return RatePlan{*from, *to, *time};
}

double RatePlan::TimeOf(double requests) const {
  if (requests <= 0) return 0;
  // The root of from * t + (to - from) / (2 * seconds) * t^2 = requests, in the form that does not cancel.
  const double root = std::sqrt(std::max(from * from + 2 * (to - from) / seconds * requests, 0.0));
  return 2 * requests / (from + root);
}

uint64_t ChooserSeed(uint64_t seed) {
  std::seed_seq mixed{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), 1U};
  std::array<uint32_t, 2> words{};
  mixed.generate(words.begin(), words.end());
  return uint64_t{words[0]} << 32 | words[1];
}

std::optional<double> Arrivals::Next() {
  if (kind_ == ArrivalKind::kPoisson) expected_ += gap_(random_);
  const double expected = kind_ == ArrivalKind::kPoisson ? expected_ : expected_++;
  if (expected >= plan_.total()) return std::nullopt;
  return plan_.TimeOf(expected);
}

}  // namespace octet::cli
