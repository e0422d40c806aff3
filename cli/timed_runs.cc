#include "cli/timed_runs.h"

#include <chrono>

#include "engine/tensor/status.h"

namespace octet::cli {

absl::StatusOr<TimedRuns> TimeRuns(Session& session, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int kWarmUpRuns = 3;
  for (int i = 0; i < kWarmUpRuns; ++i) OCTET_RETURN_IF_ERROR(session.Run());

  TimedRuns runs;
  const auto started = Clock::now();
  const auto until =
      started + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  Clock::time_point before = started;
  do {
    OCTET_RETURN_IF_ERROR(session.Run());
    const auto after = Clock::now();
    runs.latencies.Add(after - before);
    before = after;
  } while (before < until);
  runs.seconds = std::chrono::duration<double>(before - started).count();
  return runs;
}

}  // namespace octet::cli
