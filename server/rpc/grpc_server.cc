#include "server/rpc/grpc_server.h"

#include <chrono>
#include <utility>

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "engine/tensor/status.h"
#include "server/rpc/health_service.h"
#include "server/rpc/inference_service.h"
#include "server/rpc/tls_certificates.h"

namespace octet {
namespace {

// What clients have for closing their connections, and for messages that are still on their way.
constexpr std::chrono::seconds kClosing{5};

class Endpoint final : public GrpcServer {
 public:
  Endpoint(const GrpcServerOptions& options, const ServingParts& parts)
      : options_(options), parts_(parts), inference_(options_, parts_), health_(options_, parts_) {}

  ~Endpoint() override { Shutdown(parts_.clock.Now()); }

  absl::Status Listen() {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    builder.SetMaxReceiveMessageSize(static_cast<int>(options_.max_message_bytes));
    builder.SetMaxSendMessageSize(-1);
    builder.SetResourceQuota(
        grpc::ResourceQuota("octet").Resize(static_cast<size_t>(options_.max_receive_bytes)));
    // It would unpack all of a message, whatever its size. ReadSlices does it, up to max_message_bytes. (Reflection alone,
    // which is gRPC's own, does without: nobody compresses the name of a service.)
    builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    // Two servers on one port would take each other's requests: the second one must not start.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    const bool v6 = options_.address.find(':') != std::string::npos;
    const std::string where = v6 ? Format("[{}]:{}", options_.address, options_.port)
                                 : Format("{}:{}", options_.address, options_.port);
    builder.AddListeningPort(
        where,
        options_.tls != nullptr ? options_.tls->credentials() : grpc::InsecureServerCredentials(),
        &port_);
    builder.RegisterService(&inference_);
    builder.RegisterService(&health_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port_ == 0) {
      return MakeError(absl::StatusCode::kUnavailable, "gRPC cannot listen on {}", where);
    }
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void Shutdown(TimePoint deadline) override {
    if (server_ == nullptr) return;
    health_.EndWatches();
    inference_.EndStreams();
    const TimePoint now = parts_.clock.Now();
    // Where all is answered, connections alone are left, and what still arrives to be refused. A client that is asleep takes no
    // notice of either.
    const bool idle = parts_.gate.inside() == 0 && !inference_.loading();
    if (idle) deadline = std::min(deadline, now + kClosing);
    const Nanoseconds left = std::max(deadline - now, Nanoseconds{0});
    // gRPC's clock is the time of day, which ends in 2262.
    constexpr Nanoseconds kMost = std::chrono::hours(24);
    server_->Shutdown(std::chrono::system_clock::now() + std::min(left, kMost));
    server_->Wait();
  }

 private:
  const GrpcServerOptions options_;
  const ServingParts parts_;
  InferenceService inference_;
  HealthService health_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              ServingParts parts) {
  auto server = std::make_unique<Endpoint>(options, parts);
  OCTET_RETURN_IF_ERROR(server->Listen());
  return server;
}

}  // namespace octet
