// A server's life from start to end, for a command line.
#pragma once

#include <string>

#include "absl/status/status.h"

#include "config/server_config.h"

namespace octet {

/// Starts a server and serves until SIGTERM or SIGINT; then takes no more requests, and returns OK
/// when those that were accepted have been answered. SIGHUP is Server::Reload. Prints, whatever the log's level,
/// `level=info event=serving grpc=ADDRESS:PORT http=ADDRESS:PORT metrics=ADDRESS:PORT` to stderr
/// once everything is loaded. Call before any thread is started.
/// Errors: as Server::Start and Load; DEADLINE_EXCEEDED when shutdown.grace_seconds were over first.
absl::Status RunServer(const ServerConfig& config, const std::string& version);

}  // namespace octet
