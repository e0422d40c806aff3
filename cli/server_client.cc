#include "cli/server_client.h"

#include <charconv>
#include <utility>

#include "absl/strings/ascii.h"
#include "httplib.h"

#include "engine/tensor/status.h"

namespace octet::cli {
namespace {

/// A load answers when the model is compiled.
constexpr time_t kAnswerSeconds = 600;
constexpr time_t kConnectSeconds = 5;

absl::StatusOr<nlohmann::json> Read(const httplib::Result& result, const std::string& address) {
  if (!result) {
    return MakeError(absl::StatusCode::kUnavailable, "no answer from http://{} ({})", address,
                     httplib::to_string(result.error()));
  }
  nlohmann::json json = nlohmann::json::parse(result->body, nullptr, false);
  if (result->status >= 200 && result->status < 300) {
    if (result->body.empty()) return nlohmann::json::object();
    if (json.is_discarded()) return Internal("http://{} answered no JSON", address);
    return json;
  }
  const bool says_why = json.is_object() && json.contains("error") && json["error"].is_string();
  return MakeError(CodeOfHttpStatus(result->status), "http://{} answered {}: {}", address,
                   result->status, says_why ? json["error"].get<std::string>() : result->body);
}

httplib::Client Connect(const std::string& host, int port) {
  httplib::Client client(host, port);
  client.set_url_encode(false);  // UrlSegment has done it
  client.set_connection_timeout(kConnectSeconds);
  client.set_read_timeout(kAnswerSeconds);
  return client;
}

}  // namespace

absl::StatusCode CodeOfHttpStatus(int status) {
  switch (status) {
    case 400:
      return absl::StatusCode::kInvalidArgument;
    case 404:
      return absl::StatusCode::kNotFound;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 501:
      return absl::StatusCode::kUnimplemented;
    case 408:
    case 502:
    case 503:
    case 504:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

std::string UrlSegment(std::string_view name) {
  std::string segment;
  for (const char c : name) {
    const bool plain = absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                       std::string_view("-._~").find(c) != std::string_view::npos;
    segment += plain ? std::string(1, c) : Format("%{:02X}", static_cast<unsigned char>(c));
  }
  return segment;
}

absl::StatusOr<ServerClient> ServerClient::For(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon != std::string::npos) {
    const char* end = address.data() + address.size();
    const auto [stop, error] = std::from_chars(address.data() + colon + 1, end, port);
    if (error != std::errc() || stop != end) port = 0;
  }
  if (port < 1 || port > 65535 || colon == 0) {
    return InvalidArgument("expected HOST:PORT of a server's HTTP port, got \"{}\"", address);
  }
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return ServerClient(address, std::move(host), port);
}

absl::StatusOr<nlohmann::json> ServerClient::Get(const std::string& path) const {
  return Read(Connect(host_, port_).Get(path), address_);
}

absl::StatusOr<nlohmann::json> ServerClient::Post(const std::string& path) const {
  return Read(Connect(host_, port_).Post(path, "", "application/json"), address_);
}

}  // namespace octet::cli
