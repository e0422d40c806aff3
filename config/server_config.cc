#include "config/server_config.h"

#include "config/yaml_reader.h"
#include "engine/tensor/status.h"
#include "engine/tensor/utf8.h"

namespace octet {
namespace {

constexpr int64_t kMebi = int64_t{1} << 20;

/// One row per key: path, where it goes and what it accepts, unit, meaning.
std::vector<YamlKey> Keys(ServerConfig& c) {
  const auto level = [&c](const std::string& name) { c.logging.level = name; };
  return {
      {"name", Text(&c.name), "", "the server's name in ServerMetadata"},

      {"repository.path", Text(&c.repository.path), "folder", "the model repository"},
      {"repository.poll_seconds", Integer(&c.repository.poll_seconds, 0, 86400), "s",
       "look for changed files this often; 0 = only when asked (SIGHUP, or a load by RPC), and "
       "what could not be read at the start until it can"},
      {"repository.strict", Boolean(&c.repository.strict), "",
       "refuse to start when a model fails to load"},

      {"listen.address", Text(&c.listen.address), "", "the address that all ports are opened on"},
      {"listen.grpc_address", Text(&c.listen.grpc_address), "",
       "another one for gRPC; empty = address"},
      {"listen.http_address", Text(&c.listen.http_address), "",
       "another one for HTTP; empty = address"},
      {"listen.metrics_address", Text(&c.listen.metrics_address), "",
       "another one for Prometheus; empty = address"},
      {"listen.grpc_port", Integer(&c.listen.grpc_port, 0, 65535), "port",
       "gRPC; 0 = any free one"},
      {"listen.http_port", Integer(&c.listen.http_port, 0, 65535), "port",
       "HTTP: the protocol's REST form, health; 0 = any free one"},
      {"listen.metrics_port", Integer(&c.listen.metrics_port, 0, 65535), "port",
       "Prometheus; 0 = any free one"},
      {"listen.http_threads", Integer(&c.listen.http_threads, 1, 1024), "threads",
       "HTTP requests under way at once"},
      {"listen.http_connections", Integer(&c.listen.http_connections, 1, 65536), "connections",
       "open at once"},
      {"listen.shared_memory", Boolean(&c.listen.shared_memory), "",
       "clients may register shared memory"},
      {"listen.grpc_tls.certificate", Text(&c.listen.grpc_tls.certificate), "file",
       "the server's certificate in PEM"},
      {"listen.grpc_tls.key", Text(&c.listen.grpc_tls.key), "file",
       "the certificate's private key in PEM, without a passphrase"},
      {"listen.grpc_tls.client_ca", Text(&c.listen.grpc_tls.client_ca), "file",
       "authorities in PEM"},

      {"limits.max_message_bytes", Integer(&c.limits.max_message_bytes, 1024, 2048 * kMebi - 1),
       "bytes", "largest request"},
      {"limits.max_receive_bytes", Integer(&c.limits.max_receive_bytes, 0, INT64_MAX / 2), "bytes",
       "all that gRPC clients are sending or wait with"},
      {"limits.max_batch", Integer(&c.limits.max_batch, 1, 65536), "rows",
       "the most that a model may ask for as batching.max_batch"},

      {"workers.count", Integer(&c.workers.count, 0, 1024), "threads",
       "workers that compute; 0 = cores / workers.threads"},
      {"workers.threads", Integer(&c.workers.threads, 0, 1024), "threads",
       "OpenMP threads of each worker; 0 = 1 up to 4 cores, 2 up to 16, else 4"},

      {"batching.max_batch", Integer(&c.batching.max_batch, 1, 65536), "rows",
       "rows that run as one batch"},
      {"batching.max_queue_delay_us", Integer(&c.batching.max_queue_delay_us, 0, 60'000'000), "us",
       "how long a batch may wait to become full; 0 = never"},
      {"batching.max_queue_requests", Integer(&c.batching.max_queue_requests, 1, 1'000'000),
       "requests", "waiting per variant; one more is refused"},
      {"batching.max_queue_bytes", Integer(&c.batching.max_queue_bytes, 1, INT64_MAX / 2), "bytes",
       "waiting per variant; more is refused"},
      {"batching.p99_target_ms", Number(&c.batching.p99_target_ms, 0, 60'000), "ms",
       "from arrival to answer for 99 of 100 requests; 0 = none"},
      {"batching.priority_levels", Integer(&c.batching.priority_levels, 0, 255), "levels",
       "that a request's parameter \"priority\" may ask for, 1 goes first"},
      {"batching.default_priority", Integer(&c.batching.default_priority, 0, 255), "level",
       "of requests that ask for none of them; 0 = the last one"},

      {"engine.require_int8_percent", Number(&c.engine.require_int8_percent, 0, 100), "%",
       "smallest share of an int8 variant's multiply-adds that must run in int8"},
      {"engine.disabled_passes", TextList(&c.engine.disabled_passes), "",
       "rewrites to leave out, by name"},
      {"engine.max_cached_plans", Integer(&c.engine.max_cached_plans, 1, 65536), "plans",
       "compiled input shapes kept per variant"},
      {"engine.max_model_bytes", Integer(&c.engine.max_model_bytes, 1, INT64_MAX / 2), "bytes",
       "largest ONNX file, external data included"},

      {"capture.path", Text(&c.capture.path), "folder",
       "where captured requests are written, MODEL/VERSION/SHAPES.npz; it must exist"},
      {"capture.write_seconds", Integer(&c.capture.write_seconds, 1, 86400), "s",
       "write what was captured this often"},

      {"tracing.otlp_endpoint", Text(&c.tracing.otlp_endpoint), "URL",
       "the OpenTelemetry collector that traces are sent to, over gRPC"},
      {"tracing.rate", Integer(&c.tracing.rate, 1, 1'000'000'000), "requests",
       "one of so many requests has a trace"},

      {"logging.level", Choice({"trace", "debug", "info", "warn", "error", "off"}, level), "",
       "least severe event that is logged"},
      {"logging.access_log", Boolean(&c.logging.access_log), "", "one line per request"},

      {"shutdown.delay_seconds", Integer(&c.shutdown.delay_seconds, 0, 86400), "s",
       "after SIGTERM not ready, and requests are taken as before: load balancers stop sending "
       "them"},
      {"shutdown.grace_seconds", Integer(&c.shutdown.grace_seconds, 0, 86400), "s",
       "time for accepted requests to finish afterwards"},
  };
}

/// One without the other would leave the port without what its owner asked for.
absl::Status CheckGrpcTls(const ServerConfig::Listen::GrpcTls& tls) {
  if (tls.certificate.empty() != tls.key.empty()) {
    return InvalidArgument(
        "listen.grpc_tls: expected a certificate and its key, got certificate \"{}\" and key "
        "\"{}\"",
        tls.certificate, tls.key);
  }
  if (!tls.client_ca.empty() && tls.certificate.empty()) {
    return InvalidArgument(
        "listen.grpc_tls.client_ca: expected a certificate and a key with it, got client_ca \"{}\" "
        "alone",
        tls.client_ca);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPriorities(const ServerConfig::Batching& batching) {
  if (batching.default_priority <= batching.priority_levels) return absl::OkStatus();
  return InvalidArgument("batching.default_priority: not among batching.priority_levels = {}: {}",
                         batching.priority_levels, batching.default_priority);
}

absl::StatusOr<ServerConfig> ParseServerConfig(std::string_view text, std::string_view file) {
  ServerConfig config;
  OCTET_RETURN_IF_ERROR(ReadYaml(text, file, Keys(config)));
  // No client could read an answer of ServerMetadata.
  if (!IsUtf8(config.name)) {
    return InvalidArgument("{}: name: expected UTF-8, got \"{}\"", file, Utf8Of(config.name));
  }
  if (config.limits.ReceiveBytes() < 2 * config.limits.max_message_bytes) {
    return InvalidArgument(
        "{}: limits.max_receive_bytes: less than two messages (limits.max_message_bytes = {}): {}",
        file, config.limits.max_message_bytes, config.limits.max_receive_bytes);
  }
  if (config.batching.max_batch > config.limits.max_batch) {
    return InvalidArgument("{}: batching.max_batch: larger than limits.max_batch = {}: {}", file,
                           config.limits.max_batch, config.batching.max_batch);
  }
  OCTET_RETURN_IF_ERROR(Annotate(CheckPriorities(config.batching), file));
  OCTET_RETURN_IF_ERROR(Annotate(CheckGrpcTls(config.listen.grpc_tls), file));
  return config;
}

absl::StatusOr<ServerConfig> LoadServerConfig(const std::string& path) {
  OCTET_ASSIGN_OR_RETURN(const std::string text, ReadConfigFile(path));
  return ParseServerConfig(text, path);
}

std::vector<ConfigKeyInfo> ServerConfigKeys() {
  ServerConfig config;
  return DescribeKeys(Keys(config));
}

}  // namespace octet
