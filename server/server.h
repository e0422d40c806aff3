// The process: everything that serves, put together, started and drained.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/server_config.h"
#include "server/scheduling/clock.h"

namespace octet {

/// The ports that were opened.
struct ServerPorts {
  int grpc = 0;
  int http = 0;
  int metrics = 0;
};

/// A server.
///
///     Start --Load--> serving (Reload) --Retire--> retired --Drain--> drained
///                        +----------------------Drain------------------^
///
/// From Start on the ports are open: it is alive, but not ready, and models answer as they load.
/// Thread-safety: one thread drives it.
class Server {
 public:
  /// Opens the ports. `version` is what ServerMetadata and the metrics say. NOT_FOUND for a
  /// repository that does not exist; UNAVAILABLE naming address and port when one is taken;
  /// INVALID_ARGUMENT for a configuration that cannot be run.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerConfig& config,
                                                       const std::string& version,
                                                       Clock& clock = Clock::Real());
  /// Drain without patience.
  virtual ~Server() = default;

  virtual ServerPorts ports() const = 0;

  /// Loads the models, and from then on looks for changes every repository.poll_seconds. Returns
  /// early, with OK, when `stop` is requested. As ModelRepository::CheckAll with repository.strict; without, a folder that
  /// cannot be read, or a model's, is tried again until it can, every 5 seconds where nothing is polled.
  virtual absl::Status Load(const std::stop_token& stop) = 0;

  /// ModelRepository::Reload and TlsCertificates::Reload, soon and on another thread: whether they were to be looked at anyhow or
  /// not. The configuration that it was started with stays. Requires: Load.
  virtual void Reload() = 0;

  /// Not ready from now on, for whoever asks: HTTP, gRPC's health, the metric. Requests are taken as before, until `until`, when
  /// it returns: load balancers have so long to send them elsewhere.
  virtual void Retire(TimePoint until) = 0;

  /// Takes no request from now on (not ready, UNAVAILABLE), and waits until those that were accepted
  /// are answered, at most until `deadline`; then what waits is answered UNAVAILABLE, and what runs is cancelled where the
  /// data decide how long it takes; another run is a short one, and ends. Closes the ports.
  /// Returns whether all were answered in time. May be called again.
  virtual bool Drain(TimePoint deadline) = 0;
};

/// "127.0.0.1:8001", "[::1]:8001".
std::string HostPort(const std::string& address, int port);

/// Tries a configuration without serving: pass names, the files of TLS, and every model.yaml of the repository.
/// INVALID_ARGUMENT with one line per mistake; NOT_FOUND for a repository that does not exist.
absl::Status CheckServerConfig(const ServerConfig& config);

}  // namespace octet
