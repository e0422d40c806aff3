#include "server/run_server.h"

#include <malloc.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>

#include "absl/synchronization/mutex.h"
#include <sys/resource.h>

#include "engine/tensor/status.h"
#include "server/logging/event_log.h"
#include "server/process_signals.h"
#include "server/scheduling/clock.h"
#include "server/server.h"

namespace octet {
namespace {

void PrintServing(const ServerConfig& config, const ServerPorts& ports) {
  const std::string grpc = HostPort(config.listen.GrpcAddress(), ports.grpc);
  const std::string http = HostPort(config.listen.HttpAddress(), ports.http);
  const std::string metrics = HostPort(config.listen.MetricsAddress(), ports.metrics);
  const auto fields = {LogField{"grpc", grpc}, LogField{"http", http},
                       LogField{"metrics", metrics}};
  if (Logs(LogLevel::kInfo)) return LogEvent(LogLevel::kInfo, "serving", fields);
  std::fprintf(stderr, "%s\n", EventText(LogLevel::kInfo, "serving", fields).c_str());
}

/// Connections take descriptors, and the soft limit is 1024 in many places, for the sake of select(2), which nobody uses here.
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

absl::Status RunServer(const ServerConfig& config, const std::string& version) {
  OCTET_RETURN_IF_ERROR(ConfigureLog(config.logging.level));
  // Loads run on threads of their own; with glibc's eight arenas per core their freed memory stays
  // spread over all of them: reloads of a 2 MiB model settled at 103 MiB instead of 56.
  mallopt(M_ARENA_MAX, 2);
  // A request's tensors are given back with its answer. Left to itself glibc returns them to the system, and each request faults
  // its pages in again: 100 faults for one of 602 kB among 16 on a connection. What models hold is mostly larger.
  mallopt(M_MMAP_THRESHOLD, 16 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  // Debian's Abseil looks for lock cycles, which release builds otherwise leave out: each lock that is taken while
  // another is held goes through a process-wide graph, whose nodes for a request's mutexes are never freed.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  std::signal(SIGPIPE, SIG_IGN);  // a reader of the log that has gone must not end the server
  RaiseDescriptorLimit();
  ProcessSignals signals;
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::Start(config, version));
  OCTET_RETURN_IF_ERROR(server->Load(signals.token()));
  const bool served = !signals.token().stop_requested();
  if (served) PrintServing(config, server->ports());
  while (signals.WaitForReload()) server->Reload();
  // A server that was never ready has nobody to tell.
  if (served) {
    server->Retire(Clock::Real().Now() + std::chrono::seconds(config.shutdown.delay_seconds));
  }
  const std::chrono::seconds grace(config.shutdown.grace_seconds);
  const bool answered = server->Drain(Clock::Real().Now() + grace);
  LogEvent(LogLevel::kInfo, "stopped", {{"all_answered", answered}});
  if (answered) return absl::OkStatus();
  return absl::DeadlineExceededError(
      "shutdown.grace_seconds were over before all requests were answered");
}

}  // namespace octet
