// Names in ONNX files.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace octet {

/// Names end up in messages, replies, logs and metrics: none may carry what those cannot. `what` it names begins the message.
/// Errors: INVALID_ARGUMENT when it is longer than 4096 bytes, or not UTF-8.
absl::Status CheckName(std::string_view name, std::string_view what);

/// Of the two names that ONNX's own domain goes by, the empty one.
std::string NormalDomain(const std::string& domain);

}  // namespace octet
