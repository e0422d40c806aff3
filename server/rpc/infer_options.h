// What a request asks for beside its tensors.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

#include "config/model_config.h"
#include "proto/inference.pb.h"
#include "server/scheduling/clock.h"

namespace octet {

/// Finds what came beside the message under a key in lower case: gRPC's metadata, an HTTP header.
using MetadataLookup = absl::FunctionRef<std::optional<std::string_view>(std::string_view key)>;

/// Views reach into the request and the metadata.
struct InferOptions {
  std::string_view precision;                ///< Empty = not asked for.
  std::string sticky_key;                    ///< Empty = none.
  Nanoseconds timeout = Nanoseconds::max();  ///< From the arrival on.
  uint64_t priority = 0;                     ///< As InferenceRequest::priority.
  bool capture = true;                       ///< False: its inputs are not kept.
};

/// Reads the request's parameters, and what they do not say from the metadata.
/// - "precision": text; or a precision's name for the model version; or the metadata `x-octet-precision`.
/// - "timeout": microseconds, 0 = none.
/// - "priority": a level, 1 = the first; 0, or one that the model does not have: the model's default.
/// - "capture": a truth value; false: not for captures, as a replay or who has something to hide says.
/// - the parameter or metadata that model.yaml names as routing.sticky: text or a whole number.
/// - keys "triton_*" are another server's and refused, but triton_enable_empty_final_response, which
///   one client always sends. Other keys are the client's own business.
/// INVALID_ARGUMENT naming the parameter, expected and got.
absl::StatusOr<InferOptions> ReadInferOptions(const inference::ModelInferRequest& request,
                                              MetadataLookup metadata,
                                              const ModelConfig::Routing::Sticky& sticky);

/// A parameter that is a whole number, whichever field it comes in. INVALID_ARGUMENT when it is not,
/// or is negative.
absl::StatusOr<uint64_t> WholeNumber(const std::string& name,
                                     const inference::InferParameter& parameter);

}  // namespace octet
