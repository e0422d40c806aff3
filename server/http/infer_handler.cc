#include "server/http/infer_handler.h"

#include <charconv>
#include <memory>
#include <utility>

#include "absl/synchronization/notification.h"

#include "engine/tensor/status.h"
#include "server/http/connection_server.h"
#include "server/http/http_answer.h"
#include "server/http/infer_codec.h"
#include "server/rpc/inference.h"
#include "server/scheduling/retry_after.h"

namespace octet {
namespace {

constexpr const char* kJsonLength = "Inference-Header-Content-Length";
/// How often a waiting inference asks whether its client is still there, and whether the server still waits for it.
constexpr absl::Duration kGoneCheck = absl::Milliseconds(20);

absl::StatusOr<std::optional<uint64_t>> JsonLength(const httplib::Request& request) {
  if (!request.has_header(kJsonLength)) return std::nullopt;
  const std::string text = request.get_header_value(kJsonLength);
  uint64_t length = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, length);
  if (error != std::errc() || stopped != end) {
    return InvalidArgument("{}: expected a number of bytes, got \"{}\"", kJsonLength, text);
  }
  return length;
}

/// A request's headers as an inference asks for them.
class HeaderLookup {
 public:
  explicit HeaderLookup(const httplib::Headers& headers) : headers_(headers) {}
  std::optional<std::string_view> operator()(std::string_view key) const {
    const auto found = headers_.find(std::string(key));
    if (found == headers_.end()) return std::nullopt;
    return found->second;
  }

 private:
  const httplib::Headers& headers_;
};

/// Reads the rest of the call and runs it to its end. What cannot be read is counted as what cannot be run.
absl::Status Run(const ServingParts& parts, bool access_log, const httplib::Request& request,
                 const std::shared_ptr<HttpInference>& call) {
  const auto json_length = JsonLength(request);
  const absl::Status read =
      json_length.ok() ? ReadInferBody(*json_length, *call) : json_length.status();
  absl::Notification done;
  absl::Status status;
  // Not logged: what the call has of a body that was not understood may be no UTF-8.
  Inference inference(parts, access_log && read.ok(), call);
  inference.Start({.metadata = HeaderLookup(request.headers),
                   .read = read,
                   .raw_inputs = &call->raw_inputs,
                   .only_input = call->is_raw ? &call->body : nullptr},
                  [&](const absl::Status& outcome) {
                    status = outcome;
                    done.Notify();
                  });
  while (!done.WaitForNotificationWithTimeout(kGoneCheck)) {
    if (parts.gate.abandoned() || ConnectionServer::current().gone()) inference.Cancel();
  }
  // A server that stops waits for those inside, until their answers are read: what must not wait for clients, it does before.
  if (std::optional<Gate::Pass> pass = inference.TakePass()) {
    ConnectionServer::KeepInside(*std::move(pass));
  }
  if (absl::IsCancelled(status) && parts.gate.abandoned()) {
    return ShuttingDown();
  }
  return status;
}

/// Sends the JSON and, from where they are, the binary outputs.
void SendBinary(std::shared_ptr<const HttpInference> call, InferAnswer answer,
                httplib::Response& response) {
  response.status = 200;
  response.set_header(kJsonLength, std::to_string(answer.json.size()));
  size_t length = answer.json.size();
  for (const std::string_view part : answer.binary) length += part.size();
  response.set_content_provider(
      length, "application/octet-stream",
      [call = std::move(call), answer = std::make_shared<InferAnswer>(std::move(answer))](
          size_t offset, size_t, httplib::DataSink& sink) {
        // The part that `offset` lies in, which every call writes to its end.
        std::string_view part = answer->json;
        for (auto next = answer->binary.begin(); offset >= part.size(); ++next) {
          offset -= part.size();
          part = *next;
        }
        return sink.write(part.data() + offset, part.size() - offset);
      });
}

absl::Status Answer(const ServingParts& parts, bool access_log, const httplib::Request& request,
                    const std::shared_ptr<HttpInference>& call, httplib::Response& response) {
  call->request.set_model_name(request.path_params.at("model"));
  if (const auto version = request.path_params.find("version");
      version != request.path_params.end()) {
    call->request.set_model_version(version->second);
  }
  OCTET_RETURN_IF_ERROR(Run(parts, access_log, request, call));
  OCTET_ASSIGN_OR_RETURN(InferAnswer answer, WriteInferAnswer(*call));
  if (answer.binary.empty()) {
    AnswerJson(std::move(answer.json), response);
  } else {
    SendBinary(call, std::move(answer), response);
  }
  return absl::OkStatus();
}

}  // namespace

void CountUnread(MetricsRegistry& metrics, int http_code) {
  const absl::StatusCode code =
      http_code == 413 || http_code == 429   ? absl::StatusCode::kResourceExhausted
      : http_code == 415 || http_code == 501 ? absl::StatusCode::kUnimplemented
                                             : absl::StatusCode::kInvalidArgument;
  metrics.server().unrouted.Add(static_cast<size_t>(code));
}

void AnswerInference(const ServingParts& parts, bool access_log, size_t max_body_bytes,
                     const httplib::Request& request, httplib::Response& response,
                     const httplib::ContentReader& reader) {
  std::optional<std::string> body = ReadBody(request, response, reader, max_body_bytes);
  if (!body) {
    // Of a message whose client goes before its end gRPC says nothing.
    if (!ConnectionServer::current().gone()) CountUnread(parts.metrics, response.status);
    return;
  }
  const auto call = std::make_shared<HttpInference>();
  call->body = *std::move(body);
  const absl::Status status = Answer(parts, access_log, request, call, response);
  if (!status.ok()) AnswerError(status, response);
}

}  // namespace octet
