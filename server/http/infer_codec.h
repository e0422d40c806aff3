// An inference as REST carries it: JSON, and behind it the bytes of tensors.
//
// Source: the Open Inference Protocol's HTTP/REST part and its binary tensor data extension.
#pragma once

#include <cstddef>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "proto/inference.pb.h"
#include "server/rpc/infer_messages.h"
#include "server/rpc/input_decoder.h"

namespace octet {

/// A request, its answer, and all that their tensors lie in. Stays where it is.
struct HttpInference : InferMessages {
  std::string body;      ///< Binary tensors stay in it; without any it is given back once read.
  RawInputs raw_inputs;  ///< Into `body` and `converted`.
  std::list<std::string> converted;         ///< Tensors that came as JSON.
  bool is_raw = false;                      ///< The body is the only input, for DescribeOnlyInput.
  bool binary_by_default = false;           ///< Of outputs that do not say.
  std::vector<std::optional<bool>> binary;  ///< Of each output that the request names.

  /// INVALID_ARGUMENT for BYTES that JSON cannot hold.
  absl::Status CheckAnswer() const override;
  /// True when the answer's output `place` is sent behind the JSON.
  bool IsBinary(int place) const;
};

/// Reads the body into the rest of `call`; the model's name and version are the URL's and set by the
/// caller. `json_bytes`: what Inference-Header-Content-Length says; nullopt = all of the body is JSON, 0 = none
/// of it: a raw binary request, whose outputs are binary, too.
///
/// An input has "data", flat or nested, of every datatype (FP16 and BF16 are numbers, too, BYTES are
/// text); or "binary_data_size" bytes behind the JSON, in the order of the inputs; or the shared memory
/// that its parameters name. Members that the protocol does not know are passed over.
/// INVALID_ARGUMENT naming what is wrong: no JSON, a member of another kind, an element that is not in
/// its datatype's range, sizes that are negative or do not add up to the body; more than 1024 inputs or outputs, 64
/// extents of a shape, 256 parameters of the request or of a tensor.
absl::Status ReadInferBody(std::optional<uint64_t> json_bytes, HttpInference& call);

/// What is sent: the JSON, then the bytes of binary outputs where they are.
struct InferAnswer {
  std::string json;
  std::vector<std::string_view> binary;  ///< Into the call.
};

/// Requires: the inference is answered; CheckAnswer.
absl::StatusOr<InferAnswer> WriteInferAnswer(const HttpInference& call);

}  // namespace octet
