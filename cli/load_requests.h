// Requests out of samples: what `octet load` and `octet replay` send.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/samples.h"

#include "proto/inference.grpc.pb.h"

namespace octet::cli {

struct RequestSource {
  std::string model;
  std::string version;
  std::string precision;  ///< Sent as the parameter "precision" when not empty.
  std::string data;  ///< File or folder of samples; empty: random elements by the model's metadata.
  std::string map;   ///< model.yaml: convert samples to the model's own type before they are sent.
  int rows = 1;      ///< Rows per request.
};

/// Says who is to answer: a version, or the highest ready one when empty; a precision, or the server's choice.
void Address(inference::ModelInferRequest& request, const std::string& version,
             const std::string& precision);

/// The samples of an archive as requests.
class SampleRequests {
 public:
  /// Matches source.data with the inputs of the server's model. Errors: the server's, when it does not answer
  /// ModelMetadata; as Samples::Open.
  static absl::StatusOr<SampleRequests> Load(inference::GRPCInferenceService::Stub& stub,
                                             const RequestSource& source);

  int64_t count() const { return samples_.count(); }
  /// Samples [first, first + rows). Errors: as Samples::Read. Thread-safety: safe.
  absl::StatusOr<inference::ModelInferRequest> Make(int64_t first, int64_t rows) const;

 private:
  SampleRequests(RequestSource source, Samples samples)
      : source_(std::move(source)), samples_(std::move(samples)) {}

  RequestSource source_;
  Samples samples_;
};

/// One request per `rows` samples, at most kMaxRequests; one request when there is no data.
/// Errors: the server's, when it does not answer ModelMetadata; as Samples::Open and Samples::Read; without data INVALID_ARGUMENT for another number
/// of rows than the model's own, and for more than a request holds.
inline constexpr int kMaxRequests = 256;
absl::StatusOr<std::vector<inference::ModelInferRequest>> MakeRequests(
    inference::GRPCInferenceService::Stub& stub, const RequestSource& source);

/// gRPC's status as Abseil's.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace octet::cli
