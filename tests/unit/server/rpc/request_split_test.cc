#include "server/rpc/request_split.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/rpc_test.h"

namespace {

/// Bytes that were ever allocated, by any thread.
std::atomic<std::size_t> allocated{0};

}  // namespace

// Of the whole test program: as the library's, and counted.
void* operator new(std::size_t size) {
  allocated.fetch_add(size, std::memory_order_relaxed);
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t size, const std::nothrow_t& /*unused*/) noexcept {
  return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace octet {
namespace request_split_test {

using ::testing::HasSubstr;

constexpr int kTimes = 2'000'000;
constexpr size_t kFew = size_t{1} << 20;

/// Fields of two or three bytes, of which a view or a message takes 16 or more, and what is said of so many.
std::vector<std::pair<std::string, std::string>> SmallFields() {
  const std::string raws = "raw_input_contents: expected at most 1024, got more";
  return {
      {std::string("\x3a\x00", 2), raws},
      {"\x3a\x01\x61", raws},
      {std::string("\x2a\x00", 2), "inputs: expected at most 1024, got more"},
      {std::string("\x32\x00", 2), "outputs: expected at most 1024, got more"},
      {std::string("\x22\x00", 2), "parameters: expected at most 256, got more"},
      // A name in front of a field that is left out is a piece of its own.
      {std::string("\x0a\x00\x78\x01", 4),
       "model_name, model_version, id: expected at most 256, got more"},
  };
}

std::string Many(const std::string& field) {
  std::string message;
  message.reserve(field.size() * kTimes);
  for (int i = 0; i < kTimes; ++i) message += field;
  return message;
}

TEST(SplitRequestTest, RefusesMillionsOfSmallFieldsBeforeTheyAreKept) {
  for (const auto& [field, message] : SmallFields()) {
    const std::string bytes = Many(field);
    const std::string_view half = std::string_view(bytes).substr(0, bytes.size() / 2);
    const std::vector<std::string_view> pieces = {
        half, std::string_view(bytes).substr(half.size(), bytes.size() - half.size())};
    SplitFields fields;
    const size_t before = allocated;
    const absl::Status status = SplitRequest(pieces, size_t{64} << 20, fields);
    EXPECT_LT(allocated - before, kFew) << message;
    EXPECT_EQ(status, absl::InvalidArgumentError(message));
  }
}

/// Raw contents as they come through gRPC, as they are and compressed to a thousandth.
class SmallFieldsTest : public RpcTest {
 protected:
  grpc::Status Send(const std::string& message, grpc_compression_algorithm algorithm) {
    const grpc::Slice slice(message);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::Status status;
    absl::Notification done;
    const auto context = Context();
    context->set_compression_algorithm(algorithm);
    grpc::GenericStub(channel_).UnaryCall(context.get(),
                                          "/inference.GRPCInferenceService/ModelInfer", {},
                                          &request, &response, [&](const grpc::Status& told) {
                                            status = told;
                                            done.Notify();
                                          });
    done.WaitForNotification();
    return status;
  }
};

TEST_F(SmallFieldsTest, TheyTakeNoMemoryBesideTheMessage) {
  for (const std::string& field : {std::string("\x3a\x00", 2), std::string("\x3a\x01\x61")}) {
    const std::string bytes = Many(field);
    for (const auto algorithm : {GRPC_COMPRESS_NONE, GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
      const size_t before = allocated;
      const grpc::Status status = Send(bytes, algorithm);
      // The message as the client sends it, and as the server has it.
      EXPECT_LT(allocated - before, 2 * bytes.size() + kFew) << field << algorithm;
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
      EXPECT_THAT(status.error_message(), HasSubstr("raw_input_contents: expected at most 1024"));
    }
  }
}

}  // namespace request_split_test
}  // namespace octet
