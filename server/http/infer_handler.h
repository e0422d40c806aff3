// POST .../infer: one inference, from the request to the answer.
#pragma once

#include <cstddef>

#include "httplib.h"

#include "server/rpc/serving_parts.h"

namespace octet {

/// Answers an inference on the calling thread, which waits for it. The model's name and version are path
/// parameters of the request, "model" and perhaps "version".
void AnswerInference(const ServingParts& parts, bool access_log, size_t max_body_bytes,
                     const httplib::Request& request, httplib::Response& response,
                     const httplib::ContentReader& reader);

/// Counts an inference that was answered with `http_code` since its body could not be read, by the code that gRPC has for such a
/// message.
void CountUnread(MetricsRegistry& metrics, int http_code);

}  // namespace octet
