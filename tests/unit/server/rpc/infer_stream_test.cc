#include "server/rpc/infer_stream.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/rpc_test.h"

namespace octet {
namespace infer_stream_test {

using ::testing::HasSubstr;

class InferStreamTest : public RpcTest {
 protected:
  static Request Numbered(int i) {
    const auto x = static_cast<float>(i);
    Request request = Row({x, x, x, x});
    request.set_id(std::to_string(i));
    return request;
  }
  static bool IsFinal(const inference::ModelStreamInferResponse& response) {
    const auto& parameters = response.infer_response().parameters();
    const auto final = parameters.find("triton_final_response");
    return final != parameters.end() && final->second.bool_param();
  }
  static float First(const inference::ModelStreamInferResponse& response) {
    return Floats(response.infer_response().raw_output_contents(0))[0];
  }
};

TEST_F(InferStreamTest, OneTooManyIsRefused) {
  options_.max_long_calls = 1;
  StartServer();
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  inference::ModelStreamInferResponse response;
  ASSERT_TRUE(stream->Write(Numbered(1)));
  ASSERT_TRUE(stream->Read(&response));
  const auto other = Context();
  const grpc::Status refused = stub_->ModelStreamInfer(other.get())->Finish();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(refused.error_message(), "too many such calls are open on this server, at most 1");
  ASSERT_TRUE(stream->Write(Numbered(2)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(First(response), 4);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(InferStreamTest, AnswersInTheOrderOfTheRequests) {
  // Far more than are under way together, to two variants that take turns.
  constexpr int kCount = 10 * static_cast<int>(InferStream::kWindow);
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  std::jthread writer([&] {
    for (int i = 0; i < kCount; ++i) {
      Request request = Numbered(i);
      if (i % 2 == 1) (*request.mutable_parameters())["precision"].set_string_param("int8");
      ASSERT_TRUE(stream->Write(request));
    }
    stream->WritesDone();
  });
  inference::ModelStreamInferResponse response;
  for (int i = 0; i < kCount; ++i) {
    ASSERT_TRUE(stream->Read(&response)) << i;
    EXPECT_EQ(response.error_message(), "");
    EXPECT_EQ(response.infer_response().id(), std::to_string(i));
    EXPECT_EQ(First(response), static_cast<float>(i % 2 == 1 ? 3 * i : 2 * i));
    EXPECT_TRUE(IsFinal(response));
  }
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(InferStreamTest, AnErrorIsAnAnswerAndTheStreamStaysOpen) {
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  Request bad = Numbered(1);
  bad.mutable_inputs(0)->set_name("z");
  ASSERT_TRUE(stream->Write(bad));
  inference::ModelStreamInferResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_THAT(response.error_message(), HasSubstr("unknown input \"z\""));
  EXPECT_EQ(response.infer_response().id(), "1");
  EXPECT_TRUE(IsFinal(response)) << "Triton's clients wait for it";
  ASSERT_TRUE(stream->Write(Numbered(2)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.error_message(), "");
  EXPECT_EQ(First(response), 4.0F);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

/// A message that protobuf cannot read would end the stream, and with it all requests that are under way.
TEST_F(InferStreamTest, AnErrorThatNamesWhatIsNoUtf8IsAnAnswer) {
  fp32_->before_run = [first = true]() mutable {
    return std::exchange(first, false) ? absl::InvalidArgumentError("no number: 'caf\xE9'")
                                       : absl::OkStatus();
  };
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  inference::ModelStreamInferResponse response;
  ASSERT_TRUE(stream->Write(Numbered(1)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_THAT(response.error_message(), HasSubstr("no number: 'caf\uFFFD'"));
  ASSERT_TRUE(stream->Write(Numbered(2)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(First(response), 4.0F);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(InferStreamTest, WhatCannotBeReadCountsAsItDoesAlone) {
  Request bad = Row();
  bad.clear_inputs();  // Contents of inputs that nobody names.
  const auto invalid = static_cast<size_t>(grpc::StatusCode::INVALID_ARGUMENT);
  const auto& unrouted = metrics_.server().unrouted;
  EXPECT_EQ(Infer(bad).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(unrouted.value(invalid), 1U);
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  ASSERT_TRUE(stream->Write(bad));
  inference::ModelStreamInferResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_THAT(response.error_message(), HasSubstr("raw_input_contents: expected one per input"));
  EXPECT_EQ(unrouted.value(invalid), 2U);
  const CountingObserver& of_model = *repository_.observer();
  EXPECT_EQ(of_model.queued, 0);
  EXPECT_EQ(of_model.finished, 0);
  ASSERT_TRUE(stream->Write(Numbered(2)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.error_message(), "");
  EXPECT_EQ(of_model.finished, 1);
  EXPECT_EQ(unrouted.value(invalid), 2U);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(InferStreamTest, AClientThatReadsNothingIsReadNoFurther) {
  // Of 16 MB, and answers of as many: four are held, and gRPC and the sockets take some themselves.
  constexpr size_t kColumns = size_t{1} << 22;
  constexpr int kCount = 20;
  const auto wide = std::make_shared<FakeModel>(Shape{kUnknownDim, kColumns}, 2.0F);
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, wide}}));
  const auto context = Context(std::chrono::minutes(2));
  const auto stream = stub_->ModelStreamInfer(context.get());
  std::atomic<int> written = 0;
  std::jthread writer([&] {
    const Request request = Row(std::vector<float>(kColumns, 1));
    while (written < kCount && stream->Write(request)) ++written;
    stream->WritesDone();
  });
  // Until nothing has been taken for a while, of what is taken in any case.
  for (int before = -1; before != written || written < 4;) {
    before = written;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
  EXPECT_LT(written, static_cast<int>(InferStream::kWindow) - 4);
  inference::ModelStreamInferResponse response;
  int read = 0;
  while (stream->Read(&response)) ++read;
  EXPECT_EQ(read, kCount) << "none is lost";
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(InferStreamTest, CompressedRequestsAreHeldUnpacked) {
  // As above: zeros that are a few kilobytes on the wire.
  constexpr size_t kColumns = size_t{1} << 22;
  constexpr int kCount = 20;
  const auto wide = std::make_shared<FakeModel>(Shape{kUnknownDim, kColumns}, 2.0F);
  wide->before_run = [this] {
    released_.WaitForNotification();
    return absl::OkStatus();
  };
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, wide}}));
  const auto context = Context(std::chrono::minutes(2));
  context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
  const auto stream = stub_->ModelStreamInfer(context.get());
  std::jthread writer([&] {
    const Request request = Row(std::vector<float>(kColumns, 0));
    for (int i = 0; i < kCount && stream->Write(request); ++i) {
    }
    stream->WritesDone();
  });
  int64_t most = 0;
  for (int64_t before = 1; before != most || most == 0;) {
    before = most;
    std::this_thread::sleep_for(std::chrono::milliseconds(1000));
    most = std::max(most, gate_.inside());
  }
  EXPECT_LE(most, static_cast<int64_t>(InferStream::kMostHeld / (kColumns * sizeof(float))) + 1);
  Release();
  inference::ModelStreamInferResponse response;
  int read = 0;
  while (stream->Read(&response)) ++read;
  EXPECT_EQ(read, kCount);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(InferStreamTest, AStreamWithoutRequestsEndsWell) {
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(InferStreamTest, WhatWaitsIsDroppedWhenTheClientGoes) {
  repository_.Put(repository_.Make("net", 1, {{Precision::kFp32, fp32_}}, {}, {}, 4));
  const auto running = Block();
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(stream->Write(Numbered(i)));
  while (dispatcher_.queued() < 4) std::this_thread::yield();
  ASSERT_EQ(Infer(Row()).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << "they fill it";
  context->TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // Once the server has heard, there is room for another one, and the four are gone.
  const auto waiting = StartInPlaceOf(Row());
  Release();
  running->done.WaitForNotification();
  waiting->done.WaitForNotification();
  EXPECT_TRUE(waiting->status.ok()) << waiting->status.error_message();
  const std::vector<Shape> runs = fp32_->runs();
  EXPECT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs.back(), Shape({1, 4})) << "what nobody waits for is not computed";
  // Returns only when no call is left: none of the four is lost or answered twice.
  server_->Shutdown(Clock::Real().Now() + std::chrono::seconds(20));
  EXPECT_EQ(gate_.inside(), 0);
}

TEST_F(InferStreamTest, ShutdownEndsAnIdleStream) {
  const auto context = Context();
  const auto stream = stub_->ModelStreamInfer(context.get());
  ASSERT_TRUE(stream->Write(Numbered(1)));
  inference::ModelStreamInferResponse response;
  ASSERT_TRUE(stream->Read(&response));
  gate_.Close();
  ASSERT_TRUE(stream->Write(Numbered(2)));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_THAT(response.error_message(), HasSubstr("shutting down"));
  const TimePoint start = Clock::Real().Now();
  server_->Shutdown(start + std::chrono::seconds(20));
  EXPECT_LT(Clock::Real().Now(), start + std::chrono::seconds(20));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace infer_stream_test
}  // namespace octet
