// What a request that waits is counted with.
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/rpc/grpc_inference.h"
#include "server/rpc/infer_stream.h"
#include "tests/support/rpc_test.h"

namespace octet {
namespace held_bytes_test {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr size_t kMost = size_t{64} << 20;
constexpr int64_t kColumns = int64_t{1} << 20;

/// A byte on the wire for each element, four in the message.
inference::ModelInferRequest Typed(const std::string& model, int64_t columns = kColumns) {
  inference::ModelInferRequest request;
  request.set_model_name(model);
  auto& input = *request.add_inputs();
  input.set_name("x");
  input.set_datatype("UINT8");
  input.add_shape(1);
  input.add_shape(columns);
  input.mutable_contents()->mutable_uint_contents()->Resize(static_cast<int>(columns), 5);
  return request;
}

TEST(HeldBytesTest, WhatTheMessageHasIsNotKeptTwice) {
  const std::string bytes = Typed("net").SerializeAsString();
  const grpc::Slice slice(bytes);
  GrpcInference call;
  ASSERT_TRUE(ReadInferRequest(grpc::ByteBuffer(&slice, 1), kMost, call).ok());
  EXPECT_THAT(call.received, IsEmpty());
  EXPECT_EQ(call.bytes, 0U);
  EXPECT_GE(call.HeldBytes(), 4U * kColumns);
}

TEST(HeldBytesTest, RawContentsAreKeptAsTheyCame) {
  inference::ModelInferRequest request = Typed("net");
  request.mutable_inputs(0)->clear_contents();
  request.add_raw_input_contents(std::string(kColumns, '\x05'));
  const grpc::Slice slice(request.SerializeAsString());
  GrpcInference call;
  ASSERT_TRUE(ReadInferRequest(grpc::ByteBuffer(&slice, 1), kMost, call).ok());
  EXPECT_THAT(call.received, SizeIs(1));
  EXPECT_EQ(call.bytes, slice.size());
  EXPECT_LT(call.HeldBytes(), slice.size() + 2000);
}

class QueuedBytesTest : public RpcTest {
 protected:
  void SetUp() override {
    RpcTest::SetUp();
    const auto wide = std::make_shared<FakeModel>(Shape{1, kColumns});
    repository_.Put(repository_.Make("wide", 1, {{Precision::kFp32, wide}},
                                     {{"x", WireMapping{.dtype = DType::kU8}}}));
  }
  /// Of the one request that waits.
  int64_t BytesOfOne() {
    while (dispatcher_.queued() == 0) std::this_thread::yield();
    return repository_.observer()->waiting_bytes;
  }
};

TEST_F(QueuedBytesTest, ANumberInAMessageTakesMoreThanItsByteOnTheWire) {
  const auto running = Block();
  const auto waiting = Start(Typed("wide"));
  // The message's 32 bits, and the byte that they were narrowed to.
  EXPECT_GE(BytesOfOne(), 5 * kColumns);
  Release();
  running->done.WaitForNotification();
  waiting->done.WaitForNotification();
  EXPECT_TRUE(waiting->status.ok()) << waiting->status.error_message();
  EXPECT_EQ(repository_.observer()->waiting_bytes, 0);
}

/// Of 4 MB on the wire, which are 16 MB in memory: eight are held, not sixteen.
TEST_F(QueuedBytesTest, AStreamHoldsWhatItsMessagesTake) {
  constexpr int64_t kMany = 4 * kColumns;
  constexpr int kCount = 16;
  const auto wide = std::make_shared<FakeModel>(Shape{1, kMany});
  wide->before_run = [this] {
    released_.WaitForNotification();
    return absl::OkStatus();
  };
  repository_.Put(repository_.Make("wide", 1, {{Precision::kFp32, wide}},
                                   {{"x", WireMapping{.dtype = DType::kU8}}}));
  const auto context = Context(std::chrono::minutes(2));
  const auto stream = stub_->ModelStreamInfer(context.get());
  std::jthread writer([&] {
    const Request request = Typed("wide", kMany);
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
  EXPECT_LE(most, static_cast<int64_t>(InferStream::kMostHeld) / (4 * kMany) + 1);
  Release();
  inference::ModelStreamInferResponse response;
  int read = 0;
  while (stream->Read(&response)) ++read;
  EXPECT_EQ(read, kCount);
  EXPECT_TRUE(stream->Finish().ok());
}

}  // namespace held_bytes_test
}  // namespace octet
