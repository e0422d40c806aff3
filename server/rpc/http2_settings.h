// What a gRPC server lets its clients send at once.
#pragma once

#include <grpcpp/server_builder.h>

namespace octet {

/// Lets a client send tensors of up to 4 MiB without waiting for leave, in frames of up to 256 KiB (RFC 9113, 6.5.2:
/// SETTINGS_INITIAL_WINDOW_SIZE and SETTINGS_MAX_FRAME_SIZE). gRPC begins with 64 and 16 KiB and grows them with the
/// bandwidth-delay product that it measures. That is small where client and server are near each other, so that a request of
/// 602 kB waits several times, and is read in forty pieces: half of what such a request costs the server is that. What all
/// requests may take together is bounded by the resource quota as before, and what comes between frames of another
/// request on the same connection waits at most for 256 KiB.
inline void SetHttp2(grpc::ServerBuilder& builder) {
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 << 20);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 256 << 10);
}

}  // namespace octet
