// inference.GRPCInferenceService: which call goes where. Decisions live elsewhere.
#pragma once

#include "proto/inference.grpc.pb.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/infer_stream.h"
#include "server/rpc/live_set.h"
#include "server/rpc/load_thread.h"
#include "server/rpc/protocol_calls.h"

namespace octet {

/// The service, with the ways to take its calls that the generated code has for each of them.
template <class Service, template <class> class... Ways>
struct WithWays {
  using Type = Service;
};
template <class Service, template <class> class Way, template <class> class... Ways>
struct WithWays<Service, Way, Ways...> {
  using Type = Way<typename WithWays<Service, Ways...>::Type>;
};

using Rpcs = inference::GRPCInferenceService;
/// Inferences read and write their messages themselves, without a copy of their tensors.
using InferenceCalls =
    WithWays<Rpcs::Service, Rpcs::WithCallbackMethod_ServerLive,
             Rpcs::WithCallbackMethod_ServerReady, Rpcs::WithCallbackMethod_ModelReady,
             Rpcs::WithCallbackMethod_ServerMetadata, Rpcs::WithCallbackMethod_ModelMetadata,
             Rpcs::WithRawCallbackMethod_ModelInfer, Rpcs::WithRawCallbackMethod_ModelStreamInfer,
             Rpcs::WithCallbackMethod_ModelConfig, Rpcs::WithCallbackMethod_ModelStatistics,
             Rpcs::WithCallbackMethod_RepositoryIndex, Rpcs::WithCallbackMethod_RepositoryModelLoad,
             Rpcs::WithCallbackMethod_RepositoryModelUnload,
             Rpcs::WithCallbackMethod_SystemSharedMemoryStatus,
             Rpcs::WithCallbackMethod_SystemSharedMemoryRegister,
             Rpcs::WithCallbackMethod_SystemSharedMemoryUnregister,
             Rpcs::WithCallbackMethod_CudaSharedMemoryStatus,
             Rpcs::WithCallbackMethod_CudaSharedMemoryRegister,
             Rpcs::WithCallbackMethod_CudaSharedMemoryUnregister,
             Rpcs::WithCallbackMethod_TraceSetting, Rpcs::WithCallbackMethod_LogSettings>::Type;

/// Never blocks gRPC's threads for long: inferences run on the workers, but those that are shorter than the way there;
/// loads on a thread of their own.
class InferenceService final : public InferenceCalls {
 public:
  InferenceService(const GrpcServerOptions& options, const ServingParts& parts)
      : options_(options), parts_(parts), calls_(options.identity, parts_) {}

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

  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ModelStreamInfer(
      grpc::CallbackServerContext* context) override;

 private:
  /// Finishes the call with what `task` returns on the thread for loads.
  grpc::ServerUnaryReactor* Later(grpc::CallbackServerContext& context,
                                  absl::AnyInvocable<absl::Status() &&> task);

  const GrpcServerOptions& options_;
  const ServingParts& parts_;
  ProtocolCalls calls_;
  LiveSet<InferStream> streams_;
  LoadThread loads_;
};

}  // namespace octet
