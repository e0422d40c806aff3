// ModelInfer through a server in this process.
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/bytes_elements.h"
#include "engine/tensor/status.h"
#include "server/rpc/grpc_status.h"
#include "tests/support/graph_builder.h"
#include "tests/support/rpc_test.h"

namespace octet {
namespace infer_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class InferTest : public RpcTest {
 protected:
  /// Asks for a precision, or none.
  static Request Asking(const std::string& precision) {
    Request request = Row();
    (*request.mutable_parameters())["precision"].set_string_param(precision);
    return request;
  }
  /// After whatever happened, the server answers.
  void ExpectServing() {
    const grpc::Status status = Infer(Row());
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  void ExpectRefused(const Request& request, grpc::StatusCode code, const std::string& text) {
    const grpc::Status status = Infer(request);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(text));
    ExpectServing();
  }
};

TEST_F(InferTest, AnswersInRawContentsAndSaysWhoAnswered) {
  Response response;
  const grpc::Status status = Infer(Row(), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.model_name(), "net");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_EQ(response.id(), "r1");
  EXPECT_EQ(response.parameters().at("precision").string_param(), "fp32");
  EXPECT_EQ(response.parameters().at("route").string_param(), "default");
  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).name(), "y");
  EXPECT_EQ(response.outputs(0).datatype(), "FP32");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(1, 4));
  EXPECT_FALSE(response.outputs(0).has_contents());
  ASSERT_EQ(response.raw_output_contents_size(), 1);
  EXPECT_THAT(Floats(response.raw_output_contents(0)), ElementsAre(2, 4, 6, 8));
}

TEST_F(InferTest, TypedContentsAreTakenAndAnsweredRaw) {
  Request request = Row();
  request.clear_raw_input_contents();
  for (const float x : {4, 3, 2, 1}) {
    request.mutable_inputs(0)->mutable_contents()->add_fp32_contents(x);
  }
  Response response;
  ASSERT_TRUE(Infer(request, &response).ok());
  EXPECT_THAT(Floats(response.raw_output_contents(0)), ElementsAre(8, 6, 4, 2));
}

TEST_F(InferTest, TheHighestVersionAnswersUnlessAsked) {
  auto second = std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 10.0F);
  repository_.Put(repository_.Make("net", 2, {{Precision::kFp32, second}}));
  Response response;
  ASSERT_TRUE(Infer(Row(), &response).ok());
  EXPECT_EQ(response.model_version(), "2");
  EXPECT_THAT(Floats(response.raw_output_contents(0)), ElementsAre(10, 20, 30, 40));
  Request request = Row();
  request.set_model_version("1");
  ASSERT_TRUE(Infer(request, &response).ok());
  EXPECT_EQ(response.model_version(), "1");
  request.set_model_version("3");
  ExpectRefused(request, grpc::StatusCode::NOT_FOUND, "Request for unknown model");
}

TEST_F(InferTest, ThePrecisionIsChosenByParameterThenMetadata) {
  Response response;
  ASSERT_TRUE(Infer(Asking("int8"), &response).ok());
  EXPECT_EQ(response.parameters().at("precision").string_param(), "int8");
  EXPECT_EQ(response.parameters().at("route").string_param(), "explicit");
  EXPECT_THAT(Floats(response.raw_output_contents(0)), ElementsAre(3, 6, 9, 12));
  auto context = Context();
  context->AddMetadata("x-octet-precision", "int8");
  ASSERT_TRUE(stub_->ModelInfer(context.get(), Row(), &response).ok());
  EXPECT_EQ(response.parameters().at("precision").string_param(), "int8");
  ExpectRefused(Asking("int4"), grpc::StatusCode::INVALID_ARGUMENT, "int4");
  ExpectRefused(Asking("bf16"), grpc::StatusCode::NOT_FOUND, "bf16");
}

TEST_F(InferTest, AStickyKeyAlwaysGetsTheSamePrecision) {
  ModelConfig::Routing routing;
  routing.split = {{Precision::kFp32, 1}, {Precision::kInt8, 1}};
  routing.sticky.parameter = "user";
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}, {Precision::kInt8, int8_}},
                                   {}, routing));
  std::map<std::string, int> answered;
  for (int user = 0; user < 32; ++user) {
    Request request = Row();
    (*request.mutable_parameters())["user"].set_int64_param(user);
    Response first;
    Response second;
    ASSERT_TRUE(Infer(request, &first).ok());
    ASSERT_TRUE(Infer(request, &second).ok());
    const std::string precision = first.parameters().at("precision").string_param();
    EXPECT_EQ(precision, second.parameters().at("precision").string_param());
    EXPECT_EQ(first.parameters().at("route").string_param(), "sticky");
    ++answered[precision];
  }
  EXPECT_EQ(answered.size(), 2U);
  std::map<std::string, int> drawn;
  for (int i = 0; i < 64; ++i) {
    Response response;
    ASSERT_TRUE(Infer(Row(), &response).ok());
    EXPECT_EQ(response.parameters().at("route").string_param(), "split");
    ++drawn[response.parameters().at("precision").string_param()];
  }
  EXPECT_EQ(drawn.size(), 2U) << "64 draws of one half all fell on one side";
}

TEST_F(InferTest, ANarrowerTypeIsConverted) {
  const WireMapping mapping = {.dtype = DType::kU8, .scale = {0.5F}, .zero_point = {1}};
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}}, {{"x", mapping}}));
  Request request = Row();
  request.mutable_inputs(0)->set_datatype("UINT8");
  request.set_raw_input_contents(0, std::string("\x01\x03\x05\xFF", 4));
  Response response;
  ASSERT_TRUE(Infer(request, &response).ok());
  EXPECT_THAT(Floats(response.raw_output_contents(0)), ElementsAre(0, 2, 4, 254));
}

TEST_F(InferTest, OnlyTheOutputsAskedForComeInThatOrder) {
  const auto two = std::make_shared<FakeModel>();
  two->mutable_signature().inputs.push_back({"u", DType::kF32, {kUnknownDim, 4}});
  two->mutable_signature().outputs.push_back({"v", DType::kF32, {kUnknownDim, 4}});
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, two}}));
  Request request = Row({1, 1, 1, 1});
  *request.add_inputs() = request.inputs(0);
  request.mutable_inputs(1)->set_name("u");
  request.add_raw_input_contents(Row({5, 5, 5, 5}).raw_input_contents(0));
  request.add_outputs()->set_name("v");
  Response response;
  ASSERT_TRUE(Infer(request, &response).ok());
  ASSERT_EQ(response.outputs_size(), 1);
  EXPECT_EQ(response.outputs(0).name(), "v");
  EXPECT_THAT(Floats(response.raw_output_contents(0)), ElementsAre(10, 10, 10, 10));
  request.add_outputs()->set_name("y");
  ASSERT_TRUE(Infer(request, &response).ok());
  ASSERT_EQ(response.raw_output_contents_size(), 2);
  EXPECT_EQ(response.outputs(1).name(), "y");
  EXPECT_THAT(Floats(response.raw_output_contents(1)), ElementsAre(2, 2, 2, 2));
  request.add_outputs()->set_name("v");
  const grpc::Status twice = Infer(request);
  EXPECT_EQ(twice.error_message(), "output \"v\" is asked for twice");
  request.mutable_outputs(2)->set_name("w");
  const grpc::Status unknown = Infer(request);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(unknown.error_message(), "unknown output \"w\", expected \"y\", \"v\"");
}

TEST_F(InferTest, ClassificationAnswersWithTheBestClasses) {
  Request request = Row({1, 4, 2, 3});
  auto& output = *request.add_outputs();
  output.set_name("y");
  (*output.mutable_parameters())["classification"].set_int64_param(2);
  Response response;
  const grpc::Status status = Infer(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(1, 2));
  EXPECT_EQ(response.raw_output_contents(0), std::string("\3\0\0\0"
                                                         "8:1"
                                                         "\3\0\0\0"
                                                         "6:3",
                                                         14));
  auto labelled = repository_.Make("net", 1, {{Precision::kFp32, fp32_}});
  labelled->labels = {"a", "b", "c"};
  repository_.Put(labelled);
  ASSERT_TRUE(Infer(request, &response).ok());
  EXPECT_EQ(response.raw_output_contents(0), std::string("\5\0\0\0"
                                                         "8:1:b"
                                                         "\3\0\0\0"
                                                         "6:3",
                                                         16));
  (*output.mutable_parameters())["classification"].set_int64_param(0);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "classification");
}

TEST_F(InferTest, SharedMemoryIsRefusedByName) {
  Request request = Row();
  auto& output = *request.add_outputs();
  output.set_name("y");
  (*output.mutable_parameters())["shared_memory_region"].set_string_param("r");
  ExpectRefused(request, grpc::StatusCode::UNIMPLEMENTED, "shared memory is not supported");
  request = Row();
  request.clear_raw_input_contents();
  (*request.mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("r");
  ExpectRefused(request, grpc::StatusCode::UNIMPLEMENTED, "shared memory is not supported");
}

TEST_F(InferTest, BadInputIsNamedAndTheServerGoesOn) {
  Request request = Row();
  request.set_model_name("nets");
  const grpc::Status unknown = Infer(request);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(unknown.error_message(), StartsWith("Request for unknown model"));
  request = Row();
  request.mutable_inputs(0)->set_name("X");
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "unknown input \"X\"");
  request = Row({1, 2, 3});
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "input \"x\": shape");
  request = Row();
  request.mutable_raw_input_contents(0)->pop_back();
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "bytes, expected 16");
  request = Row();
  (*request.mutable_parameters())["triton_x"].set_bool_param(true);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "triton_x");
  repository_.Break("broken", "model \"broken\": not an ONNX file");
  request = Row();
  request.set_model_name("broken");
  ExpectRefused(request, grpc::StatusCode::UNAVAILABLE, "not an ONNX file");
  const auto& unrouted = metrics_.server().unrouted;
  EXPECT_EQ(unrouted.value(static_cast<size_t>(grpc::StatusCode::NOT_FOUND)), 1U);
  EXPECT_EQ(unrouted.value(static_cast<size_t>(grpc::StatusCode::INVALID_ARGUMENT)), 4U);
  EXPECT_EQ(unrouted.value(static_cast<size_t>(grpc::StatusCode::UNAVAILABLE)), 1U);
}

TEST_F(InferTest, ALongNameIsCutInTheMessage) {
  Request request = Row();
  std::string name;
  while (name.size() < 100'000) name += "\u00e9";
  request.set_model_name(name);
  const grpc::Status status = Infer(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_LE(status.error_message().size(), kMaxStatusMessageBytes + 3);
  EXPECT_THAT(status.error_message(), ::testing::EndsWith("\u00e9..."));
}

TEST_F(InferTest, AnOversizedMessageIsRefusedByGrpcAndTheServerGoesOn) {
  options_.max_message_bytes = 4096;
  StartServer();
  Request request = Row();
  request.set_id(std::string(5000, 'x'));
  EXPECT_EQ(Infer(request).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  ExpectServing();
}

TEST_F(InferTest, ACompressedMessageIsUnpackedWithinTheBound) {
  options_.max_message_bytes = 100'000;
  StartServer();
  for (const auto algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    const auto infer = [&](size_t id_bytes) {
      Request request = Row();
      request.set_id(std::string(id_bytes, 'x'));
      Response response;
      const auto context = Context();
      context->set_compression_algorithm(algorithm);
      const grpc::Status status = stub_->ModelInfer(context.get(), request, &response);
      EXPECT_EQ(response.id(), status.ok() ? request.id() : "");
      return status;
    };
    for (const size_t size : {1000, 4000, 16'000, 90'000}) {
      const grpc::Status status = infer(size);
      EXPECT_TRUE(status.ok()) << size << status.error_message();
    }
    for (const size_t size : {100'000, 5'000'000}) {
      const grpc::Status status = infer(size);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
      EXPECT_THAT(status.error_message(),
                  HasSubstr("the message is too large: expected at most 100000 bytes"));
    }
    ExpectServing();
  }
}

TEST_F(InferTest, WhatWaitsCountsWithAllThatItKeeps) {
  repository_.max_queue_bytes = 1'000'000;
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}}));
  const auto running = Block();
  Request request = Row();
  request.set_id(std::string(700'000, 'x'));
  const auto waiting = Start(request);
  while (dispatcher_.queued() == 0) std::this_thread::yield();
  const grpc::Status status = Infer(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("bytes"));
  Release();
  running->done.WaitForNotification();
  waiting->done.WaitForNotification();
  EXPECT_TRUE(waiting->status.ok()) << waiting->status.error_message();
}

TEST_F(InferTest, AnErrorOfTheRunIsTheAnswer) {
  fp32_->before_run = [] { return absl::InternalError("kernel said no"); };
  const grpc::Status status = Infer(Row());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(status.error_message(), HasSubstr("kernel said no"));
}

TEST_F(InferTest, ATimeoutThatPassesInTheQueueIsADeadlineExceeded) {
  const auto blocked = Block();
  Request request = Row();
  (*request.mutable_parameters())["timeout"].set_int64_param(1);
  const auto late = Start(request);
  Release();
  late->done.WaitForNotification();
  EXPECT_EQ(late->status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  blocked->done.WaitForNotification();
  EXPECT_TRUE(blocked->status.ok());
  EXPECT_EQ(fp32_->runs().size(), 1U);
}

TEST_F(InferTest, APriorityIsALevelOfTheModelOrItsDefault) {
  // One request a run, told apart by its columns.
  fp32_ = std::make_shared<FakeModel>(Shape{1, kUnknownDim});
  repository_.levels = {.count = 3, .default_level = 2};
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}}));
  const auto blocked = Block();
  std::vector<std::unique_ptr<Blocked>> calls;
  for (const uint64_t priority : std::vector<uint64_t>{3, 99999, 0, 1, 2}) {
    Request request = Row(std::vector<float>(calls.size() + 11, 1));
    if (priority > 0) (*request.mutable_parameters())["priority"].set_uint64_param(priority);
    calls.push_back(Start(request));
    while (dispatcher_.queued() < calls.size()) std::this_thread::yield();
  }
  Release();
  for (const auto& call : calls) {
    call->done.WaitForNotification();
    EXPECT_TRUE(call->status.ok()) << call->status.error_message();
  }
  blocked->done.WaitForNotification();
  std::vector<int64_t> columns;
  for (const Shape& shape : fp32_->runs()) columns.push_back(shape[1]);
  EXPECT_THAT(columns, ElementsAre(4, 14, 12, 13, 15, 11));
}

TEST_F(InferTest, AFullQueueRefusesAndACancelledRequestMakesRoom) {
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}}, {}, {}, 1));
  const auto running = Block();
  const auto waiting = Start(Row());
  while (dispatcher_.queued() == 0) std::this_thread::yield();
  const grpc::Status status = Infer(Row());
  ASSERT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("at most 1 requests wait: net/1/fp32"));
  waiting->context->TryCancel();
  // Once the server has heard, the next one is taken in, and waits beyond its deadline.
  const auto late = StartInPlaceOf(Row(), std::chrono::seconds(1));
  late->done.WaitForNotification();
  EXPECT_EQ(late->status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  // The client's clock ends first: another is refused until the server's has ended too.
  const auto next = StartInPlaceOf(Row());
  Release();
  running->done.WaitForNotification();
  waiting->done.WaitForNotification();
  next->done.WaitForNotification();
  EXPECT_TRUE(running->status.ok());
  EXPECT_TRUE(next->status.ok()) << next->status.error_message();
  EXPECT_EQ(waiting->status.error_code(), grpc::StatusCode::CANCELLED);
  server_.reset();
  EXPECT_EQ(fp32_->runs().size(), 2U) << "what nobody waits for is not computed";
}

TEST_F(InferTest, ManyClientsEachGetTheirOwnAnswer) {
  std::vector<std::unique_ptr<Blocked>> calls;
  for (int i = 0; i < 64; ++i) {
    const auto x = static_cast<float>(i);
    calls.push_back(Start(Row({x, x, x, x})));
  }
  for (int i = 0; i < 64; ++i) {
    calls[i]->done.WaitForNotification();
    ASSERT_TRUE(calls[i]->status.ok()) << calls[i]->status.error_message();
    EXPECT_EQ(Floats(calls[i]->response.raw_output_contents(0))[3], 2.0F * static_cast<float>(i));
  }
}

TEST_F(InferTest, AnExtentThatFollowsFromTheDataIsTheAnswers) {
  auto selecting = std::make_shared<FakeModel>(Shape{1, 4}, 2.0F);
  selecting->selects = true;
  selecting->mutable_signature().outputs[0].shape = {kUnknownDim};
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, selecting}}));
  Response response;
  for (const std::vector<float>& values :
       {std::vector<float>{1, -2, 3, -4}, {-1, -2, -3, -4}, {5, 6, 7, 8}}) {
    std::vector<float> expected;
    for (const float value : values) {
      if (value > 0) expected.push_back(2 * value);
    }
    const grpc::Status status = Infer(Row(values), &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_THAT(response.outputs(0).shape(), ElementsAre(expected.size()));
    EXPECT_EQ(Floats(response.raw_output_contents(0)), expected);
  }
  // What one request's data cause is that request's alone.
  selecting->before_run = [] { return InvalidArgument("index out of range"); };
  EXPECT_EQ(Infer(Row()).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  selecting->before_run = nullptr;
  EXPECT_TRUE(Infer(Row()).ok());
}

/// Model "words": each element twice, one behind the other; its own answer, and the input as it came.
class InferStringsTest : public RpcTest {
 protected:
  void SetUp() override {
    RpcTest::SetUp();
    GraphBuilder b(20);
    const ValueId x = b.Input("x", {kUnknownDim}, DType::kString);
    b.Output(b.Op("StringConcat", {x, x}), "doubled");
    b.Output(b.Op("Identity", {x}), "same");
    const auto model = Model::FromGraph(b.Build(), {});
    ASSERT_TRUE(model.ok()) << model.status();
    repository_.Put(repository_.Make("words", 1, {{Precision::kFp32, *model}}));
  }
  static Request Words(const std::vector<std::string>& words) {
    Request request;
    request.set_model_name("words");
    auto& input = *request.add_inputs();
    input.set_name("x");
    input.set_datatype("BYTES");
    input.add_shape(std::ssize(words));
    std::string& wire = *request.add_raw_input_contents();
    for (const std::string& word : words) AppendBytesElement(word, wire);
    return request;
  }
  static std::vector<std::string> Elements(const std::string& wire) {
    std::vector<std::string_view> elements;
    EXPECT_TRUE(ReadBytesElements(wire, 1000, elements).ok());
    return {elements.begin(), elements.end()};
  }
};

TEST_F(InferStringsTest, AreAnsweredInRawContents) {
  Response response;
  const grpc::Status status = Infer(Words({"ab", "", "\xff"}), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(3));
  EXPECT_THAT(Elements(response.raw_output_contents(0)), ElementsAre("abab", "", "\xff\xff"));
  EXPECT_THAT(Elements(response.raw_output_contents(1)), ElementsAre("ab", "", "\xff"));
}

TEST_F(InferStringsTest, OutputsThatAreNotAskedForAreLeftOut) {
  Request request = Words({"a"});
  request.add_outputs()->set_name("same");
  Response response;
  const grpc::Status status = Infer(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.raw_output_contents_size(), 1);
  EXPECT_THAT(Elements(response.raw_output_contents(0)), ElementsAre("a"));
}

TEST_F(InferStringsTest, HaveNoClasses) {
  Request request = Words({"a"});
  auto& output = *request.add_outputs();
  output.set_name("same");
  (*output.mutable_parameters())["classification"].set_int64_param(2);
  const grpc::Status status = Infer(request);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(),
            "output \"same\": classification, expected an output of numbers, got BYTES");
}

TEST_F(InferStringsTest, AreDescribedAsBytesAndDoNotBatch) {
  inference::ModelMetadataRequest request;
  request.set_name("words");
  inference::ModelMetadataResponse metadata;
  ASSERT_TRUE(stub_->ModelMetadata(Context().get(), request, &metadata).ok());
  EXPECT_EQ(metadata.inputs(0).datatype(), "BYTES");
  EXPECT_EQ(metadata.outputs(0).datatype(), "BYTES");
  inference::ModelConfigRequest config_request;
  config_request.set_name("words");
  inference::ModelConfigResponse config;
  ASSERT_TRUE(stub_->ModelConfig(Context().get(), config_request, &config).ok());
  EXPECT_EQ(config.config().input(0).data_type(), inference::TYPE_STRING);
  EXPECT_EQ(config.config().max_batch_size(), 0);
}

}  // namespace infer_test
}  // namespace octet
