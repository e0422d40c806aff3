// The process's HTTP endpoint: is it alive, is it ready.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace octet {

/// Answers GET /v2/health/live with 200 and /v2/health/ready with 200 or 503, as JSON:
/// `{"live":true}`, `{"ready":false}`; anything else with 404 and `{"error":"..."}`.
class HttpServer {
 public:
  /// `ready` is asked on the endpoint's threads. Port 0 takes any free one. UNAVAILABLE naming
  /// address and port when it cannot listen there.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& address, int port,
                                                           std::function<bool()> ready);
  /// Closes the port and waits for the answers under way.
  virtual ~HttpServer() = default;
  virtual int port() const = 0;
};

}  // namespace octet
