// inference.GRPCInferenceService: which call goes where. Decisions live elsewhere.
#pragma once

#include "proto/inference.grpc.pb.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/infer_messages.h"
#include "server/rpc/infer_stream.h"
#include "server/rpc/live_set.h"
#include "server/rpc/load_thread.h"
#include "server/rpc/protocol_calls.h"

namespace octet {

/// Never blocks gRPC's threads: inferences run on the workers, loads on a thread of their own.
class InferenceService final : public inference::GRPCInferenceService::CallbackService {
 public:
  InferenceService(const GrpcServerOptions& options, const ServingParts& parts)
      : options_(options), parts_(parts), calls_(options.identity, parts_) {
    SetMessageAllocatorFor_ModelInfer(&messages_);
  }

  /// Ends every stream, also those to come, when what it has read is answered.
  void EndStreams();

#define OCTET_UNARY(Rpc)                                                \
  grpc::ServerUnaryReactor* Rpc(grpc::CallbackServerContext* context,   \
                                const inference::Rpc##Request* request, \
                                inference::Rpc##Response* response) override
  OCTET_UNARY(ServerLive);
  OCTET_UNARY(ServerReady);
  OCTET_UNARY(ModelReady);
  OCTET_UNARY(ServerMetadata);
  OCTET_UNARY(ModelMetadata);
  OCTET_UNARY(ModelInfer);
  OCTET_UNARY(ModelConfig);
  OCTET_UNARY(ModelStatistics);
  OCTET_UNARY(RepositoryIndex);
  OCTET_UNARY(RepositoryModelLoad);
  OCTET_UNARY(RepositoryModelUnload);
  OCTET_UNARY(SystemSharedMemoryStatus);
  OCTET_UNARY(SystemSharedMemoryRegister);
  OCTET_UNARY(SystemSharedMemoryUnregister);
  OCTET_UNARY(CudaSharedMemoryStatus);
  OCTET_UNARY(CudaSharedMemoryRegister);
  OCTET_UNARY(CudaSharedMemoryUnregister);
  OCTET_UNARY(TraceSetting);
  OCTET_UNARY(LogSettings);
#undef OCTET_UNARY

  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
  ModelStreamInfer(grpc::CallbackServerContext* context) override;

 private:
  /// Finishes the call with what `task` returns on the thread for loads.
  grpc::ServerUnaryReactor* Later(grpc::CallbackServerContext& context,
                                  absl::AnyInvocable<absl::Status() &&> task);

  const GrpcServerOptions& options_;
  const ServingParts& parts_;
  ProtocolCalls calls_;
  LiveSet<InferStream> streams_;
  LoadThread loads_;
  InferMessageAllocator messages_;
};

}  // namespace octet
