// The process's HTTP endpoint: the protocol's REST form, health included, on one port.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "server/http/experiments.h"
#include "server/rpc/protocol_calls.h"
#include "server/rpc/serving_parts.h"

namespace octet {

struct HttpServerOptions {
  std::string address = "0.0.0.0";
  int port = 0;                                ///< 0 = any free one.
  int64_t max_body_bytes = int64_t{64} << 20;  ///< Of a request, also once decompressed.
  int threads = 32;                            ///< Requests under way at once; health has its own.
  int connections = 1024;
  ServerIdentity identity;
  bool access_log = false;  ///< One event per inference request.
  ProcessFacts process;
};

/// Answers what gRPC answers, by the same code, as JSON; tensors also in binary. Requests may be compressed
/// (gzip, deflate), JSON answers are when the client accepts gzip. An error is `{"error":"..."}` with
///
///     400 INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE   403 PERMISSION_DENIED   404 NOT_FOUND   409 ALREADY_EXISTS
///     413 body too large   429 RESOURCE_EXHAUSTED (Retry-After, in whole seconds)   499 CANCELLED   501 UNIMPLEMENTED,
///     Transfer-Encoding other than chunked
///     503 UNAVAILABLE (with Retry-After when the server ends)   504 DEADLINE_EXCEEDED   500 everything else
///
/// /v2/health/{live,ready} and /v2/models/M/ready are 200 for yes. A client that closes its side of the
/// connection while its inference waits has cancelled it.
/// How threads and connections go together: ConnectionServer. Thread-safety: safe.
class HttpServer {
 public:
  /// UNAVAILABLE naming address and port when it cannot listen there.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           ServingParts parts);
  /// Stop, with kLastAnswers.
  virtual ~HttpServer() = default;
  /// How long those whose answer is ready have to take it, whatever else has run out.
  static constexpr std::chrono::seconds kLastAnswers{1};
  /// Closes the port and the idle connections, and waits for the answers under way. Who has not taken an answer at `deadline` is
  /// cut off. Returns whether nobody was. May be called again. An inference is inside the gate until its answer was taken.
  virtual bool Stop(TimePoint deadline) = 0;
  virtual int port() const = 0;
};

}  // namespace octet
