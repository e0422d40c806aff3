#include "server/rpc/protocol_calls.h"

#include <array>

#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"
#include "server/rpc/log_settings.h"
#include "server/rpc/model_description.h"
#include "server/rpc/shared_memory.h"
#include "server/rpc/trace_settings.h"

namespace octet {
namespace {

/// What works, by the names that clients know the protocol's extensions by.
constexpr std::array kExtensions = {
    "binary_tensor_data", "classification",  "logging",  "model_repository", "model_configuration",
    "parameters",         "schedule_policy", "sequence", "statistics"};

/// Requests to this one repository leave its name empty.
absl::Status CheckRepositoryName(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return Unimplemented("repository_name: there is one repository, without a name; got \"{}\"",
                       name);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ModelVersion>> ProtocolCalls::Find(
    const std::string& model, const std::string& version) const {
  OCTET_ASSIGN_OR_RETURN(auto found, parts_.repository.Find(model, version));
  if (!ParsePrecision(version)) return found;
  const RouteFacts asked = {.precision = version, .is_drawn = false};
  if (!found->routing.versions.empty()) {
    OCTET_ASSIGN_OR_RETURN(found, parts_.repository.FindShare(model, asked));
  }
  const absl::Status answers = ChoosePrecision(found->routes, asked).status();
  if (answers.ok()) return found;
  return Annotate(answers, Format("model \"{}\" version {}", found->model, found->version));
}

#define OCTET_CALL(Rpc)                                                    \
  absl::Status ProtocolCalls::Call(const inference::Rpc##Request& request, \
                                   inference::Rpc##Response& response)
#define OCTET_CALL_EMPTY(Rpc) \
  absl::Status ProtocolCalls::Call(const inference::Rpc##Request&, inference::Rpc##Response&)

OCTET_CALL(ServerLive) {
  (void)request;
  response.set_live(true);
  return absl::OkStatus();
}

OCTET_CALL(ServerReady) {
  (void)request;
  response.set_ready(!parts_.gate.announced() && parts_.repository.Ready());
  return absl::OkStatus();
}

OCTET_CALL(ModelReady) {
  const absl::Status found = Find(request.name(), request.version()).status();
  response.set_ready(found.ok() && !parts_.gate.announced());
  // "Is it ready?" has the answer no for what does not exist, too.
  const bool answered = found.ok() || absl::IsNotFound(found) || absl::IsUnavailable(found);
  return answered ? absl::OkStatus() : found;
}

OCTET_CALL(ServerMetadata) {
  (void)request;
  response.set_name(identity_.name);
  response.set_version(identity_.version);
  for (const char* extension : kExtensions) response.add_extensions(extension);
  if (parts_.shared_memory != nullptr) response.add_extensions("system_shared_memory");
  if (parts_.tracer != nullptr) response.add_extensions("trace");
  return absl::OkStatus();
}

OCTET_CALL(ModelMetadata) {
  OCTET_ASSIGN_OR_RETURN(const auto version, Find(request.name(), request.version()));
  OCTET_ASSIGN_OR_RETURN(const auto all, parts_.repository.List(request.name(), ""));
  DescribeModel(*version, all, response);
  return absl::OkStatus();
}

OCTET_CALL(ModelConfig) {
  OCTET_ASSIGN_OR_RETURN(const auto version, Find(request.name(), request.version()));
  DescribeConfig(*version, parts_.workers, *response.mutable_config());
  return absl::OkStatus();
}

OCTET_CALL(ModelStatistics) {
  OCTET_ASSIGN_OR_RETURN(const auto versions,
                         parts_.repository.List(request.name(), request.version()));
  for (const auto& version : versions) DescribeStatistics(*version, *response.add_model_stats());
  return absl::OkStatus();
}

OCTET_CALL(RepositoryIndex) {
  OCTET_RETURN_IF_ERROR(CheckRepositoryName(request.repository_name()));
  for (const IndexEntry& entry : parts_.repository.Index(request.ready())) {
    auto& model = *response.add_models();
    model.set_name(entry.model);
    model.set_version(entry.version);
    model.set_state(std::string(VersionStateName(entry.state)));
    // It may say what stands in a file; one that is no UTF-8 would hide all rows.
    model.set_reason(Utf8Of(entry.reason));
  }
  return absl::OkStatus();
}

OCTET_CALL(RepositoryModelLoad) {
  (void)response;
  OCTET_RETURN_IF_ERROR(CheckRepositoryName(request.repository_name()));
  // A model whose files or configuration come with the call.
  for (const auto& [name, unused] : request.parameters()) {
    return Unimplemented("load parameter \"{}\" is not supported: models come from the folder",
                         name);
  }
  return parts_.repository.Load(request.model_name());
}

OCTET_CALL(RepositoryModelUnload) {
  (void)response;
  OCTET_RETURN_IF_ERROR(CheckRepositoryName(request.repository_name()));
  for (const auto& [name, unused] : request.parameters()) {
    // Clients always send this one; no model here depends on another.
    if (name == "unload_dependents") continue;
    return Unimplemented("unload parameter \"{}\" is not supported", name);
  }
  return parts_.repository.Unload(request.model_name());
}

OCTET_CALL(SystemSharedMemoryStatus) {
  if (parts_.shared_memory == nullptr) return absl::OkStatus();
  const auto add = [&](const SharedRegion& region) {
    auto& status = (*response.mutable_regions())[region.name()];
    status.set_name(region.name());
    status.set_key(region.key());
    status.set_offset(region.offset());
    status.set_byte_size(region.bytes());
  };
  if (request.name().empty()) {
    for (const auto& region : parts_.shared_memory->All()) add(*region);
    return absl::OkStatus();
  }
  OCTET_ASSIGN_OR_RETURN(const auto region, parts_.shared_memory->Find(request.name()));
  add(*region);
  return absl::OkStatus();
}

OCTET_CALL(SystemSharedMemoryRegister) {
  (void)response;
  if (parts_.shared_memory == nullptr) {
    return absl::UnimplementedError(
        "system shared memory is not supported here: listen.shared_memory is off");
  }
  return parts_.shared_memory->Register(request.name(), request.key(), request.offset(),
                                        request.byte_size());
}

OCTET_CALL(SystemSharedMemoryUnregister) {
  (void)response;
  if (parts_.shared_memory != nullptr) parts_.shared_memory->Unregister(request.name());
  return absl::OkStatus();
}

OCTET_CALL_EMPTY(CudaSharedMemoryStatus) { return absl::OkStatus(); }
OCTET_CALL_EMPTY(CudaSharedMemoryUnregister) { return absl::OkStatus(); }
OCTET_CALL_EMPTY(CudaSharedMemoryRegister) {
  return absl::UnimplementedError("CUDA shared memory is not supported");
}
OCTET_CALL(TraceSetting) {
  const std::string& model = request.model_name();
  if (!model.empty()) OCTET_RETURN_IF_ERROR(parts_.repository.Find(model, "").status());
  return ChangeTraceSettings(parts_.tracer, request, response);
}
OCTET_CALL(LogSettings) { return ChangeLogSettings(request, response); }

#undef OCTET_CALL
#undef OCTET_CALL_EMPTY

}  // namespace octet
