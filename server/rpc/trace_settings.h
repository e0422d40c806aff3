// The protocol's trace settings.
#pragma once

#include "absl/status/status.h"

#include "proto/inference.pb.h"
#include "server/tracing/tracer.h"

namespace octet {

/// Changes what the request names, at once and until the process ends, for the model that it names or for all, and
/// answers what holds then:
///
///     trace_level   ["TIMESTAMPS"] or ["OFF"]
///     trace_rate    one of so many requests that come without a trace
///     trace_count   traces still to be made, "-1" = no end
///     trace_mode "opentelemetry", trace_file "", log_frequency "0"   cannot be changed
///
/// A setting without a value is set back: a model's to the server's, the server's to its configuration.
/// Null `tracer`: no collector is configured; all is OFF. INVALID_ARGUMENT naming the setting, expected and got;
/// FAILED_PRECONDITION for a change without a collector; nothing changes then.
/// Thread-safety: safe; of two changes at once one may undo the other.
absl::Status ChangeTraceSettings(Tracer* tracer, const inference::TraceSettingRequest& request,
                                 inference::TraceSettingResponse& response);

}  // namespace octet
