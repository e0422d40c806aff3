// What the verbs ask of a running server's HTTP port.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "engine/tensor/status.h"

namespace octet::cli {

/// A name as one segment of a path: everything but letters, digits and "-._~" as %XX.
std::string UrlSegment(std::string_view name);

/// The code behind an HTTP status: of a server's own answer, or of a proxy's in front of it, which says that there is none
/// (408, 502, 504: UNAVAILABLE).
absl::StatusCode CodeOfHttpStatus(int status);

/// What `show` makes of an answer to `path`. INTERNAL naming both where it throws, as nlohmann::json does for what is not there
/// or of another type: who answered is another server, or another version of this one.
template <typename Show>
absl::StatusOr<std::string> ShowAnswer(std::string_view path, const Show& show) {
  try {
    return show();
  } catch (const nlohmann::json::exception& error) {
    return Internal("what answers {} is no octet server of this version: {}", path, error.what());
  }
}

/// One server. Thread-safety: one call at a time.
class ServerClient {
 public:
  /// `address` is HOST:PORT of the HTTP port. INVALID_ARGUMENT when it is not.
  static absl::StatusOr<ServerClient> For(const std::string& address);

  /// The JSON that the server answers. Errors: the server's own, with the code that stands behind its HTTP status;
  /// UNAVAILABLE naming the address when there is no answer, INTERNAL when it is no JSON.
  absl::StatusOr<nlohmann::json> Get(const std::string& path) const;
  absl::StatusOr<nlohmann::json> Post(const std::string& path) const;

 private:
  ServerClient(std::string address, std::string host, int port)
      : address_(std::move(address)), host_(std::move(host)), port_(port) {}

  std::string address_;
  std::string host_;
  int port_;
};

}  // namespace octet::cli
