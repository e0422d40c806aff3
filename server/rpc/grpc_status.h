// absl::Status as gRPC sends it.
#pragma once

#include "absl/status/status.h"
#include <grpcpp/support/status.h>

namespace octet {

/// The same code and message. A message that names what a client sent may be of any length, and gRPC
/// fails a call whose trailers exceed 8 KiB: it is cut to kMaxStatusMessageBytes, whole characters. Bytes of a client's texts or of
/// files that are no UTF-8, which no protobuf client reads, are replaced.
grpc::Status ToGrpc(const absl::Status& status);
inline constexpr size_t kMaxStatusMessageBytes = 2000;

}  // namespace octet
