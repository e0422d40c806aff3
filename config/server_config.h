// The configuration of `octet serve`: plain values with their defaults and units.
//
// config/octet.yaml is this file as YAML, with every default; a test holds the two together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/config_key.h"

namespace octet {

struct ServerConfig {
  std::string name = "octet";  ///< What ServerMetadata answers.

  struct Repository {
    std::string path;  ///< Folder of models; must be set here or on the command line.
    /// Look for changes this often; 0 = only when asked: by SIGHUP, or a load by RPC.
    int poll_seconds = 0;
    bool strict = false;  ///< Refuse to start when a model fails to load.
    bool operator==(const Repository&) const = default;
  } repository;

  struct Listen {
    std::string address = "0.0.0.0";
    std::string grpc_address;  ///< Of one port; empty = address, for all three.
    std::string http_address;
    std::string metrics_address;
    int grpc_port = 8001;  ///< 0 = any free port, for all three.
    int http_port = 8000;
    int metrics_port = 8002;
    int http_threads = 32;        ///< HTTP requests under way at once; health probes do not count.
    int http_connections = 1024;  ///< HTTP connections at once.
    /// Clients may register POSIX shared memory. Off: whoever reaches the ports could read and write what the
    /// process may open.
    bool shared_memory = false;

    /// TLS on gRPC's port: PEM files, empty = none.
    struct GrpcTls {
      std::string
          certificate;  ///< The server's and those between it and its authority; empty = no TLS.
      std::string key;  ///< Of the server's certificate, without a passphrase.
      std::string client_ca;  ///< Authorities of clients' certificates; empty = none is asked for.
      bool operator==(const GrpcTls&) const = default;
    } grpc_tls;

    const std::string& GrpcAddress() const { return grpc_address.empty() ? address : grpc_address; }
    const std::string& HttpAddress() const { return http_address.empty() ? address : http_address; }
    const std::string& MetricsAddress() const {
      return metrics_address.empty() ? address : metrics_address;
    }
    bool operator==(const Listen&) const = default;
  } listen;

  struct Limits {
    int64_t max_message_bytes = int64_t{64} << 20;  ///< One gRPC message or HTTP body.
    int64_t max_receive_bytes = 0;  ///< All gRPC messages and connections; 0 = ReceiveBytes.
    int max_batch = 256;            ///< The most that any model.yaml may ask for.
    /// max_receive_bytes, where it is 0: room for 16 of the largest messages, at least 1 GiB.
    int64_t ReceiveBytes() const {
      if (max_receive_bytes != 0) return max_receive_bytes;
      return std::max(16 * max_message_bytes, int64_t{1} << 30);
    }
    bool operator==(const Limits&) const = default;
  } limits;

  struct Workers {
    int count = 0;    ///< Threads that compute; 0 = cores / threads.
    int threads = 0;  ///< OpenMP threads per worker; 0 = 1, 2 or 4 by the number of cores.
    bool operator==(const Workers&) const = default;
  } workers;

  /// Defaults for models whose model.yaml does not say.
  struct Batching {
    int max_batch = 8;           ///< Rows that run as one batch.
    int max_queue_delay_us = 0;  ///< How long a batch may wait to become full.
    int max_queue_requests = 256;
    int64_t max_queue_bytes = int64_t{256} << 20;
    double p99_target_ms =
        0;  ///< From arrival to answer; 0 = none. With one, sizes and waiting follow it.
    int priority_levels = 0;   ///< That requests may ask for; 0 = none.
    int default_priority = 0;  ///< Level of those that ask for none; 0 = the last one.
    /// The level of a request that asks for none: default_priority, where it is 0 the last one; 1 without levels.
    int DefaultPriority() const {
      return std::max(1, default_priority != 0 ? default_priority : priority_levels);
    }
    bool operator==(const Batching&) const = default;
  } batching;

  struct Engine {
    double require_int8_percent =
        0;  ///< Smallest share of multiply-adds in int8 for int8 variants.
    std::vector<std::string> disabled_passes;
    int max_cached_plans = 32;  ///< Compiled shapes kept per variant beyond the batch sizes.
    int64_t max_model_bytes = int64_t{2} << 30;
    bool operator==(const Engine&) const = default;
  } engine;

  /// Where requests of models that ask for it (capture in their model.yaml) are kept.
  struct Capture {
    std::string path;        ///< Folder, which must exist; empty = no model may ask for it.
    int write_seconds = 60;  ///< Files are written this often, when there is something new.
    bool operator==(const Capture&) const = default;
  } capture;

  /// Traces for an OpenTelemetry collector.
  struct Tracing {
    std::string otlp_endpoint;  ///< http://HOST:PORT or https://; empty = none.
    int64_t rate = 1000;        ///< One of so many requests that come without a trace has one.
    bool operator==(const Tracing&) const = default;
  } tracing;

  struct Logging {
    std::string level = "info";  ///< trace, debug, info, warn, error or off.
    bool access_log = false;     ///< One line per request.
    bool operator==(const Logging&) const = default;
  } logging;

  struct Shutdown {
    int delay_seconds = 0;  ///< Not ready, and requests are taken as before, so long after SIGTERM.
    int grace_seconds = 30;  ///< Time for accepted requests to finish afterwards.
    bool operator==(const Shutdown&) const = default;
  } shutdown;

  bool operator==(const ServerConfig&) const = default;
};

/// INVALID_ARGUMENT when the default is not among the levels of priority.
absl::Status CheckPriorities(const ServerConfig::Batching& batching);

/// Reads YAML over the defaults. `file` names it in errors. INVALID_ARGUMENT with one line
/// `file:line:column: key.path: problem` per mistake.
absl::StatusOr<ServerConfig> ParseServerConfig(std::string_view text, std::string_view file);
/// Reads the file; also NOT_FOUND when it cannot be opened.
absl::StatusOr<ServerConfig> LoadServerConfig(const std::string& path);

/// Every key, in the order of config/octet.yaml.
std::vector<ConfigKeyInfo> ServerConfigKeys();

}  // namespace octet
