#include "server/rpc/infer_options.h"

#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "server/rpc/call_metadata.h"

namespace octet {
namespace infer_options_test {

using std::chrono::microseconds;

class InferOptionsTest : public ::testing::Test {
 protected:
  inference::InferParameter& Parameter(const std::string& name) {
    return (*request_.mutable_parameters())[name];
  }
  absl::StatusOr<InferOptions> Read() {
    return ReadInferOptions(request_, CallMetadata(metadata_), sticky_);
  }
  std::string Refusal() {
    const absl::Status status = Read().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(Message(status));
  }

  inference::ModelInferRequest request_;
  CallMetadata::Metadata metadata_;
  ModelConfig::Routing::Sticky sticky_;
};

TEST_F(InferOptionsTest, NothingIsAskedForByDefault) {
  const auto options = Read();
  ASSERT_TRUE(options.ok());
  EXPECT_TRUE(options->precision.empty());
  EXPECT_TRUE(options->sticky_key.empty());
  EXPECT_EQ(options->timeout, Nanoseconds::max());
  EXPECT_TRUE(options->capture);
}

TEST_F(InferOptionsTest, TheParameterWinsOverTheMetadata) {
  metadata_.emplace("x-octet-precision", "int8");
  EXPECT_EQ(Read()->precision, "int8");
  Parameter("precision").set_string_param("bf16");
  EXPECT_EQ(Read()->precision, "bf16");
  Parameter("precision").set_int64_param(8);
  EXPECT_EQ(Refusal(), "parameter \"precision\": expected text, got a whole number");
}

TEST_F(InferOptionsTest, AVersionMayBeAPrecision) {
  request_.set_model_version("int8");
  EXPECT_EQ(Read()->precision, "int8");
  Parameter("precision").set_string_param("int8");
  EXPECT_EQ(Read()->precision, "int8");
  Parameter("precision").set_string_param("fp32");
  EXPECT_EQ(
      Refusal(),
      "model version and parameter \"precision\" ask for different precisions: int8 and fp32");
  request_.set_model_version("3");
  EXPECT_EQ(Read()->precision, "fp32");
}

TEST_F(InferOptionsTest, ATimeoutIsInMicrosecondsAndZeroIsNone) {
  Parameter("timeout").set_int64_param(1500);
  EXPECT_EQ(Read()->timeout, microseconds(1500));
  Parameter("timeout").set_uint64_param(UINT64_MAX);
  EXPECT_GT(Read()->timeout, std::chrono::hours(24 * 365));
  Parameter("timeout").set_int64_param(0);
  EXPECT_EQ(Read()->timeout, Nanoseconds::max());
  Parameter("timeout").set_int64_param(-1);
  EXPECT_EQ(Refusal(), "parameter \"timeout\": expected at least 0, got -1");
  Parameter("timeout").set_double_param(0.5);
  EXPECT_EQ(Refusal(), "parameter \"timeout\": expected a whole number, got a fraction");
}

TEST_F(InferOptionsTest, PriorityComesSignedAndUnsigned) {
  EXPECT_EQ(Read()->priority, 0U);
  Parameter("priority").set_int64_param(1);
  EXPECT_EQ(Read()->priority, 1U);
  Parameter("priority").set_uint64_param(UINT64_MAX);
  EXPECT_EQ(Read()->priority, UINT64_MAX);
  Parameter("priority").set_int64_param(-1);
  EXPECT_EQ(Refusal(), "parameter \"priority\": expected at least 0, got -1");
}

TEST_F(InferOptionsTest, ARequestMayAskNotToBeCaptured) {
  Parameter("capture").set_bool_param(false);
  EXPECT_FALSE(Read()->capture);
  Parameter("capture").set_bool_param(true);
  EXPECT_TRUE(Read()->capture);
  Parameter("capture").set_string_param("no");
  EXPECT_EQ(Refusal(), "parameter \"capture\": expected a truth value, got text");
}

TEST_F(InferOptionsTest, TheStickyKeyIsWhereModelYamlSays) {
  Parameter("user").set_string_param("ada");
  metadata_.emplace("x-user", "bob");
  EXPECT_EQ(Read()->sticky_key, "");
  sticky_.metadata = "X-User";
  EXPECT_EQ(Read()->sticky_key, "bob");
  sticky_.parameter = "user";
  EXPECT_EQ(Read()->sticky_key, "ada");
  Parameter("user").set_int64_param(-7);
  EXPECT_EQ(Read()->sticky_key, "-7");
  Parameter("user").set_bool_param(true);
  EXPECT_EQ(Refusal(), "parameter \"user\": expected text or a whole number, got a truth value");
}

TEST_F(InferOptionsTest, KeysOfAnotherServerAreRefused) {
  Parameter("triton_enable_empty_final_response").set_bool_param(false);
  Parameter("something_of_the_clients").set_double_param(1);
  EXPECT_TRUE(Read().ok());
  Parameter("triton_final_response").set_bool_param(true);
  EXPECT_EQ(Refusal(), "parameter \"triton_final_response\" is not known here");
}

}  // namespace infer_options_test
}  // namespace octet
