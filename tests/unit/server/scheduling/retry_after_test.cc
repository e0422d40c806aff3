#include "server/scheduling/retry_after.h"

#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet {
namespace retry_after_test {

using std::chrono::microseconds;
using std::chrono::milliseconds;

TEST(RetryAfterTest, IsKeptWithTheErrorWithinItsBounds) {
  const absl::Status plain = absl::ResourceExhaustedError("full");
  EXPECT_EQ(RetryAfterOf(plain), std::nullopt);
  EXPECT_EQ(RetryAfterOf(absl::OkStatus()), std::nullopt);
  const absl::Status told = WithRetryAfter(plain, microseconds(41'200));
  EXPECT_EQ(RetryAfterOf(told), milliseconds(42)) << "not before it is over";
  EXPECT_EQ(told.code(), plain.code());
  EXPECT_EQ(Message(told), "full");
  EXPECT_EQ(RetryAfterOf(Annotate(told, "step \"a\"")), milliseconds(42));
  EXPECT_EQ(RetryAfterOf(WithRetryAfter(plain, milliseconds(-7))), kLeastRetryAfter);
  EXPECT_EQ(RetryAfterOf(WithRetryAfter(plain, Nanoseconds::max())), kMostRetryAfter);
}

TEST(RetryAfterTest, AServerThatEndsIsFollowedByAnotherSoon) {
  EXPECT_EQ(ShuttingDown().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RetryAfterOf(ShuttingDown()), milliseconds(200));
}

}  // namespace retry_after_test
}  // namespace octet
