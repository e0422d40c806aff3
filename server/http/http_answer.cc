#include "server/http/http_answer.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"

#include "engine/tensor/status.h"
#include "server/http/connection_server.h"
#include "server/http/json_writer.h"
#include "server/scheduling/retry_after.h"

namespace octet {

int HttpCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;  // nginx's: the client has gone
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

void AnswerJson(std::string json, httplib::Response& response, int code) {
  response.status = code;
  response.set_content(std::move(json), "application/json");
}

void AnswerError(int code, std::string_view message, httplib::Response& response) {
  std::string json = "{\"error\":";
  AppendJsonText(message, json);
  json += '}';
  AnswerJson(std::move(json), response, code);
}

void AnswerError(const absl::Status& status, httplib::Response& response) {
  const int code = HttpCode(status.code());
  const auto after = RetryAfterOf(status);
  if (after || code == 429) {
    const auto seconds = std::chrono::ceil<std::chrono::seconds>(after.value_or(kLeastRetryAfter));
    response.set_header("Retry-After", std::to_string(seconds.count()));
  }
  AnswerError(code, Message(status), response);
}

namespace {

/// The one transfer coding that the library knows: with another it would take what stands on the wire for the body.
bool IsChunkedAlone(const httplib::Request& request) {
  return request.get_header_value_count("Transfer-Encoding") == 1 &&
         absl::EqualsIgnoreCase(request.get_header_value("Transfer-Encoding"), "chunked");
}

}  // namespace

std::optional<std::string> ReadBody(const httplib::Request& request, httplib::Response& response,
                                    const httplib::ContentReader& reader, size_t most) {
  const bool chunked = request.has_header("Transfer-Encoding");
  if (chunked && !IsChunkedAlone(request)) {
    AnswerError(501,
                Format("Transfer-Encoding, expected chunked, got \"{}\"",
                       request.get_header_value("Transfer-Encoding")),
                response);
    response.set_header("Connection", "close");
    return std::nullopt;
  }
  // The library would read until the client closes the connection.
  if (!chunked && !request.has_header("Content-Length")) return std::string();
  const auto too_large = [&] {
    AnswerError(413, Format("the body is too large: at most {} bytes", most), response);
    response.set_header("Connection", "close");
    return std::nullopt;
  };
  const std::string coding = request.get_header_value("Content-Encoding");
  if (!coding.empty() && coding != "gzip" && coding != "deflate" && coding != "identity") {
    AnswerError(415, Format("Content-Encoding, expected gzip or deflate, got \"{}\"", coding),
                response);
    response.set_header("Connection", "close");
    return std::nullopt;
  }
  if (request.is_multipart_form_data()) {  // The library would take it apart.
    AnswerError(415, "Content-Type: multipart/form-data is not supported", response);
    response.set_header("Connection", "close");
    return std::nullopt;
  }
  const uint64_t length = chunked ? 0 : request.get_header_value_u64("Content-Length");
  if (length > most) return too_large();
  std::string body;
  body.reserve(static_cast<size_t>(length));
  bool fits = true;
  const bool read = reader([&](const char* data, size_t size) {
    fits = size <= most - body.size();
    if (fits) body.append(data, size);
    return fits;
  });
  if (!fits) return too_large();
  if (!read) {
    AnswerError(400, "the body breaks off, or is not compressed as its headers say", response);
    response.set_header("Connection", "close");
    return std::nullopt;
  }
  ConnectionServer::BodyIsRead();
  return body;
}

}  // namespace octet
