// Every call of the protocol but the inferences, whatever carries it: gRPC or HTTP.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "proto/inference.pb.h"
#include "server/rpc/serving_parts.h"

namespace octet {

/// Of the message or body of every call but an inference: what is said there is short, and some of it takes a hundred times
/// its bytes once it is read.
inline constexpr size_t kMaxControlBytes = size_t{64} << 10;

/// Who ServerMetadata says it is.
struct ServerIdentity {
  std::string name = "octet";
  std::string version;
};

/// Answers calls: one overload of Call per RPC. Loads and unloads take seconds, on the caller's thread;
/// nothing else waits. Errors are those of ModelRepository; UNIMPLEMENTED for what Octet does not have, naming it.
/// Thread-safety: safe.
class ProtocolCalls {
 public:
  ProtocolCalls(ServerIdentity identity, const ServingParts& parts)
      : identity_(std::move(identity)), parts_(parts) {}

#define OCTET_CALL(Rpc) \
  absl::Status Call(const inference::Rpc##Request& request, inference::Rpc##Response& response)
  OCTET_CALL(ServerLive);
  OCTET_CALL(ServerReady);
  OCTET_CALL(ModelReady);
  OCTET_CALL(ServerMetadata);
  OCTET_CALL(ModelMetadata);
  OCTET_CALL(ModelConfig);
  OCTET_CALL(ModelStatistics);
  OCTET_CALL(RepositoryIndex);
  OCTET_CALL(RepositoryModelLoad);
  OCTET_CALL(RepositoryModelUnload);
  OCTET_CALL(SystemSharedMemoryStatus);
  OCTET_CALL(SystemSharedMemoryRegister);
  OCTET_CALL(SystemSharedMemoryUnregister);
  OCTET_CALL(CudaSharedMemoryStatus);
  OCTET_CALL(CudaSharedMemoryRegister);
  OCTET_CALL(CudaSharedMemoryUnregister);
  OCTET_CALL(TraceSetting);
  OCTET_CALL(LogSettings);
#undef OCTET_CALL

  /// Finds what ModelReady, ModelMetadata and ModelConfig are about: as ModelRepository::Find; for a precision in the place
  /// of a version what would answer its inferences, NOT_FOUND when the model has no such precision (a pipeline has none),
  /// UNAVAILABLE while it is not ready.
  absl::StatusOr<std::shared_ptr<const ModelVersion>> Find(const std::string& model,
                                                           const std::string& version) const;

 private:
  const ServerIdentity identity_;
  const ServingParts& parts_;
};

}  // namespace octet
