#include "server/rpc/grpc_inference.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/rpc/response_writer.h"

namespace octet {
namespace grpc_inference_test {

using ::testing::SizeIs;

constexpr size_t kMost = size_t{64} << 20;

/// A message that was received in pieces that end at the given places.
grpc::ByteBuffer Received(const std::string& bytes, std::vector<size_t> ends) {
  ends.push_back(bytes.size());
  std::vector<grpc::Slice> slices;
  size_t begin = 0;
  for (const size_t end : ends) {
    slices.emplace_back(bytes.data() + begin, end - begin);
    begin = end;
  }
  return {slices.data(), slices.size()};
}

std::string Text(const WireBytes& bytes) {
  std::string text(bytes.size(), '\0');
  bytes.CopyTo(text.data());
  return text;
}

std::string Text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string text;
  for (const grpc::Slice& slice : slices) text.append(slice.begin(), slice.end());
  return text;
}

inference::ModelInferRequest SmallRequest() {
  inference::ModelInferRequest request;
  request.set_model_name("net");
  request.set_id("r1");
  (*request.mutable_parameters())["priority"].set_int64_param(3);
  request.add_inputs()->set_name("x");
  request.add_inputs()->set_name("y");
  request.add_inputs()->set_name("z");
  request.add_raw_input_contents("0123456789abcdef");
  request.add_raw_input_contents("");
  request.add_raw_input_contents(std::string(300, 'z'));
  return request;
}

TEST(ReadInferRequestTest, ReadsWhatProtobufReadsWhereverTheMessageIsCut) {
  const inference::ModelInferRequest request = SmallRequest();
  inference::ModelInferRequest rest = request;
  rest.clear_raw_input_contents();
  const std::string bytes = request.SerializeAsString();
  for (size_t first = 0; first <= bytes.size(); ++first) {
    for (const size_t second : {first, std::min(first + 1, bytes.size()), bytes.size()}) {
      GrpcInference call;
      ASSERT_TRUE(ReadInferRequest(Received(bytes, {first, second}), kMost, call).ok()) << first;
      EXPECT_EQ(call.request.SerializeAsString(), rest.SerializeAsString()) << first;
      ASSERT_THAT(call.raw_contents, SizeIs(3));
      for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(Text(call.raw_contents[static_cast<size_t>(i)]), request.raw_input_contents(i))
            << first;
      }
    }
  }
}

TEST(ReadInferRequestTest, TensorsStayWhereTheyWereReceived) {
  const std::string bytes = SmallRequest().SerializeAsString();
  GrpcInference call;
  ASSERT_TRUE(ReadInferRequest(Received(bytes, {bytes.size() - 100}), kMost, call).ok());
  const auto is_received = [&](std::string_view piece) {
    return std::ranges::any_of(call.received, [&](const grpc::Slice& slice) {
      const auto* begin = reinterpret_cast<const char*>(slice.begin());
      return piece.data() >= begin && piece.data() + piece.size() <= begin + slice.size();
    });
  };
  EXPECT_EQ(call.bytes, bytes.size());
  EXPECT_FALSE(call.raw_contents[0].in_pieces());
  EXPECT_TRUE(is_received(call.raw_contents[0].whole()));
  ASSERT_TRUE(call.raw_contents[2].in_pieces());
  ASSERT_THAT(call.raw_contents[2].pieces(), SizeIs(2));
  for (const std::string_view piece : call.raw_contents[2].pieces()) {
    EXPECT_TRUE(is_received(piece));
  }
}

TEST(ReadInferRequestTest, FieldsMayComeInAnyOrderAndUnknownOnesToo) {
  inference::ModelInferRequest first;
  first.add_raw_input_contents("tensor");
  inference::ModelInferRequest second;
  second.set_model_name("net");
  second.add_inputs();
  second.add_inputs();
  std::string bytes = first.SerializeAsString() + second.SerializeAsString();
  bytes += std::string("\xf8\x06\x01", 3);              // field 111, a number
  bytes += std::string("\xfb\x06\x08\x01\xfc\x06", 6);  // field 111, a group
  bytes += first.SerializeAsString();
  GrpcInference call;
  ASSERT_TRUE(ReadInferRequest(Received(bytes, {}), kMost, call).ok());
  EXPECT_EQ(call.request.model_name(), "net");
  EXPECT_THAT(call.raw_contents, SizeIs(2));
}

TEST(ReadInferRequestTest, NothingIsARequestWithoutAnything) {
  GrpcInference call;
  EXPECT_TRUE(ReadInferRequest(grpc::ByteBuffer(), kMost, call).ok());
  GrpcInference empty;
  EXPECT_TRUE(ReadInferRequest(Received("", {}), kMost, empty).ok());
  EXPECT_THAT(empty.raw_contents, SizeIs(0));
}

TEST(ReadInferRequestTest, RefusesWhatIsNoRequest) {
  const std::string good = SmallRequest().SerializeAsString();
  const std::vector<std::string> bad = {
      good.substr(0, good.size() - 1),             // a tensor that ends early
      good.substr(0, 3),                           // a name that does
      std::string("\x3a\xff\xff\xff\xff\x7f", 6),  // a tensor longer than any message
      std::string("\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12),
      std::string("\x0a\x02\xff\xfe", 4),  // a name that is no UTF-8
      std::string("\x00\x01", 2),          // field 0
      std::string("\x3c", 1),              // the end of a group
      std::string("\x0f", 1),              // wire type 7
  };
  for (const std::string& bytes : bad) {
    GrpcInference call;
    const absl::Status status = ReadInferRequest(Received(bytes, {bytes.size() / 2}), kMost, call);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bytes;
    EXPECT_EQ(call.request.ByteSizeLong(), 0U) << "what was half read may be no UTF-8";
    EXPECT_THAT(call.raw_contents, SizeIs(0));
  }
}

TEST(ReadInferRequestTest, RefusesMoreTensorsThanInputsBeforeItMakesRoomForThem) {
  std::string bytes = SmallRequest().SerializeAsString();
  for (int i = 0; i < 1000; ++i) bytes += std::string("\x3a\x00", 2);
  GrpcInference call;
  EXPECT_EQ(ReadInferRequest(Received(bytes, {}), kMost, call),
            absl::InvalidArgumentError("raw_input_contents: expected one per input (3), got 1003"));
  EXPECT_EQ(call.raw_contents.capacity(), 0U);
}

TEST(ReadInferRequestTest, RefusesMoreTensorsThanAnybodySendsBeforeItMakesThem) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {std::string("\x2a\x00", 2), "inputs: expected at most 1024, got more"},
      {std::string("\x32\x00", 2), "outputs: expected at most 1024, got more"},
      {std::string("\x22\x00", 2), "parameters: expected at most 256, got more"},
  };
  for (const auto& [field, message] : cases) {
    std::string bytes = SmallRequest().SerializeAsString();
    for (int i = 0; i < 2000; ++i) bytes += field;
    GrpcInference call;
    EXPECT_EQ(ReadInferRequest(Received(bytes, {}), kMost, call),
              absl::InvalidArgumentError(message));
    EXPECT_EQ(call.request.SpaceUsedLong(), inference::ModelInferRequest().SpaceUsedLong());
  }
}

std::string Field(int number, const std::string& bytes) {
  std::string field(1, static_cast<char>(number << 3 | 2));
  for (size_t size = bytes.size(); true; size >>= 7) {
    field += static_cast<char>(size < 128 ? size : (size & 127) | 128);
    if (size < 128) return field + bytes;
  }
}

std::string Times(int count, const std::string& bytes) {
  std::string all;
  for (int i = 0; i < count; ++i) all += bytes;
  return all;
}

/// Whatever takes many times its bytes once protobuf has made something of it.
TEST(ReadInferRequestTest, RefusesWhatTakesFarMoreThanItsBytesBeforeItIsMade) {
  const std::string parameter = Field(4, Field(1, "k"));
  const std::string unknown("\x78\x01", 2);
  const std::string many = "parameters: expected at most 256, got more";
  const std::string extents = "shape: expected at most 64 extents, got more";
  const std::string nobodys = "unknown fields: expected at most 256, got more";
  const std::string name = Field(1, std::string(1024, 'n'));  // What is small is not looked into.
  const std::vector<std::pair<std::string, std::string>> cases = {
      {Field(5, Field(5, Times(1 << 21, Field(8, "")))),
       "bytes_contents: expected at most 1398101 elements, got more"},
      {Field(5, Times(300, parameter)), many},
      {Field(6, Times(300, Field(2, Field(1, "k")))), many},
      {Field(5, name + Field(3, Times(65, "\x01"))), extents},
      {Field(5, name + Times(65, "\x18\x01")), extents},
      {Field(5, name + Times(257, unknown)), nobodys},
      {Field(5, name + Field(4, Field(2, Times(257, unknown)))), nobodys},
      {Field(4, Field(2, Times(600, unknown))), nobodys},
      {Field(5, name + Field(5, Times(257, "\x30\x01"))), nobodys},  // a real as a whole number
      {Field(5, name + "\x7b\x7c"), "the message is not a ModelInferRequest"},  // a group
  };
  for (const auto& [bytes, message] : cases) {
    GrpcInference call;
    EXPECT_EQ(ReadInferRequest(Received(bytes, {bytes.size() / 2}), kMost, call),
              absl::InvalidArgumentError(message));
    EXPECT_EQ(call.request.SpaceUsedLong(), inference::ModelInferRequest().SpaceUsedLong());
  }
}

TEST(ReadInferRequestTest, TakesAsManyAsARequestMayHave) {
  std::string input = Field(3, Times(32, "\x01")) + Times(32, "\x18\x01");
  for (int i = 0; i < 256; ++i) {
    input += Field(4, Field(1, std::to_string(i)) + Field(2, Field(3, "text")));
  }
  input += Times(250, std::string("\x78\x01", 2));
  // Packed or one by one.
  input += Field(5, Field(6, std::string(8, 'r')) +
                        Times(2,
                              "\x35"
                              "real") +
                        Field(2, "\x07") + "\x10\x08" + Times(3, Field(8, "text")));
  const std::string bytes = Field(5, input);
  inference::ModelInferRequest expected;
  ASSERT_TRUE(expected.ParseFromString(bytes));
  GrpcInference call;
  ASSERT_TRUE(ReadInferRequest(Received(bytes, {10, 2000}), kMost, call).ok());
  EXPECT_EQ(call.request.inputs(0).shape_size(), 64);
  EXPECT_EQ(call.request.inputs(0).parameters_size(), 256);
  EXPECT_EQ(call.request.inputs(0).contents().fp32_contents_size(), 4);
  EXPECT_EQ(call.request.inputs(0).contents().bytes_contents_size(), 3);
  EXPECT_EQ(call.request.DebugString(), expected.DebugString());
  EXPECT_EQ(call.bytes, 0U) << "all of it is in the message";
  EXPECT_THAT(call.received, SizeIs(0));
}

TEST(ReadInferRequestTest, FieldsOfTheRequestThatNobodyKnowsTakeNothing) {
  const std::string bytes = Times(100'000, std::string("\x78\x01", 2));
  GrpcInference call;
  ASSERT_TRUE(ReadInferRequest(Received(bytes, {}), kMost, call).ok());
  EXPECT_EQ(call.request.SpaceUsedLong(), inference::ModelInferRequest().SpaceUsedLong());
}

TEST(ReadInferRequestTest, RefusesALongerMessage) {
  const std::string bytes = SmallRequest().SerializeAsString();
  GrpcInference call;
  EXPECT_TRUE(ReadInferRequest(Received(bytes, {7}), bytes.size(), call).ok());
  GrpcInference longer;
  EXPECT_EQ(ReadInferRequest(Received(bytes, {7}), bytes.size() - 1, longer).code(),
            absl::StatusCode::kResourceExhausted);
}

std::shared_ptr<GrpcInference> Answered(size_t bytes) {
  auto call = std::make_shared<GrpcInference>();
  call->response.set_model_name("net");
  call->response.set_id("r1");
  for (const size_t size : {bytes, size_t{0}, size_t{5}, bytes}) {
    call->response.add_outputs()->set_name("y");
    call->response.add_raw_output_contents(std::string(size, 'q'));
  }
  return call;
}

TEST(WriteInferResponseTest, WritesWhatProtobufReads) {
  for (const size_t bytes : {size_t{1}, kLeastShared - 1, kLeastShared, size_t{200'000}}) {
    const auto call = Answered(bytes);
    const inference::ModelInferResponse expected = call->response;
    const auto written = WriteInferResponse(call);
    ASSERT_TRUE(written.ok()) << written.status();
    inference::ModelInferResponse response;
    ASSERT_TRUE(response.ParseFromString(Text(*written)));
    EXPECT_EQ(response.SerializeAsString(), expected.SerializeAsString());
  }
}

TEST(WriteInferResponseTest, LargeTensorsAreSentFromWhereTheyAre) {
  auto call = Answered(kLeastShared);
  const std::weak_ptr<GrpcInference> kept = call;
  const char* tensor = call->response.raw_output_contents(3).data();
  {
    const auto written = WriteInferResponse(call);
    ASSERT_TRUE(written.ok()) << written.status();
    call.reset();
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(written->Dump(&slices).ok());
    EXPECT_TRUE(std::ranges::any_of(slices, [&](const grpc::Slice& slice) {
      return reinterpret_cast<const char*>(slice.begin()) == tensor && slice.size() == kLeastShared;
    }));
    EXPECT_FALSE(kept.expired());
  }
  EXPECT_TRUE(kept.expired()) << "gRPC has let go of it";
}

TEST(WriteStreamResponseTest, WritesWhatProtobufReads) {
  for (const size_t bytes : {size_t{1}, size_t{200'000}}) {
    const auto call = Answered(bytes);
    inference::ModelInferResponse expected = call->response;
    (*expected.mutable_parameters())["triton_final_response"].set_bool_param(true);
    const auto written = WriteStreamResponse(call);
    ASSERT_TRUE(written.ok()) << written.status();
    inference::ModelStreamInferResponse response;
    ASSERT_TRUE(response.ParseFromString(Text(*written)));
    EXPECT_EQ(response.infer_response().SerializeAsString(), expected.SerializeAsString());
    EXPECT_EQ(response.error_message(), "");
  }
}

TEST(WriteStreamErrorTest, NamesTheRequest) {
  inference::ModelStreamInferResponse response;
  ASSERT_TRUE(response.ParseFromString(Text(WriteStreamError("r1", "no such model"))));
  EXPECT_EQ(response.error_message(), "no such model");
  EXPECT_EQ(response.infer_response().id(), "r1");
  EXPECT_TRUE(response.infer_response().parameters().at("triton_final_response").bool_param());
}

}  // namespace grpc_inference_test
}  // namespace octet
