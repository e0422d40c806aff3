#include "server/rpc/call_deadline.h"

#include <gtest/gtest.h>

#include "tests/support/fake_clock.h"

namespace octet {
namespace call_deadline_test {

using std::chrono::seconds;

TEST(CallDeadlineTest, IsAsFarAwayByTheOtherClock) {
  const FakeClock clock;
  for (const gpr_clock_type type : {GPR_CLOCK_REALTIME, GPR_CLOCK_MONOTONIC}) {
    for (const int64_t away : {3600, -60}) {
      const gpr_timespec deadline =
          gpr_time_add(gpr_now(type), gpr_time_from_seconds(away, GPR_TIMESPAN));
      const TimePoint by_clock = DeadlineOf(deadline, clock);
      EXPECT_LE(by_clock, clock.Now() + seconds(away));
      EXPECT_GT(by_clock, clock.Now() + seconds(away - 30)) << "a slow machine";
    }
  }
}

TEST(CallDeadlineTest, OneThatNobodyLivesToSeeIsNone) {
  const FakeClock clock;
  EXPECT_EQ(DeadlineOf(gpr_inf_future(GPR_CLOCK_REALTIME), clock), kNever);
  // grpc-go's math.MaxInt64 nanoseconds, and the most that the wire can say.
  for (const int64_t hours : {2'562'048, 99'999'999}) {
    const gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_hours(hours, GPR_TIMESPAN));
    EXPECT_EQ(DeadlineOf(deadline, clock), kNever) << hours;
  }
  EXPECT_LT(DeadlineOf(gpr_inf_past(GPR_CLOCK_REALTIME), clock), clock.Now());
}

}  // namespace call_deadline_test
}  // namespace octet
