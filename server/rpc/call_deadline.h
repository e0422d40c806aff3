// gRPC's deadlines are times of day; the scheduler's are steady.
#pragma once

#include <chrono>

#include <grpcpp/server_context.h>

#include "server/scheduling/clock.h"

namespace octet {

/// The call's deadline by `clock`; kNever when it has none.
inline TimePoint DeadlineOf(const grpc::ServerContextBase& context, const Clock& clock) {
  using SystemClock = std::chrono::system_clock;
  const SystemClock::time_point deadline = context.deadline();
  if (deadline == SystemClock::time_point::max()) return kNever;
  const Nanoseconds left = deadline - SystemClock::now();
  const TimePoint now = clock.Now();
  return left < kNever - now ? now + left : kNever;
}

}  // namespace octet
