#include "server/rpc/inference_service.h"

#include <memory>
#include <new>
#include <string>
#include <utility>

#include "engine/tensor/status.h"
#include "server/rpc/call_deadline.h"
#include "server/rpc/call_metadata.h"
#include "server/rpc/grpc_inference.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/inference.h"
#include "server/rpc/received_message.h"
#include "server/scheduling/retry_after.h"

namespace octet {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

ServerUnaryReactor* FinishNow(CallbackServerContext& context, const absl::Status& status) {
  ServerUnaryReactor* reactor = context.DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

/// As gRPC's clients read it whose retry policy has the code (gRFC A6): no backoff of their own. Requires: nothing was sent.
void SendRetryAfter(const absl::Status& status, CallbackServerContext& context) {
  const auto after = RetryAfterOf(status);
  if (after) context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(after->count()));
}

/// What it answers, or why it threw: the call has an end all the same.
absl::Status Tried(absl::AnyInvocable<absl::Status() &&> task) {
  try {
    return std::move(task)();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory to load or unload");
  } catch (const std::exception& error) {
    return MakeError(absl::StatusCode::kInternal, "to load or unload: {}", error.what());
  }
}

/// One ModelInfer: lives until gRPC is done with it.
class InferCall final : public ServerUnaryReactor {
 public:
  InferCall(const ServingParts& parts, const GrpcServerOptions& options,
            CallbackServerContext& context, const grpc::ByteBuffer& request,
            grpc::ByteBuffer& response)
      : context_(context), response_(response), inference_(parts, options.access_log, call_) {
    const absl::Status read =
        ReadInferRequest(request, static_cast<size_t>(options.max_message_bytes), *call_);
    // The call has what it needs of it. gRPC would keep the rest until the answer; the object, which is its own, is not const.
    const_cast<grpc::ByteBuffer&>(request).Clear();  // NOLINT(*-const-cast)
    inference_.Start({.metadata = CallMetadata(context.client_metadata()),
                      .deadline = DeadlineOf(context, parts.clock),
                      .read = read,
                      .raw_contents = call_->raw_contents},
                     [this](const absl::Status& status) { Send(status); });
  }
  void OnCancel() override { inference_.Cancel(); }
  void OnDone() override { delete this; }
  // What follows from gRPC's events is short and takes no lock: it need not run on another thread, which costs more than all
  // the rest of a small request.
  bool InternalInlineable() override { return true; }

 private:
  void Send(absl::Status status) {
    if (status.ok()) {
      auto written = WriteInferResponse(call_);
      status = written.status();
      if (written.ok()) response_.Swap(&*written);
    }
    SendRetryAfter(status, context_);
    Finish(ToGrpc(status));
  }

  CallbackServerContext& context_;
  const std::shared_ptr<GrpcInference> call_ = std::make_shared<GrpcInference>();
  grpc::ByteBuffer& response_;
  Inference inference_;
};

}  // namespace

template <typename Reply, typename Ask>
absl::Status InferenceService::Call(const Ask& ask, grpc::ByteBuffer& response) {
  Reply reply;
  OCTET_RETURN_IF_ERROR(calls_.Call(ask, reply));
  response = WriteMessage(reply);
  return absl::OkStatus();
}

template <typename Ask, typename Reply>
ServerUnaryReactor* InferenceService::Answer(CallbackServerContext& context,
                                             const grpc::ByteBuffer& request,
                                             grpc::ByteBuffer& response) {
  Ask ask;
  const absl::Status read = ReadMessage(request, ask);
  return FinishNow(context, read.ok() ? Call<Reply>(ask, response) : read);
}

template <typename Ask, typename Reply>
ServerUnaryReactor* InferenceService::AnswerLater(CallbackServerContext& context,
                                                  const grpc::ByteBuffer& request,
                                                  grpc::ByteBuffer& response) {
  auto ask = std::make_unique<Ask>();
  const absl::Status read = ReadMessage(request, *ask);
  if (!read.ok()) return FinishNow(context, read);
  return Later(context,
               [this, ask = std::move(ask), &response] { return Call<Reply>(*ask, response); });
}

#define OCTET_UNARY(Rpc)                     \
  ServerUnaryReactor* InferenceService::Rpc( \
      CallbackServerContext* context, const grpc::ByteBuffer* request, grpc::ByteBuffer* response)
#define OCTET_BY(Way, Rpc)                                                                        \
  OCTET_UNARY(Rpc) {                                                                              \
    return Way<inference::Rpc##Request, inference::Rpc##Response>(*context, *request, *response); \
  }

// What never waits is answered on gRPC's thread.
#define OCTET_ANSWERED(Rpc) OCTET_BY(Answer, Rpc)
OCTET_ANSWERED(ServerLive)
OCTET_ANSWERED(ServerReady)
OCTET_ANSWERED(ModelReady)
OCTET_ANSWERED(ServerMetadata)
OCTET_ANSWERED(ModelMetadata)
OCTET_ANSWERED(ModelConfig)
OCTET_ANSWERED(ModelStatistics)
OCTET_ANSWERED(RepositoryIndex)
OCTET_ANSWERED(SystemSharedMemoryStatus)
OCTET_ANSWERED(SystemSharedMemoryRegister)
OCTET_ANSWERED(SystemSharedMemoryUnregister)
OCTET_ANSWERED(CudaSharedMemoryStatus)
OCTET_ANSWERED(CudaSharedMemoryRegister)
OCTET_ANSWERED(CudaSharedMemoryUnregister)
OCTET_ANSWERED(TraceSetting)
OCTET_ANSWERED(LogSettings)
#undef OCTET_ANSWERED

OCTET_BY(AnswerLater, RepositoryModelLoad)
OCTET_BY(AnswerLater, RepositoryModelUnload)
#undef OCTET_BY

OCTET_UNARY(ModelInfer) { return new InferCall(parts_, options_, *context, *request, *response); }
#undef OCTET_UNARY

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* InferenceService::ModelStreamInfer(
    CallbackServerContext* context) {
  return InferStream::Start(parts_, options_, *context, streams_);
}

void InferenceService::EndStreams() {
  for (const auto& stream : streams_.Close()) stream->End();
}

ServerUnaryReactor* InferenceService::Later(CallbackServerContext& context,
                                            absl::AnyInvocable<absl::Status() &&> task) {
  // The context and the answer live until Finish.
  ServerUnaryReactor* reactor = context.DefaultReactor();
  const bool posted = loads_.Post([this, reactor, &context, task = std::move(task)]() mutable {
    if (parts_.gate.closed()) {
      reactor->Finish(ToGrpc(ShuttingDown()));
    } else if (context.IsCancelled()) {
      reactor->Finish(grpc::Status::CANCELLED);
    } else {
      reactor->Finish(ToGrpc(Tried(std::move(task))));
    }
  });
  if (!posted) {
    reactor->Finish(
        ToGrpc(MakeError(absl::StatusCode::kResourceExhausted,
                         "too many loads and unloads wait, at most {}", LoadThread::kMaxWaiting)));
  }
  return reactor;
}

}  // namespace octet
