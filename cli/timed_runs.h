// How long a model's runs take.
#pragma once

#include "absl/status/statusor.h"
#include "cli/latencies.h"
#include "cli/session.h"

namespace octet::cli {

struct TimedRuns {
  Latencies latencies;
  double seconds = 0;  ///< All of them together.
};

/// Runs what is prepared again and again for `seconds`, at least once, after a warm-up that is not counted.
absl::StatusOr<TimedRuns> TimeRuns(Session& session, double seconds);

}  // namespace octet::cli
