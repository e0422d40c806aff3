#include "server/rpc/inference_service.h"

#include <array>
#include <memory>
#include <utility>

#include "engine/tensor/status.h"
#include "server/rpc/call_deadline.h"
#include "server/rpc/call_metadata.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/inference.h"
#include "server/rpc/model_description.h"

namespace octet {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

/// What works, by the names that clients know the protocol's extensions by.
constexpr std::array kExtensions = {"classification", "model_repository", "model_configuration",
                                    "parameters", "statistics"};

ServerUnaryReactor* Answer(CallbackServerContext* context, const absl::Status& status) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

/// Requests to this one repository leave its name empty.
absl::Status CheckRepositoryName(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return Unimplemented("repository_name: there is one repository, without a name; got \"{}\"",
                       name);
}

/// One ModelInfer: lives until gRPC is done with it.
class InferCall final : public ServerUnaryReactor {
 public:
  InferCall(const ServingParts& parts, bool access_log, CallbackServerContext& context,
            const inference::ModelInferRequest& request, inference::ModelInferResponse& response)
      : inference_(parts, access_log, request, response, InferMessageAllocator::Keep(context)) {
    inference_.Start({.metadata = CallMetadata(context.client_metadata()),
                      .deadline = DeadlineOf(context, parts.clock)},
                     [this](const absl::Status& status) { Finish(ToGrpc(status)); });
  }
  void OnCancel() override { inference_.Cancel(); }
  void OnDone() override { delete this; }

 private:
  Inference inference_;
};

}  // namespace

#define OCTET_UNARY(Rpc)                                                            \
  ServerUnaryReactor* InferenceService::Rpc(CallbackServerContext* context,         \
                                            const inference::Rpc##Request* request, \
                                            inference::Rpc##Response* response)
#define OCTET_UNARY_EMPTY(Rpc)               \
  ServerUnaryReactor* InferenceService::Rpc( \
      CallbackServerContext* context, const inference::Rpc##Request*, inference::Rpc##Response*)

OCTET_UNARY(ServerLive) {
  (void)request;
  response->set_live(true);
  return Answer(context, absl::OkStatus());
}

OCTET_UNARY(ServerReady) {
  (void)request;
  response->set_ready(!parts_.gate.closed() && parts_.repository.Ready());
  return Answer(context, absl::OkStatus());
}

OCTET_UNARY(ModelReady) {
  const absl::Status found = parts_.repository.Find(request->name(), request->version()).status();
  response->set_ready(found.ok() && !parts_.gate.closed());
  // "Is it ready?" has the answer no for what does not exist, too.
  const bool answered = found.ok() || absl::IsNotFound(found) || absl::IsUnavailable(found);
  return Answer(context, answered ? absl::OkStatus() : found);
}

OCTET_UNARY(ServerMetadata) {
  (void)request;
  response->set_name(options_.name);
  response->set_version(options_.version);
  for (const char* extension : kExtensions) response->add_extensions(extension);
  return Answer(context, absl::OkStatus());
}

OCTET_UNARY(ModelMetadata) {
  const auto version = parts_.repository.Find(request->name(), request->version());
  if (!version.ok()) return Answer(context, version.status());
  const auto all = parts_.repository.List(request->name(), "");
  if (!all.ok()) return Answer(context, all.status());
  DescribeModel(**version, *all, *response);
  return Answer(context, absl::OkStatus());
}

OCTET_UNARY(ModelInfer) {
  return new InferCall(parts_, options_.access_log, *context, *request, *response);
}

OCTET_UNARY(ModelConfig) {
  const auto version = parts_.repository.Find(request->name(), request->version());
  if (!version.ok()) return Answer(context, version.status());
  DescribeConfig(**version, *response->mutable_config());
  return Answer(context, absl::OkStatus());
}

OCTET_UNARY(ModelStatistics) {
  const auto versions = parts_.repository.List(request->name(), request->version());
  if (!versions.ok()) return Answer(context, versions.status());
  for (const auto& version : *versions) DescribeStatistics(*version, *response->add_model_stats());
  return Answer(context, absl::OkStatus());
}

OCTET_UNARY(RepositoryIndex) {
  if (const absl::Status status = CheckRepositoryName(request->repository_name()); !status.ok()) {
    return Answer(context, status);
  }
  for (const IndexEntry& entry : parts_.repository.Index(request->ready())) {
    auto& model = *response->add_models();
    model.set_name(entry.model);
    model.set_version(entry.version);
    model.set_state(std::string(VersionStateName(entry.state)));
    model.set_reason(entry.reason);
  }
  return Answer(context, absl::OkStatus());
}

OCTET_UNARY(RepositoryModelLoad) {
  (void)response;
  return Later(*context, [this, request]() -> absl::Status {
    OCTET_RETURN_IF_ERROR(CheckRepositoryName(request->repository_name()));
    // A model whose files or configuration come with the call.
    for (const auto& [name, unused] : request->parameters()) {
      return Unimplemented("load parameter \"{}\" is not supported: models come from the folder",
                           name);
    }
    return parts_.repository.Load(request->model_name());
  });
}

OCTET_UNARY(RepositoryModelUnload) {
  (void)response;
  return Later(*context, [this, request]() -> absl::Status {
    OCTET_RETURN_IF_ERROR(CheckRepositoryName(request->repository_name()));
    for (const auto& [name, unused] : request->parameters()) {
      // Clients always send this one; no model here depends on another.
      if (name == "unload_dependents") continue;
      return Unimplemented("unload parameter \"{}\" is not supported", name);
    }
    return parts_.repository.Unload(request->model_name());
  });
}

OCTET_UNARY_EMPTY(SystemSharedMemoryStatus) { return Answer(context, absl::OkStatus()); }
OCTET_UNARY_EMPTY(SystemSharedMemoryUnregister) { return Answer(context, absl::OkStatus()); }
OCTET_UNARY_EMPTY(SystemSharedMemoryRegister) {
  return Answer(context, absl::UnimplementedError("system shared memory is not supported"));
}
OCTET_UNARY_EMPTY(CudaSharedMemoryStatus) { return Answer(context, absl::OkStatus()); }
OCTET_UNARY_EMPTY(CudaSharedMemoryUnregister) { return Answer(context, absl::OkStatus()); }
OCTET_UNARY_EMPTY(CudaSharedMemoryRegister) {
  return Answer(context, absl::UnimplementedError("CUDA shared memory is not supported"));
}
OCTET_UNARY_EMPTY(TraceSetting) {
  return Answer(context, absl::UnimplementedError("trace settings are not supported"));
}
OCTET_UNARY_EMPTY(LogSettings) {
  return Answer(context, absl::UnimplementedError("log settings are not supported"));
}

#undef OCTET_UNARY
#undef OCTET_UNARY_EMPTY

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
InferenceService::ModelStreamInfer(CallbackServerContext* context) {
  return InferStream::Start(parts_, options_.access_log, *context, streams_);
}

void InferenceService::EndStreams() {
  for (const auto& stream : streams_.Close()) stream->End();
}

ServerUnaryReactor* InferenceService::Later(CallbackServerContext& context,
                                            absl::AnyInvocable<absl::Status() &&> task) {
  // Context and messages live until Finish.
  ServerUnaryReactor* reactor = context.DefaultReactor();
  const bool posted = loads_.Post([this, reactor, &context, task = std::move(task)]() mutable {
    if (parts_.gate.closed()) {
      reactor->Finish(ToGrpc(absl::UnavailableError("the server is shutting down")));
    } else if (context.IsCancelled()) {
      reactor->Finish(grpc::Status::CANCELLED);
    } else {
      reactor->Finish(ToGrpc(std::move(task)()));
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
