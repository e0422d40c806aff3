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
/// All read and write their messages themselves: inferences without a copy of their tensors, and each within its bound.
using InferenceCalls = WithWays<
    Rpcs::Service, Rpcs::WithRawCallbackMethod_ServerLive, Rpcs::WithRawCallbackMethod_ServerReady,
    Rpcs::WithRawCallbackMethod_ModelReady, Rpcs::WithRawCallbackMethod_ServerMetadata,
    Rpcs::WithRawCallbackMethod_ModelMetadata, Rpcs::WithRawCallbackMethod_ModelInfer,
    Rpcs::WithRawCallbackMethod_ModelStreamInfer, Rpcs::WithRawCallbackMethod_ModelConfig,
    Rpcs::WithRawCallbackMethod_ModelStatistics, Rpcs::WithRawCallbackMethod_RepositoryIndex,
    Rpcs::WithRawCallbackMethod_RepositoryModelLoad,
    Rpcs::WithRawCallbackMethod_RepositoryModelUnload,
    Rpcs::WithRawCallbackMethod_SystemSharedMemoryStatus,
    Rpcs::WithRawCallbackMethod_SystemSharedMemoryRegister,
    Rpcs::WithRawCallbackMethod_SystemSharedMemoryUnregister,
    Rpcs::WithRawCallbackMethod_CudaSharedMemoryStatus,
    Rpcs::WithRawCallbackMethod_CudaSharedMemoryRegister,
    Rpcs::WithRawCallbackMethod_CudaSharedMemoryUnregister,
    Rpcs::WithRawCallbackMethod_TraceSetting, Rpcs::WithRawCallbackMethod_LogSettings>::Type;

/// Never blocks gRPC's threads for long: inferences run on the workers, but those that are shorter than the way there;
/// loads on a thread of their own.
class InferenceService final : public InferenceCalls {
 public:
  InferenceService(const GrpcServerOptions& options, const ServingParts& parts)
      : options_(options),
        parts_(parts),
        calls_(options.identity, parts_),
        streams_(options.max_long_calls) {}

  /// Ends every stream, also those to come, when what it has read is answered.
  void EndStreams();
  /// Whether a load or unload runs or waits, whose call is open.
  bool loading() const { return loads_.busy(); }

#define OCTET_UNARY(Rpc)                                                                     \
  grpc::ServerUnaryReactor* Rpc(grpc::CallbackServerContext* context,                        \
                                const grpc::ByteBuffer* request, grpc::ByteBuffer* response) \
      override
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

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ModelStreamInfer(
      grpc::CallbackServerContext* context) override;

 private:
  /// Makes a call and writes its answer.
  template <typename Reply, typename Ask>
  absl::Status Call(const Ask& ask, grpc::ByteBuffer& response);
  template <typename Ask, typename Reply>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext& context,
                                   const grpc::ByteBuffer& request, grpc::ByteBuffer& response);
  /// The same on the thread for loads.
  template <typename Ask, typename Reply>
  grpc::ServerUnaryReactor* AnswerLater(grpc::CallbackServerContext& context,
                                        const grpc::ByteBuffer& request,
                                        grpc::ByteBuffer& response);
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
