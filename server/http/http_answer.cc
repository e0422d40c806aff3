#include "server/http/http_answer.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"

#include "engine/tensor/status.h"
#include "server/http/connection_server.h"
#include "server/http/json_writer.h"
#include "server/rpc/inflater.h"
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
    const auto seconds =
        std::chrono::ceil<std::chrono::seconds>(after.value_or(kUnknownRetryAfter));
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

/// What a reader brings of a body, unpacked.
class Body {
 public:
  /// Requires: IsKnown.
  Body(std::string_view coding, size_t length, size_t most) : most_(most) {
    if (coding == "gzip") inflater_.emplace(Inflater::Coding::kGzip, most);
    if (coding == "deflate") inflater_.emplace(Inflater::Coding::kDeflate, most);
    if (!inflater_) text_.reserve(length);
  }
  static bool IsKnown(std::string_view coding) {
    return coding.empty() || coding == "gzip" || coding == "deflate" || coding == "identity";
  }

  /// False when no more is to be read.
  bool Take(std::string_view piece) {
    if (inflater_) {
      result_ = inflater_->Take(piece, [this] { return Grow(); });
    } else if (piece.size() > most_ - text_.size()) {
      result_ = Inflater::Result::kTooLarge;
    } else {
      text_.append(piece);
    }
    return result_ == Inflater::Result::kOk;
  }
  /// Nothing more comes. `whole`: all that was announced has come.
  Inflater::Result Finish(bool whole) {
    if (result_ != Inflater::Result::kOk) return result_;
    if (!inflater_) return whole ? Inflater::Result::kOk : Inflater::Result::kDamaged;
    text_.erase(text_.size() - inflater_->unused());
    return whole ? inflater_->Finish() : Inflater::Result::kDamaged;
  }
  std::string TakeText() { return std::move(text_); }

 private:
  std::span<char> Grow() {
    constexpr size_t kLeast = size_t{4} << 10;
    constexpr size_t kMost = size_t{1} << 20;
    const size_t before = text_.size();
    text_.resize(before + std::clamp(before, kLeast, kMost));
    return std::span(text_).subspan(before);
  }

  const size_t most_;
  std::string text_;
  std::optional<Inflater> inflater_;
  Inflater::Result result_ = Inflater::Result::kOk;
};

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
  const auto refuse = [&](int code, std::string_view message) {
    AnswerError(code, message, response);
    response.set_header("Connection", "close");
    return std::nullopt;
  };
  const std::string_view coding = ConnectionServer::BodyCoding();
  if (!Body::IsKnown(coding)) {
    return refuse(415, Format("Content-Encoding, expected gzip or deflate, got \"{}\"", coding));
  }
  if (request.is_multipart_form_data()) {  // The library would take it apart.
    return refuse(415, "Content-Type: multipart/form-data is not supported");
  }
  const std::string too_large = Format("the body is too large: at most {} bytes", most);
  const uint64_t length = chunked ? 0 : request.get_header_value_u64("Content-Length");
  if (length > most) return refuse(413, too_large);
  Body body(coding, static_cast<size_t>(length), most);
  const bool whole = reader([&](const char* data, size_t size) { return body.Take({data, size}); });
  switch (body.Finish(whole)) {
    case Inflater::Result::kOk:
      break;
    case Inflater::Result::kTooLarge:
      return refuse(413, too_large);
    case Inflater::Result::kDamaged:
      if (!whole && ConnectionServer::IsStopping()) {  // not the client's mistake
        AnswerError(ShuttingDown(), response);
        response.set_header("Connection", "close");
        return std::nullopt;
      }
      return refuse(400, "the body breaks off, or is not compressed as its headers say");
    case Inflater::Result::kNoMemory:
      AnswerError(absl::ResourceExhaustedError("out of memory for a request"), response);
      response.set_header("Connection", "close");
      return std::nullopt;
  }
  ConnectionServer::BodyIsRead();
  return body.TakeText();
}

}  // namespace octet
