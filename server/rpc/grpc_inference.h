// A ModelInfer as it crosses gRPC: its tensors are read where gRPC received them, and sent from where they were written.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <grpcpp/support/byte_buffer.h>

#include "engine/tensor/wire_tensor.h"
#include "server/rpc/infer_messages.h"

namespace octet {

/// The messages, and all that their tensors lie in.
struct GrpcInference : InferMessages {
  std::vector<grpc::Slice> received;                     ///< As long as raw_contents are there.
  std::vector<std::string_view> pieces;                  ///< Of raw_contents, into `received`.
  std::vector<WireBytes> raw_contents;                   ///< The request's, whose message has none.
  google::protobuf::RepeatedPtrField<std::string> sent;  ///< The answer's, once written.
};

/// Reads a message of at most `most_bytes` into a new `call`; nothing of raw_input_contents is copied, unless the message is
/// compressed. INVALID_ARGUMENT when it is no ModelInferRequest, or has more raw contents than inputs; before anything is made
/// of it, for more than kMaxTensors inputs, outputs or raw contents, kMaxParameters parameters of the request or of one of these, kMaxExtents
/// extents, or so many bytes_contents that they would take more than `most_bytes` beside their characters. Else as
/// ReadSlices; RESOURCE_EXHAUSTED without memory for it.
absl::Status ReadInferRequest(const grpc::ByteBuffer& message, size_t most_bytes,
                              GrpcInference& call);

/// Writes the answer as a ModelInferResponse; raw_output_contents of kLeastShared bytes or more are sent from where they
/// are, which keeps `call`. RESOURCE_EXHAUSTED for more than a message can hold.
absl::StatusOr<grpc::ByteBuffer> WriteInferResponse(const std::shared_ptr<GrpcInference>& call);
/// The same as a ModelStreamInferResponse, with the parameter "triton_final_response": each request has one answer.
absl::StatusOr<grpc::ByteBuffer> WriteStreamResponse(const std::shared_ptr<GrpcInference>& call);
/// A ModelStreamInferResponse that says what was wrong with a request, which is known by its id.
grpc::ByteBuffer WriteStreamError(const std::string& id, const std::string& message);
}  // namespace octet
