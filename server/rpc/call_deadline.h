// gRPC's deadlines are times of day; the scheduler's are steady.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include <grpc/support/time.h>
#include <grpcpp/server_context.h>

#include "server/scheduling/clock.h"

namespace octet {

/// The deadline by `clock`; kNever when it is more than a century away: clients without one send the longest time that they
/// can write (grpc-go 2562048 hours), which does not fit into nanoseconds.
inline TimePoint DeadlineOf(const gpr_timespec& deadline, const Clock& clock) {
  constexpr int64_t kCentury = int64_t{100} * 365 * 24 * 3600;
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  if (left.tv_sec > kCentury) return kNever;
  return clock.Now() + std::chrono::seconds(std::max(left.tv_sec, -kCentury)) +
         std::chrono::nanoseconds(left.tv_nsec);
}

/// The call's.
inline TimePoint DeadlineOf(const grpc::ServerContextBase& context, const Clock& clock) {
  return DeadlineOf(context.raw_deadline(), clock);
}

}  // namespace octet
