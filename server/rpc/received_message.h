// A message as gRPC received it, within bounds.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

namespace octet {

/// Returns the slices of a message, unpacked when its client has compressed it (gzip or deflate). gRPC's own unpacking, which
/// knows no bound, must be off: GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION.
/// RESOURCE_EXHAUSTED for more than `most` bytes, after at most one slice more was made; INVALID_ARGUMENT when it is
/// not compressed as it says.
absl::StatusOr<std::vector<grpc::Slice>> ReadSlices(const grpc::ByteBuffer& message, size_t most);

/// Reads the message of a call that is no inference: as ReadSlices of kMaxControlBytes; INVALID_ARGUMENT when it is not of the
/// type.
absl::Status ReadMessage(const grpc::ByteBuffer& message, google::protobuf::Message& read);
grpc::ByteBuffer WriteMessage(const google::protobuf::Message& message);

}  // namespace octet
