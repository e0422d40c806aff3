#include "server/rpc/shared_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/rpc_test.h"
#include "tests/support/shared_object.h"

namespace octet {
namespace shared_memory_test {

using ::testing::HasSubstr;

TEST(SharedMemoryTest, NamesKeysAndBoundsAreChecked) {
  SharedMemory memory(1000);
  const SharedObject object(100);
  const auto code = [&](const std::string& name, const std::string& key, uint64_t offset,
                        uint64_t bytes) {
    return memory.Register(name, key, offset, bytes).code();
  };
  EXPECT_EQ(code("", object.key(), 0, 1), absl::StatusCode::kInvalidArgument);
  for (const std::string& key :
       std::vector<std::string>{"", "/", "//a", "/a/b", "..", "/.", "a/../b",
                                std::string("/a\0b", 4), std::string(300, 'a'), "/caf\xE9"}) {
    EXPECT_EQ(code("r", key, 0, 1), absl::StatusCode::kInvalidArgument) << key;
  }
  EXPECT_EQ(code(std::string(257, 'r'), object.key(), 0, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("caf\xE9", object.key(), 0, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("r", object.key() + "x", 0, 1), absl::StatusCode::kNotFound);
  EXPECT_EQ(code("r", object.key(), 0, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("r", object.key(), 0, 101), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("r", object.key(), 101, 1), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("r", object.key(), UINT64_MAX, 2), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("r", object.key(), 1, UINT64_MAX), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code("r", object.key(), 0, 100), absl::StatusCode::kOk);
  EXPECT_EQ(code("r", object.key(), 0, 100), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(code("s", object.key().substr(1), 99, 1), absl::StatusCode::kOk) << "without the slash";
  EXPECT_EQ(memory.All().size(), 2U);
  memory.Unregister("nobody");
  memory.Unregister("r");
  EXPECT_EQ(memory.Find("r").status().code(), absl::StatusCode::kNotFound);
  memory.Unregister("");
  EXPECT_TRUE(memory.All().empty());
}

TEST(SharedMemoryTest, AnObjectThatShrinksIsAnErrorAndDoesNotGrow) {
  SharedMemory memory(1000);
  const SharedObject object(100);
  ASSERT_TRUE(memory.Register("r", object.key(), 10, 90).ok());
  const auto region = *memory.Find("r");
  std::string bytes;
  EXPECT_TRUE(region->Write(5, "abc").ok());
  EXPECT_TRUE(region->Read(5, 3, bytes).ok());
  EXPECT_EQ(bytes, "abc");
  EXPECT_EQ(object.Read(15, 3), "abc");
  object.Resize(17);
  EXPECT_EQ(
      Message(region->Read(5, 3, bytes)),
      Format("cannot read shared memory \"r\": the object \"{}\" has become smaller than 100 bytes",
             object.key()));
  EXPECT_FALSE(region->Write(5, "abc").ok());
  EXPECT_EQ(object.Read(0, 100).size(), 17U);
  EXPECT_TRUE(region->Write(5, "ab").ok());
}

/// Over gRPC; the same over HTTP is http_server_test's.
class SharedInferenceTest : public RpcTest {
 protected:
  void SetUp() override {
    shared_memory_.emplace(1000);
    RpcTest::SetUp();
    ASSERT_TRUE(shared_memory_->Register("in", object_.key(), 0, 32).ok());
    ASSERT_TRUE(shared_memory_->Register("out", object_.key(), 32, 32).ok());
    object_.Write(16, std::as_bytes(std::span(row_)));
    (*request_.mutable_parameters())["precision"].set_string_param("fp32");
    request_.clear_raw_input_contents();
    Locate(*request_.mutable_inputs(0)->mutable_parameters(), "in", 16, 16);
    auto& output = *request_.add_outputs();
    output.set_name("y");
    Locate(*output.mutable_parameters(), "out", 4, 16);
  }
  static void Locate(TensorParameters& parameters, const std::string& region, int64_t offset,
                     int64_t bytes) {
    parameters["shared_memory_region"].set_string_param(region);
    parameters["shared_memory_offset"].set_int64_param(offset);
    parameters["shared_memory_byte_size"].set_int64_param(bytes);
  }
  TensorParameters& InputParameters() { return *request_.mutable_inputs(0)->mutable_parameters(); }
  TensorParameters& OutputParameters() {
    return *request_.mutable_outputs(0)->mutable_parameters();
  }
  std::string Refusal() {
    const grpc::Status status = Infer(request_);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    return status.error_message();
  }

  const SharedObject object_{64};
  const std::vector<float> row_ = {1, 2, 3, 4};
  Request request_ = Row();
};

TEST_F(SharedInferenceTest, TensorsGoThroughSharedMemoryAlone) {
  Response response;
  const grpc::Status status = Infer(request_, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(Floats(object_.Read(36, 16)), (std::vector<float>{2, 4, 6, 8}));
  ASSERT_EQ(response.raw_output_contents_size(), 1);
  EXPECT_TRUE(response.raw_output_contents(0).empty());
  const auto& parameters = response.outputs(0).parameters();
  EXPECT_EQ(parameters.at("shared_memory_region").string_param(), "out");
  EXPECT_EQ(parameters.at("shared_memory_byte_size").int64_param(), 16);
  EXPECT_EQ(parameters.at("shared_memory_offset").int64_param(), 4);
}

TEST_F(SharedInferenceTest, WhatDoesNotFitIsRefused) {
  InputParameters()["shared_memory_byte_size"].set_int64_param(12);
  EXPECT_THAT(Refusal(), HasSubstr("input \"x\": bytes, expected 16"));
  InputParameters()["shared_memory_byte_size"].set_int64_param(17);
  EXPECT_THAT(Refusal(),
              HasSubstr("shared memory \"in\" has 32 bytes, got offset 16 and byte_size 17"));
  InputParameters()["shared_memory_byte_size"].set_int64_param(-1);
  EXPECT_THAT(Refusal(), HasSubstr("at least 0"));
  InputParameters()["shared_memory_byte_size"].set_int64_param(INT64_MAX);
  EXPECT_THAT(Refusal(), HasSubstr("has 32 bytes"));
  InputParameters().erase("shared_memory_byte_size");
  EXPECT_THAT(Refusal(), HasSubstr("\"shared_memory_byte_size\" is missing"));
  InputParameters()["shared_memory_byte_size"].set_int64_param(16);
  request_.add_raw_input_contents("0123456789abcdef");
  EXPECT_THAT(Refusal(), HasSubstr("raw_input_contents: expected one per input (0), got 1"));
  request_.clear_raw_input_contents();
  request_.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  EXPECT_THAT(Refusal(), HasSubstr("both contents and shared memory"));
  request_.mutable_inputs(0)->clear_contents();
  OutputParameters()["shared_memory_byte_size"].set_int64_param(15);
  EXPECT_THAT(Refusal(),
              HasSubstr("output \"y\": shared_memory_byte_size, expected at least 16, got 15"));
  OutputParameters()["shared_memory_byte_size"].set_int64_param(16);
  OutputParameters()["shared_memory_region"].set_string_param("nobody");
  EXPECT_EQ(Infer(request_).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(SharedInferenceTest, AnObjectThatShrinksFailsItsRequestsAlone) {
  object_.Resize(8);
  EXPECT_THAT(Refusal(), HasSubstr("has become smaller"));
  InputParameters().clear();
  request_.add_raw_input_contents(row_.data(), 16);
  EXPECT_THAT(Refusal(), HasSubstr("cannot write shared memory \"out\""));
  EXPECT_TRUE(Infer(Row()).ok());
  object_.Resize(64);
  EXPECT_TRUE(Infer(request_).ok());
}

TEST_F(SharedInferenceTest, SharedInputsAreBoundedLikeMessages) {
  const SharedObject large(4000);
  ASSERT_TRUE(shared_memory_->Register("large", large.key(), 0, 4000).ok());
  Locate(InputParameters(), "large", 0, 1001);
  EXPECT_THAT(Refusal(), HasSubstr("at most 1000 bytes in a request"));
}

}  // namespace shared_memory_test
}  // namespace octet
