#include "cli/rollout_server.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"

namespace octet::cli {
namespace rollout_server_test {

using nlohmann::json;

json Experiment(const json& baseline, double fp32, double int8) {
  return {{"baseline", baseline},
          {"precisions",
           {{{"precision", "fp32"}, {"weight", fp32}}, {{"precision", "int8"}, {"weight", int8}}}}};
}

TEST(AnsweringPrecision, IsTheOneThatIsDrawnOrElseTheBaseline) {
  EXPECT_EQ(*AnsweringPrecision(Experiment("fp32", 0, 100)), Precision::kInt8);
  EXPECT_EQ(*AnsweringPrecision(Experiment("fp32", 0, 0)), Precision::kFp32);
  EXPECT_EQ(AnsweringPrecision(Experiment("fp32", 50, 50)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AnsweringPrecision(Experiment(nullptr, 0, 0)).status().code(),
            absl::StatusCode::kUnavailable);
}

// A server of another version may have precisions that this one has not.
TEST(AnsweringPrecision, IsOneThatIsKnown) {
  const absl::Status status = AnsweringPrecision(Experiment("fp4", 0, 0)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  EXPECT_THAT(std::string(Message(status)), ::testing::HasSubstr("'fp4'"));
}

}  // namespace rollout_server_test
}  // namespace octet::cli
