// Traces of requests for an OpenTelemetry collector: which requests have one, and how it gets there.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include <opentelemetry/version.h>

#include "config/server_config.h"
#include "server/scheduling/clock.h"
#include "server/scheduling/request.h"
#include "server/tracing/traced_step.h"

OPENTELEMETRY_BEGIN_NAMESPACE
namespace sdk::trace {
class SpanExporter;
}
OPENTELEMETRY_END_NAMESPACE

namespace octet {

struct TracePipeline;

/// What a server, or one model, was told about traces; what is absent is as in the scope around it: the
/// model's as the server's, the server's as its configuration says.
struct TraceSettings {
  std::optional<bool> on;
  std::optional<int64_t>
      rate;  ///< One of so many requests that come without a trace has one; >= 1.
  std::optional<int64_t> count;  ///< Traces still to be made; -1 = no end.
  bool operator==(const TraceSettings&) const = default;
};

/// A request that has been answered.
struct TracedRequest {
  std::string_view id;
  std::string_view model;
  std::string_view version;  ///< Empty, as the next two: it was refused before that was known.
  std::string_view precision;
  std::string_view route;
  int64_t rows = 0;
  TimePoint received;
  /// Decoded, its turn in its sequence come, and given to the scheduler.
  std::optional<TimePoint> submitted;
  RequestTimings timings;
  const absl::Status& status;
  std::span<const TracedStep> steps = {};  ///< Of a pipeline: drawn in place of its stages.
};

/// The trace of one request. Thread-safety: one thread at a time.
class RequestTrace {
 public:
  virtual ~RequestTrace() = default;
  /// Makes its spans, with texts of at most 256 bytes, and puts them into the queue to the collector, which never waits:
  ///
  ///     infer MODEL |----------------------------------------------|  received to answered
  ///       decode    |---|
  ///       queue         |-------|
  ///       compute_input         |--|      of the batch that the request was in
  ///       compute_infer            |------------|
  ///       compute_output                        |--|
  /// Of a pipeline the stages are those of each step, below a span of the step's own:
  ///
  ///       decode     |---|
  ///       step NAME      |---------------|     from when its inputs are there
  ///         queue ...    |----|
  ///       step NAME                      |------------|
  /// The request is an error where the server is at fault; a client's mistake is not (OpenTelemetry's conventions for gRPC).
  virtual void Finish(const TracedRequest& request) = 0;
};

/// Decides and sends. Spans are sent in batches by a thread of its own; what its queue (2048 spans) has no room for
/// is lost, and a collector that is away costs requests nothing. Thread-safety: safe.
///
/// Source: W3C Trace Context; OpenTelemetry's ParentBased sampler; the trace extension of Triton's protocol.
class Tracer {
 public:
  /// A call's metadata or headers, asked for by a key in lower case.
  using Headers = absl::FunctionRef<std::optional<std::string_view>(std::string_view key)>;

  /// Who made the traces.
  struct Service {
    std::string name;
    std::string version;
  };

  /// A tracer that sends to config.otlp_endpoint over gRPC; what the configuration does not say is as the standard's environment
  /// variables say (OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_RESOURCE_ATTRIBUTES). INVALID_ARGUMENT for an endpoint that is no http:// or https:// URL.
  static absl::StatusOr<std::unique_ptr<Tracer>> Create(const ServerConfig::Tracing& config,
                                                        const Service& service, Clock& clock);
  static absl::Status CheckEndpoint(const std::string& endpoint);

  Tracer(std::unique_ptr<opentelemetry::sdk::trace::SpanExporter> exporter, int64_t rate,
         const Service& service, Clock& clock);
  /// Sends what waits; takes a few seconds when the collector does not answer.
  ~Tracer();

  /// A trace for a request that came with a sampled `traceparent`, and for one of `rate` that came with none; null for
  /// others, and when it is off or its count is used up.
  std::unique_ptr<RequestTrace> Sample(const std::string& model, Headers headers);

  /// What was set for a model; for the server: "".
  TraceSettings Told(const std::string& model) const;
  /// What holds: no field is absent.
  TraceSettings Effective(const std::string& model);
  /// Replaces what was set.
  void Tell(const std::string& model, const TraceSettings& settings);

 private:
  struct Scope {
    TraceSettings told;
    int64_t seen = 0;  ///< Requests without a trace of their own.
  };

  /// The scopes that say it for this model: the first that was told, else the server's.
  struct Holders {
    const Scope& on;
    Scope& rate;
    Scope& count;
  };
  Holders HoldersOf(const std::string& model) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t default_rate_;
  const std::shared_ptr<TracePipeline> pipeline_;
  mutable absl::Mutex mutex_;
  /// "" is the server's, which is always there.
  absl::flat_hash_map<std::string, std::unique_ptr<Scope>> scopes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace octet
