// grpc.health.v1: what load balancers and probes ask.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "proto/health.grpc.pb.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/live_set.h"

namespace octet {

class HealthWatch;

/// They read and write their messages themselves, within a bound.
using HealthCalls = grpc::health::v1::Health::WithRawCallbackMethod_Check<
    grpc::health::v1::Health::WithRawCallbackMethod_Watch<grpc::health::v1::Health::Service>>;

/// Answers for the process (empty name: SERVING until it is about to end), for "inference.GRPCInferenceService"
/// (as ServerReady: models have been loaded, too), and for each model by its name (as ModelReady of
/// its highest version).
class HealthService final : public HealthCalls {
 public:
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;
  /// How soon a watch hears of a change.
  static constexpr std::chrono::milliseconds kPeriod{100};

  HealthService(const GrpcServerOptions& options, const ServingParts& parts);
  /// Requires: no call is left.
  ~HealthService() override;

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  /// RESOURCE_EXHAUSTED, at once, where options.max_long_calls are open.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;

  /// Tells every watch NOT_SERVING for the last time and ends it, and any that comes later.
  void EndWatches();

 private:
  /// SERVICE_UNKNOWN for a name that is nobody's.
  Status StatusOf(const std::string& service) const;
  void Run();

  const ServingParts& parts_;
  LiveSet<HealthWatch> watches_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::jthread thread_;
};

}  // namespace octet
