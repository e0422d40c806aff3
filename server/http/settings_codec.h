// The protocol's log and trace settings as JSON.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

#include "proto/inference.pb.h"

namespace octet {

/// Reads `{"log_info":true,...}`; what is empty changes nothing. INVALID_ARGUMENT for what is no such object.
absl::Status ReadLogSettings(std::string_view json, inference::LogSettingsRequest& request);
std::string LogSettingsJson(const inference::LogSettingsResponse& response);

/// Reads `{"trace_level":["OFF"],"trace_rate":"100","trace_count":null}`: null sets back. Errors as above.
absl::Status ReadTraceSettings(std::string_view json, inference::TraceSettingRequest& request);
std::string TraceSettingsJson(const inference::TraceSettingResponse& response);

}  // namespace octet
