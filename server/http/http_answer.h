// Statuses and bodies as HTTP says them.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "httplib.h"

namespace octet {

/// The status code that stands for a canonical code: see HttpServer.
int HttpCode(absl::StatusCode code);

/// Answers `{"error":"..."}`. Requires: not OK.
void AnswerError(const absl::Status& status, httplib::Response& response);
/// The same with a status code of HTTP's own.
void AnswerError(int code, std::string_view message, httplib::Response& response);
void AnswerJson(std::string json, httplib::Response& response, int code = 200);

/// Reads the request's body, decompressed as Inflater says; nullopt when it was answered with an error: longer than `most`, broken
/// off, followed by what is no part of it, or in a coding that is not known; 503 where the server's end has cut it off.
std::optional<std::string> ReadBody(const httplib::Request& request, httplib::Response& response,
                                    const httplib::ContentReader& reader, size_t most);

}  // namespace octet
