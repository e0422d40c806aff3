// A gRPC server in this process, with a client, on models that a test makes.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "proto/health.grpc.pb.h"
#include "proto/inference.grpc.pb.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/shared_memory.h"
#include "server/scheduling/worker_pool.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_repository.h"

namespace octet {

/// Model "net", version 1: x FP32 [?, 4] -> y = 2 x as fp32, 3 x as int8.
class RpcTest : public ::testing::Test {
 protected:
  using Request = inference::ModelInferRequest;
  using Response = inference::ModelInferResponse;

  void SetUp() override {
    int8_->precision_value = Precision::kInt8;
    repository_.Put(
        repository_.Make("net", 1, {{Precision::kFp32, fp32_}, {Precision::kInt8, int8_}}));
    StartServer();
  }
  /// No worker stays in a run when the server waits for its calls.
  void TearDown() override { Release(); }

  void StartServer() {
    server_.reset();
    auto server = GrpcServer::Start(options_, Parts());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    // One connection per test: gRPC shares those of equal arguments.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server_->port()),
                                         grpc::InsecureChannelCredentials(), arguments);
    stub_ = inference::GRPCInferenceService::NewStub(channel_);
    health_ = grpc::health::v1::Health::NewStub(channel_);
  }

  ServingParts Parts() {
    return {repository_, dispatcher_,   metrics_,
            gate_,       Clock::Real(), shared_memory_ ? &*shared_memory_ : nullptr};
  }

  /// A request of one row.
  static Request Row(std::vector<float> values = {1, 2, 3, 4}) {
    Request request;
    request.set_model_name("net");
    request.set_id("r1");
    auto& input = *request.add_inputs();
    input.set_name("x");
    input.set_datatype("FP32");
    input.add_shape(1);
    input.add_shape(static_cast<int64_t>(values.size()));
    request.add_raw_input_contents(values.data(), values.size() * sizeof(float));
    return request;
  }

  static std::unique_ptr<grpc::ClientContext> Context(
      std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    auto context = std::make_unique<grpc::ClientContext>();
    context->set_deadline(std::chrono::system_clock::now() + timeout);
    return context;
  }

  grpc::Status Infer(const Request& request, Response* response = nullptr) {
    Response unused;
    return stub_->ModelInfer(Context().get(), request, response == nullptr ? &unused : response);
  }

  static std::vector<float> Floats(const std::string& bytes) {
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  /// Lets the next run of fp32 wait until Release, and runs a request into it. Returns its context.
  struct Blocked {
    std::unique_ptr<grpc::ClientContext> context = Context();
    Request request = Row();
    Response response;
    grpc::Status status;
    absl::Notification done;
  };
  std::unique_ptr<Blocked> Block() {
    fp32_->before_run = [this] {
      if (!entered_.HasBeenNotified()) entered_.Notify();
      released_.WaitForNotification();
      return absl::OkStatus();
    };
    auto call = Start(Row());
    entered_.WaitForNotification();
    return call;
  }
  std::unique_ptr<Blocked> Start(Request request,
                                 std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    auto call = std::make_unique<Blocked>();
    call->context = Context(timeout);
    call->request = std::move(request);
    stub_->async()->ModelInfer(call->context.get(), &call->request, &call->response,
                               [call = call.get()](const grpc::Status& status) {
                                 call->status = status;
                                 call->done.Notify();
                               });
    return call;
  }
  /// Starts it again and again, until it waits in the one place of its queue that somebody has who waits no more. Requires:
  /// nobody else asks, and the worker is blocked.
  std::unique_ptr<Blocked> StartInPlaceOf(
      const Request& request, std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
    const CountingObserver& observer = *repository_.observer();
    const auto& full = observer.refused[static_cast<size_t>(Refusal::kQueueFull)];
    while (true) {
      const int64_t finished = observer.finished;
      const int64_t refused = full;
      auto call = Start(request, timeout);
      // The one that ends is either this one, refused, or the one before, which it has replaced.
      while (observer.finished == finished && !call->done.HasBeenNotified()) {
        std::this_thread::yield();
      }
      if (observer.finished > finished && full == refused) return call;
      call->done.WaitForNotification();
    }
  }
  void Release() {
    if (!released_.HasBeenNotified()) released_.Notify();
  }

  GrpcServerOptions options_ = {.address = "127.0.0.1", .identity = {.version = "1.2.3"}};
  std::shared_ptr<FakeModel> fp32_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 2.0F);
  std::shared_ptr<FakeModel> int8_ = std::make_shared<FakeModel>(Shape{kUnknownDim, 4}, 3.0F);
  absl::Notification entered_;
  absl::Notification released_;
  MetricsRegistry metrics_{BuildInfo{}};
  FakeRepository repository_{metrics_};
  std::optional<SharedMemory> shared_memory_;  ///< Offered when set before StartServer.
  Gate gate_;
  Dispatcher dispatcher_{Clock::Real()};
  WorkerPool workers_{dispatcher_, {.workers = 1, .threads = 1}, Clock::Real()};
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace octet
