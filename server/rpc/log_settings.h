// The protocol's log settings, as far as one level says them.
#pragma once

#include "absl/status/status.h"

#include "proto/inference.pb.h"

namespace octet {

/// Changes what the request names, at once and until the process ends, and answers what holds then:
///
///     log_error, log_warning, log_info   whether such events are logged
///     log_verbose_level                  0; 1 = debug, 2 and more = trace, too
///     log_file "", log_format "default"  cannot be changed: the log goes to stderr
///
/// The log has one level, which includes all that is more severe. INVALID_ARGUMENT for settings that no level
/// stands for (information without warnings), unknown ones, and values of another kind; nothing changes then.
/// Thread-safety: safe.
absl::Status ChangeLogSettings(const inference::LogSettingsRequest& request,
                               inference::LogSettingsResponse& response);

}  // namespace octet
