#include "server/scheduling/retry_after.h"

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

#include "absl/strings/cord.h"

namespace octet {
namespace {

/// The payload: milliseconds, in decimal.
constexpr const char* kPayload = "octet/retry-after-ms";
/// Of ShuttingDown. deploy/README.md's policy for clients begins with it, too.
constexpr std::chrono::milliseconds kNextServer{200};

}  // namespace

absl::Status WithRetryAfter(absl::Status status, Nanoseconds time) {
  const auto rounded = std::chrono::ceil<std::chrono::milliseconds>(time);
  const auto told = std::clamp(rounded, kLeastRetryAfter, kMostRetryAfter);
  status.SetPayload(kPayload, absl::Cord(std::to_string(told.count())));
  return status;
}

std::optional<std::chrono::milliseconds> RetryAfterOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayload);
  if (!payload) return std::nullopt;
  const std::string text(*payload);
  int64_t milliseconds = 0;
  std::from_chars(text.data(), text.data() + text.size(), milliseconds);
  return std::chrono::milliseconds(milliseconds);
}

absl::Status ShuttingDown() {
  return WithRetryAfter(absl::UnavailableError("the server is shutting down"), kNextServer);
}

}  // namespace octet
