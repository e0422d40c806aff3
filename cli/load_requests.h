// The requests that `octet load` sends, made before the clock starts.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "proto/inference.grpc.pb.h"

namespace octet::cli {

struct RequestSource {
  std::string model;
  std::string version;
  std::string precision;  ///< Sent as the parameter "precision" when not empty.
  std::string data;       ///< .npz; empty: random elements by the model's metadata.
  std::string map;  ///< model.yaml: convert samples to the model's own type before they are sent.
  int rows = 1;     ///< Rows per request.
};

/// One request per `rows` samples, at most kMaxRequests; one request when there is no data.
/// Errors: the server's, when it does not answer ModelMetadata; as Samples::Load.
inline constexpr int kMaxRequests = 256;
absl::StatusOr<std::vector<inference::ModelInferRequest>> MakeRequests(
    inference::GRPCInferenceService::Stub& stub, const RequestSource& source);

/// gRPC's status as Abseil's.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace octet::cli
