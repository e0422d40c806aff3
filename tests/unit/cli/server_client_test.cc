#include "cli/server_client.h"

#include <gtest/gtest.h>

namespace octet::cli {
namespace server_client_test {

TEST(ServerClientTest, AnAnswerThatIsAProxysSaysThatTheServerIsAway) {
  for (const int status : {408, 502, 503, 504}) {
    EXPECT_EQ(CodeOfHttpStatus(status), absl::StatusCode::kUnavailable) << status;
  }
  EXPECT_EQ(CodeOfHttpStatus(400), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOfHttpStatus(404), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOfHttpStatus(429), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(CodeOfHttpStatus(501), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(CodeOfHttpStatus(500), absl::StatusCode::kInternal);
}

}  // namespace server_client_test
}  // namespace octet::cli
