// absl::Status with std::format. Debian's Abseil is built with a string_view class of its own, which neither
// std::string_view nor std::format converts to or from; this file is where the two meet.
#pragma once

#include <format>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/tensor/format.h"

namespace octet {

/// An error of `code` with a formatted message: static text first, values last.
template <typename... Args>
absl::Status MakeError(absl::StatusCode code, std::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, Format(format, std::forward<Args>(args)...));
}

/// The caller's fault: the request, file or option is wrong.
template <typename... Args>
absl::Status InvalidArgument(std::format_string<Args...> format, Args&&... args) {
  return MakeError(absl::StatusCode::kInvalidArgument, format, std::forward<Args>(args)...);
}
template <typename... Args>
absl::Status NotFound(std::format_string<Args...> format, Args&&... args) {
  return MakeError(absl::StatusCode::kNotFound, format, std::forward<Args>(args)...);
}
template <typename... Args>
absl::Status Unimplemented(std::format_string<Args...> format, Args&&... args) {
  return MakeError(absl::StatusCode::kUnimplemented, format, std::forward<Args>(args)...);
}
/// Our bug.
template <typename... Args>
absl::Status Internal(std::format_string<Args...> format, Args&&... args) {
  return MakeError(absl::StatusCode::kInternal, format, std::forward<Args>(args)...);
}

/// The message as the standard's string_view.
inline std::string_view Message(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

/// The same error, payloads included, with "<context>: " before its message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), Format("{}: {}", context, Message(status)));
  status.ForEachPayload(
      [&](auto type, const auto& payload) { annotated.SetPayload(type, payload); });
  return annotated;
}

}  // namespace octet

/// Returns the Status of `expression` from the calling function when it is an error.
#define OCTET_RETURN_IF_ERROR(expression)                                                  \
  do {                                                                                     \
    if (absl::Status octet_status = (expression); !octet_status.ok()) return octet_status; \
  } while (false)

#define OCTET_CONCAT_INNER_(a, b) a##b
#define OCTET_CONCAT_(a, b) OCTET_CONCAT_INNER_(a, b)
/// `OCTET_ASSIGN_OR_RETURN(auto x, F());` : x is F's value, or the calling function returns F's error.
#define OCTET_ASSIGN_OR_RETURN(lhs, expression) \
  OCTET_ASSIGN_OR_RETURN_(OCTET_CONCAT_(octet_result_, __LINE__), lhs, expression)
#define OCTET_ASSIGN_OR_RETURN_(result, lhs, expression) \
  auto result = (expression);                            \
  if (!result.ok()) return std::move(result).status();   \
  lhs = *std::move(result)
