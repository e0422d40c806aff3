#include "server/tracing/tracer.h"

#include <chrono>
#include <utility>

#include <opentelemetry/exporters/otlp/otlp_grpc_exporter_factory.h>
#include <opentelemetry/sdk/common/global_log_handler.h>
#include <opentelemetry/sdk/resource/resource.h>
#include <opentelemetry/sdk/trace/batch_span_processor_factory.h>
#include <opentelemetry/sdk/trace/exporter.h>
#include <opentelemetry/sdk/trace/processor.h>
#include <opentelemetry/sdk/trace/tracer_provider.h>
#include <opentelemetry/sdk/trace/tracer_provider_factory.h>
#include <opentelemetry/trace/propagation/http_trace_context.h>
#include <opentelemetry/trace/tracer.h>

#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"
#include "server/logging/event_log.h"

namespace octet {
namespace {

namespace otel = opentelemetry;

/// An export that takes longer has failed, so that a collector that hangs does not hold up the end of the process.
constexpr std::chrono::seconds kExportTimeout{3};
constexpr std::chrono::milliseconds kExportInterval{1000};
/// Also the largest export: then at most two are under way when the process ends.
constexpr size_t kMaxQueuedSpans = 2048;

/// Of a text in a span: clients choose it, and the queue is bounded by spans.
constexpr size_t kMaxTextBytes = 256;
/// A longer tracestate may be left out (W3C Trace Context, 3.3.1.5); it is parsed by regular expressions.
constexpr size_t kMaxTraceStateBytes = 512;

otel::nostd::string_view View(std::string_view text) { return {text.data(), text.size()}; }

/// The beginning of a text, as protobuf can hold it: what is no UTF-8 becomes `?`.
std::string SpanText(std::string_view text) {
  std::string kept;
  for (size_t at = 0; at < text.size();) {
    const CodePoint next = DecodeUtf8(text, at);
    if (kept.size() + next.bytes > kMaxTextBytes) break;
    if (next.valid) {
      kept.append(text, at, next.bytes);
    } else {
      kept += '?';
    }
    at += next.bytes;
  }
  return kept;
}

bool IsServersFault(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

/// The library's own complaints, which would go to stdout.
class EventLogHandler final : public otel::sdk::common::internal_log::LogHandler {
 public:
  void Handle(otel::sdk::common::internal_log::LogLevel level, const char*, int,
              const char* message, const otel::sdk::common::AttributeMap&) noexcept override {
    const bool error = level == otel::sdk::common::internal_log::LogLevel::Error;
    LogEvent(error ? LogLevel::kError : LogLevel::kWarn, "tracing",
             {{"message", std::string_view(message == nullptr ? "" : message)}});
  }
};

/// Metadata as the propagator reads it.
class HeaderCarrier final : public otel::context::propagation::TextMapCarrier {
 public:
  explicit HeaderCarrier(Tracer::Headers headers) : headers_(headers) {}
  otel::nostd::string_view Get(otel::nostd::string_view key) const noexcept override {
    const std::string_view value = headers_({key.data(), key.size()}).value_or("");
    return View(key == "tracestate" && value.size() > kMaxTraceStateBytes ? "" : value);
  }
  void Set(otel::nostd::string_view, otel::nostd::string_view) noexcept override {}

 private:
  Tracer::Headers headers_;
};

/// What the caller's trace is; invalid when it has none that can be read.
otel::trace::SpanContext CallersTrace(Tracer::Headers headers) {
  if (!headers("traceparent")) return otel::trace::SpanContext::GetInvalid();
  otel::context::Context empty;
  const otel::context::Context context =
      otel::trace::propagation::HttpTraceContext().Extract(HeaderCarrier(headers), empty);
  return otel::trace::GetSpan(context)->GetContext();
}

}  // namespace

/// The way of spans to the collector.
struct TracePipeline {
  const Clock& clock;
  std::unique_ptr<otel::sdk::trace::TracerProvider> provider;
  otel::nostd::shared_ptr<otel::trace::Tracer> tracer;
};

namespace {

/// Places points of the server's clock on the wall clock.
class SpanTimes {
 public:
  explicit SpanTimes(const Clock& clock)
      : now_(clock.Now()), wall_(std::chrono::system_clock::now()) {}

  otel::trace::StartSpanOptions Start(TimePoint time,
                                      const otel::trace::SpanContext& parent) const {
    otel::trace::StartSpanOptions options;
    options.start_steady_time = otel::common::SteadyTimestamp(time);
    options.start_system_time = otel::common::SystemTimestamp(
        wall_ - std::chrono::duration_cast<std::chrono::system_clock::duration>(now_ - time));
    options.parent = parent;
    return options;
  }

  static otel::trace::EndSpanOptions End(TimePoint time) {
    otel::trace::EndSpanOptions options;
    options.end_steady_time = otel::common::SteadyTimestamp(time);
    return options;
  }

 private:
  const TimePoint now_;
  const std::chrono::system_clock::time_point wall_;
};

/// Says what went wrong, and whether that was the server's fault.
void Tell(otel::trace::Span& span, const absl::Status& status) {
  span.SetAttribute("rpc.grpc.status_code", static_cast<int64_t>(status.code()));
  if (status.ok()) return;
  const std::string message = SpanText(Message(status));
  span.SetAttribute("octet.error", message);
  if (IsServersFault(status.code())) span.SetStatus(otel::trace::StatusCode::kError, message);
}

/// Draws what lies below a span.
class SpansBelow {
 public:
  SpansBelow(otel::trace::Tracer& tracer, const SpanTimes& times,
             const otel::trace::SpanContext& parent)
      : tracer_(tracer), times_(times), parent_(parent) {}

  void Add(const char* name, TimePoint begin, Nanoseconds duration) {
    tracer_.StartSpan(name, times_.Start(begin, parent_))->End(SpanTimes::End(begin + duration));
  }

  /// Each where the one before it ended.
  void AddStages(TimePoint begin, const RequestTimings& timings) {
    const auto add = [&](const char* name, Nanoseconds duration) {
      Add(name, begin, duration);
      begin += duration;
    };
    add("queue", timings.queue);
    if (!timings.ran) return;
    add("compute_input", timings.compute_input);
    add("compute_infer", timings.compute_infer);
    add("compute_output", timings.compute_output);
  }

  void AddSteps(std::span<const TracedStep> steps) {
    for (const TracedStep& step : steps) {
      if (step.begin) AddStep(step);
    }
  }

 private:
  void AddStep(const TracedStep& step) {
    const std::string name = SpanText(step.name);
    const std::string model = SpanText(step.model);
    const auto span = tracer_.StartSpan("step " + name,
                                        {{"octet.step", name},
                                         {"octet.model", model},
                                         {"octet.version", View(step.version)},
                                         {"octet.precision", View(step.precision)},
                                         {"octet.route", View(step.route)}},
                                        times_.Start(*step.begin, parent_));
    Tell(*span, step.status);
    SpansBelow below(tracer_, times_, span->GetContext());
    if (step.steps.empty()) {
      below.AddStages(*step.begin, step.timings);
    } else {
      below.AddSteps(step.steps);
    }
    span->End(SpanTimes::End(*step.begin + step.timings.total));
  }

  otel::trace::Tracer& tracer_;
  const SpanTimes& times_;
  const otel::trace::SpanContext parent_;
};

class SampledRequest final : public RequestTrace {
 public:
  SampledRequest(std::shared_ptr<TracePipeline> pipeline, otel::trace::SpanContext parent)
      : pipeline_(std::move(pipeline)), parent_(std::move(parent)) {}

  void Finish(const TracedRequest& request) override {
    const SpanTimes times(pipeline_->clock);
    otel::trace::StartSpanOptions options = times.Start(request.received, parent_);
    options.kind = otel::trace::SpanKind::kServer;
    const std::string id = SpanText(request.id);
    const std::string model = SpanText(request.model);
    // A name that no model has would be as many names as clients can think of.
    const auto root =
        pipeline_->tracer->StartSpan(request.version.empty() ? "infer" : "infer " + model,
                                     {{"octet.request.id", id},
                                      {"octet.model", model},
                                      {"octet.version", View(request.version)},
                                      {"octet.precision", View(request.precision)},
                                      {"octet.route", View(request.route)},
                                      {"octet.rows", request.rows}},
                                     options);
    Tell(*root, request.status);
    if (request.submitted) {
      SpansBelow below(*pipeline_->tracer, times, root->GetContext());
      below.Add("decode", request.received, *request.submitted - request.received);
      if (request.steps.empty()) {
        below.AddStages(*request.submitted, request.timings);
      } else {
        below.AddSteps(request.steps);
      }
    }
    root->End(SpanTimes::End(request.received + request.timings.total));
  }

 private:
  const std::shared_ptr<TracePipeline> pipeline_;
  const otel::trace::SpanContext parent_;
};

}  // namespace

absl::Status Tracer::CheckEndpoint(const std::string& endpoint) {
  if (endpoint.starts_with("http://") || endpoint.starts_with("https://")) return absl::OkStatus();
  return InvalidArgument(
      "tracing.otlp_endpoint: expected http://HOST:PORT or https://HOST:PORT, got \"{}\"",
      endpoint);
}

absl::StatusOr<std::unique_ptr<Tracer>> Tracer::Create(const ServerConfig::Tracing& config,
                                                       const Service& service, Clock& clock) {
  OCTET_RETURN_IF_ERROR(CheckEndpoint(config.otlp_endpoint));
  using otel::sdk::common::internal_log::GlobalLogHandler;
  GlobalLogHandler::SetLogHandler(
      otel::nostd::shared_ptr<otel::sdk::common::internal_log::LogHandler>(new EventLogHandler));
  otel::exporter::otlp::OtlpGrpcExporterOptions options;
  options.endpoint = config.otlp_endpoint;
  options.use_ssl_credentials = config.otlp_endpoint.starts_with("https://");
  options.timeout = kExportTimeout;
  return std::make_unique<Tracer>(otel::exporter::otlp::OtlpGrpcExporterFactory::Create(options),
                                  config.rate, service, clock);
}

Tracer::Tracer(std::unique_ptr<otel::sdk::trace::SpanExporter> exporter, int64_t rate,
               const Service& service, Clock& clock)
    : default_rate_(rate), pipeline_(new TracePipeline{.clock = clock}) {
  otel::sdk::trace::BatchSpanProcessorOptions options;
  options.max_queue_size = kMaxQueuedSpans;
  options.max_export_batch_size = kMaxQueuedSpans;
  options.schedule_delay_millis = kExportInterval;
  pipeline_->provider = otel::sdk::trace::TracerProviderFactory::Create(
      otel::sdk::trace::BatchSpanProcessorFactory::Create(std::move(exporter), options),
      otel::sdk::resource::Resource::Create(
          {{"service.name", service.name}, {"service.version", service.version}}));
  pipeline_->tracer = pipeline_->provider->GetTracer("octet", View(service.version));
  scopes_[""] = std::make_unique<Scope>();
}

Tracer::~Tracer() { pipeline_->provider->Shutdown(); }

std::unique_ptr<RequestTrace> Tracer::Sample(const std::string& model, Headers headers) {
  if (!Effective(model).on.value()) return nullptr;
  otel::trace::SpanContext parent = CallersTrace(headers);
  {
    absl::MutexLock lock(&mutex_);
    const Holders holders = HoldersOf(model);
    const int64_t rate = holders.rate.told.rate.value_or(default_rate_);
    const bool sampled = parent.IsValid() ? parent.IsSampled() : ++holders.rate.seen % rate == 0;
    if (!sampled) return nullptr;
    if (std::optional<int64_t>& left = holders.count.told.count; left.value_or(-1) >= 0) {
      if (*left == 0) return nullptr;
      --*left;
    }
  }
  return std::make_unique<SampledRequest>(pipeline_, std::move(parent));
}

Tracer::Holders Tracer::HoldersOf(const std::string& model) {
  Scope& server = *scopes_.at("");
  const auto found = scopes_.find(model);
  Scope& own = found == scopes_.end() ? server : *found->second;
  return {.on = own.told.on ? own : server,
          .rate = own.told.rate ? own : server,
          .count = own.told.count ? own : server};
}

TraceSettings Tracer::Told(const std::string& model) const {
  absl::MutexLock lock(&mutex_);
  const auto found = scopes_.find(model);
  return found == scopes_.end() ? TraceSettings() : found->second->told;
}

TraceSettings Tracer::Effective(const std::string& model) {
  absl::MutexLock lock(&mutex_);
  const Holders holders = HoldersOf(model);
  return {.on = holders.on.told.on.value_or(true),
          .rate = holders.rate.told.rate.value_or(default_rate_),
          .count = holders.count.told.count.value_or(-1)};
}

void Tracer::Tell(const std::string& model, const TraceSettings& settings) {
  absl::MutexLock lock(&mutex_);
  std::unique_ptr<Scope>& scope = scopes_[model];
  if (scope == nullptr) scope = std::make_unique<Scope>();
  scope->told = settings;
}

}  // namespace octet
