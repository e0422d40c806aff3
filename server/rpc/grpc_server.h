// The process's gRPC endpoint: the Open Inference Protocol, health and reflection on one port.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "server/rpc/protocol_calls.h"
#include "server/rpc/serving_parts.h"

namespace octet {

class TlsCertificates;

struct GrpcServerOptions {
  std::string address = "0.0.0.0";
  int port = 0;  ///< 0 = any free one.
  int64_t max_message_bytes = int64_t{64}
                              << 20;  ///< Of a request, also unpacked; at most 2^31 - 1.
  /// Of all messages and connections together, as they are received and until they are answered. Beyond it gRPC cuts off
  /// calls (RESOURCE_EXHAUSTED) and takes no new connections. gRPC looks at the size of a message when all of it has come.
  int64_t max_receive_bytes = int64_t{1} << 30;
  /// Streams that are open at once, and as many watches of health: each costs memory, and a watch a look at its model ten times
  /// a second. One more ends at once with RESOURCE_EXHAUSTED.
  size_t max_long_calls = 10'000;
  ServerIdentity identity;
  bool access_log = false;               ///< One event per inference request.
  const TlsCertificates* tls = nullptr;  ///< Outlives the server; null: the port is plain.
};

/// Accepts calls from Start on.
///
///     serving --parts.gate.Announce()--> announced (not ready; health NOT_SERVING) --parts.gate.Close()--> draining (new
///             inferences: UNAVAILABLE) --gate empty--> idle --Shutdown--> closed
///
/// Thread-safety: safe.
class GrpcServer {
 public:
  /// UNAVAILABLE naming address and port when it cannot listen there.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           ServingParts parts);
  /// Shutdown(now).
  virtual ~GrpcServer() = default;

  virtual int port() const = 0;

  /// Closes the port and waits for the calls under way, at most until `deadline`; then they are
  /// cancelled. Open streams and health watches without a request under way end at once. Returns
  /// when no call is left, so the dispatcher must be running, or empty. May be called again.
  virtual void Shutdown(TimePoint deadline) = 0;
};

}  // namespace octet
