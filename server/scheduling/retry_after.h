// When somebody who was refused may try again: said by who refuses, sent by each protocol in its own way.
#pragma once

#include <chrono>
#include <optional>

#include "absl/status/status.h"

#include "server/scheduling/clock.h"

namespace octet {

/// The bounds of what is told: less makes clients spin, and nobody knows what is in a minute.
inline constexpr std::chrono::milliseconds kLeastRetryAfter{10};
inline constexpr std::chrono::milliseconds kMostRetryAfter{10'000};
/// What is told where nothing was measured.
inline constexpr std::chrono::milliseconds kUnknownRetryAfter{1'000};

/// The same error, which may be tried again after `time`, within the bounds.
absl::Status WithRetryAfter(absl::Status status, Nanoseconds time);

/// What WithRetryAfter said; nullopt when nobody did.
std::optional<std::chrono::milliseconds> RetryAfterOf(const absl::Status& status);

/// UNAVAILABLE: of a server that takes no request any more. Another one, or the next one at this address, will soon.
absl::Status ShuttingDown();

}  // namespace octet
