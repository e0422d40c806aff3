// Sends prepared requests to a server, in a closed or an open loop, and measures the answers.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/error_counts.h"
#include "cli/latencies.h"
#include "cli/load/load_target.h"
#include "cli/load/rate_plan.h"
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>

namespace octet::cli {

/// What one model or precision is asked.
struct LoadStream {
  LoadTarget target;
  std::vector<grpc::ByteBuffer> requests;  ///< ModelInferRequests, serialized once, sent in turn.
};

struct LoadSettings {
  std::string target;                                     ///< host:port
  std::shared_ptr<grpc::ChannelCredentials> credentials;  ///< What it is spoken to with; not null.
  int connections = 1;  ///< TCP connections that the requests are spread over.
  int in_flight = 1;    ///< Requests under way: always in a closed loop, at most in an open one.
  std::optional<RatePlan> plan;  ///< Of an open loop; a closed one when absent.
  ArrivalKind arrivals = ArrivalKind::kPoisson;
  uint64_t seed = 1;                         ///< Of the arrivals, and of the choice among streams.
  double seconds = 5;                        ///< Of a closed loop.
  std::chrono::milliseconds timeout{60000};  ///< Of each request.
};

/// What a run has seen. A latency counts from when the request was to be sent by the plan, so that requests which had to
/// wait for a stalled server or client are not left out; in a closed loop from when it was sent.
struct LoadTally {
  /// Of answers that were no errors, by stream and by the precision that answered; empty when the answer does not say.
  std::vector<std::map<std::string, Latencies, std::less<>>> answered;
  ErrorCounts errors;
  std::vector<int64_t> by_connection;  ///< Requests that were finished, errors too.
  Latencies late;          ///< Of an open loop: from when a request was to be sent to when it was.
  int64_t held_back = 0;   ///< Requests that waited because `in_flight` others were under way.
  double seconds = 0;      ///< From the start to the last answer, or to the plan's end.
  double cpu_seconds = 0;  ///< This process's.

  Latencies All() const;
};

/// A look at a run under way.
struct LoadProgress {
  double seconds = 0;  ///< Since the start.
  int64_t sent = 0;
  int64_t finished = 0;
  int64_t failed = 0;
  Latencies recent;  ///< Since the last look.
};

/// Runs one load: a thread for the answers and, in an open loop, one that sends. `look` is called five times a second on the
/// calling thread, and behind it `keep_going`: when that says no, nothing more is sent, and what is under way is cancelled; both may
/// be empty. Requires: every stream has a request. Errors: UNAVAILABLE naming the target when it takes no connection within ten
/// seconds; CANCELLED for a run that was stopped.
absl::StatusOr<LoadTally> RunLoad(const std::vector<LoadStream>& streams,
                                  const LoadSettings& settings,
                                  const std::function<void(const LoadProgress&)>& look,
                                  const std::function<bool()>& keep_going);

}  // namespace octet::cli
