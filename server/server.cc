#include "server/server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"

#include "engine/engine.h"
#include "engine/tensor/status.h"
#include "server/http/capture_mark.h"
#include "server/http/http_server.h"
#include "server/logging/event_log.h"
#include "server/metrics/registry.h"
#include "server/repository/model_repository.h"
#include "server/repository/model_settings.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/shared_memory.h"
#include "server/rpc/tls_certificates.h"
#include "server/scheduling/available_cores.h"
#include "server/scheduling/caller_runners.h"
#include "server/scheduling/dispatcher.h"
#include "server/scheduling/gate.h"
#include "server/scheduling/worker_pool.h"
#include "server/ticker.h"
#include "server/tls/tls_files.h"
#include "server/tracing/tracer.h"

namespace octet {
namespace {

/// How long calls are still answered UNAVAILABLE before the gRPC port closes: what reaches gRPC once
/// it closes ends as CANCELLED, which clients do not take for "try another server".
constexpr std::chrono::milliseconds kRefusing{500};

/// How often what could not be read of a repository is tried again where it is not looked at otherwise.
constexpr int kRetrySeconds = 5;

/// How exactly the windows of guards end, and the lives of sequences.
constexpr std::chrono::milliseconds kGuardInterval{500};

/// How often the files of TLS are looked at.
constexpr std::chrono::seconds kTlsInterval{1};

int64_t EpochMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

/// And what follows from them.
void LookAtTraffic(const ModelRepository& repository, TimePoint now) {
  const auto versions = repository.List("", "");
  if (!versions.ok()) return;  // no model
  LookAtGuards(*versions, now);
  LookAtRamps(*versions, now);
}

void ExpireSequences(const ModelRepository& repository) {
  const auto versions = repository.List("", "");
  if (!versions.ok()) return;  // no model
  for (const auto& version : *versions) {
    if (version->sequences != nullptr) version->sequences->store->Expire();
  }
}

void WriteCaptures(const ModelRepository& repository) {
  const auto versions = repository.List("", "");
  if (!versions.ok()) return;  // no model
  for (const auto& version : *versions) {
    if (version->capture != nullptr) version->capture->Write();
  }
}

/// A copy that runs is given up where its loops look; nobody waits for it.
void RetireShadows(const ModelRepository& repository) {
  const auto versions = repository.List("", "");
  if (!versions.ok()) return;  // no model
  for (const auto& version : *versions) {
    if (version->shadow != nullptr) version->shadow->retired = true;
  }
}

TlsPaths PathsOf(const ServerConfig::Listen::GrpcTls& tls) {
  return {.certificate = tls.certificate, .key = tls.key, .authorities = tls.client_ca};
}

void LogListening(std::string_view protocol, const std::string& address, int port) {
  LogEvent(LogLevel::kInfo, "listening",
           {{"protocol", protocol}, {"address", HostPort(address, port)}});
}

class ServerProcess final : public Server {
 public:
  ServerProcess(const ServerConfig& config, const std::string& version, WorkerPlan plan,
                Clock& clock)
      : config_(config),
        clock_(clock),
        metrics_({version, OneDnnVersion(), DetectTarget(plan.threads).isa}),
        gate_(clock),
        dispatcher_(clock, plan.workers),
        callers_(dispatcher_, plan.workers, clock) {}
  ~ServerProcess() override { Drain(clock_.Now()); }

  absl::Status Open(const std::string& version, WorkerPlan plan);
  ServerPorts ports() const override {
    return {grpc_->port(), http_->port(), metrics_endpoint_->port()};
  }
  absl::Status Load(const std::stop_token& stop) override;
  void Reload() override;
  void Retire(TimePoint until) override;
  bool Drain(TimePoint deadline) override;

 private:
  void Pause(TimePoint until);
  void ShowReady();
  /// Of the poller's thread.
  void LookNow(const std::stop_token& stop);

  const ServerConfig config_;
  Clock& clock_;
  MetricsRegistry metrics_;
  Gate gate_;
  Dispatcher dispatcher_;
  CallerRunners callers_;
  std::optional<SharedMemory> shared_memory_;
  std::unique_ptr<Tracer> tracer_;  // outlives what answers requests
  std::unique_ptr<ModelRepository> repository_;
  std::optional<WorkerPool> workers_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<MetricsEndpoint> metrics_endpoint_;
  std::unique_ptr<TlsCertificates> tls_;
  std::unique_ptr<GrpcServer> grpc_;
  std::optional<Ticker> tls_looks_;
  std::optional<Ticker> poller_;
  std::atomic<uint64_t> reloads_asked_{0};
  uint64_t reloads_done_ = 0;  ///< The poller's thread's.
  std::optional<Ticker> guards_;
  std::optional<Ticker> captures_;
  absl::Mutex pausing_;
  absl::CondVar never_;
  absl::Mutex showing_;  ///< What is shown last was asked last.
};

absl::Status ServerProcess::Open(const std::string& version, WorkerPlan plan) {
  const ServerConfig::Listen& listen = config_.listen;
  OCTET_ASSIGN_OR_RETURN(repository_,
                         ModelRepository::Create(config_, plan.threads, metrics_, clock_));
  if (!listen.grpc_tls.certificate.empty()) {
    auto loaded = TlsCertificates::Load(PathsOf(listen.grpc_tls), metrics_.server().tls_not_after);
    if (!loaded.ok()) return Annotate(loaded.status(), "listen.grpc_tls");
    tls_ = *std::move(loaded);
  }
  if (listen.shared_memory) {
    shared_memory_.emplace(static_cast<uint64_t>(config_.limits.max_message_bytes));
  }
  if (!config_.tracing.otlp_endpoint.empty()) {
    OCTET_ASSIGN_OR_RETURN(tracer_,
                           Tracer::Create(config_.tracing, {config_.name, version}, clock_));
  }
  const ServingParts parts = {
      *repository_,  dispatcher_,
      metrics_,      gate_,
      clock_,        shared_memory_ ? &*shared_memory_ : nullptr,
      tracer_.get(), plan.threads == 1 ? &callers_ : nullptr,
      plan.workers,
  };
  if (!config_.capture.path.empty()) MarkCaptureFolder(config_.capture.path);
  const ServerIdentity identity = {.name = config_.name, .version = version};
  const HttpServerOptions http_options = {
      .address = listen.HttpAddress(),
      .port = listen.http_port,
      .max_body_bytes = config_.limits.max_message_bytes,
      .threads = listen.http_threads,
      .connections = listen.http_connections,
      .identity = identity,
      .access_log = config_.logging.access_log,
      .process = {.started_ms = EpochMs(), .capture_path = config_.capture.path}};
  OCTET_ASSIGN_OR_RETURN(http_, HttpServer::Start(http_options, parts));
  OCTET_ASSIGN_OR_RETURN(
      metrics_endpoint_,
      MetricsEndpoint::Start(metrics_, listen.MetricsAddress(), listen.metrics_port));
  const GrpcServerOptions options = {.address = listen.GrpcAddress(),
                                     .port = listen.grpc_port,
                                     .max_message_bytes = config_.limits.max_message_bytes,
                                     .max_receive_bytes = config_.limits.ReceiveBytes(),
                                     .identity = identity,
                                     .access_log = config_.logging.access_log,
                                     .tls = tls_.get()};
  OCTET_ASSIGN_OR_RETURN(grpc_, GrpcServer::Start(options, parts));
  workers_.emplace(dispatcher_, plan, clock_);
  if (tls_ != nullptr) {
    tls_looks_.emplace("tls", kTlsInterval, clock_,
                       [this](const std::stop_token&) { tls_->Look(); });
  }
  LogListening("grpc", listen.GrpcAddress(), grpc_->port());
  LogListening("http", listen.HttpAddress(), http_->port());
  LogListening("metrics", listen.MetricsAddress(), metrics_endpoint_->port());
  return absl::OkStatus();
}

absl::Status ServerProcess::Load(const std::stop_token& stop) {
  guards_.emplace("guards", kGuardInterval, clock_, [this](const std::stop_token&) {
    LookAtTraffic(*repository_, clock_.Now());
    ExpireSequences(*repository_);
    ShowReady();
  });
  if (!config_.capture.path.empty()) {
    captures_.emplace("captures", std::chrono::seconds(config_.capture.write_seconds), clock_,
                      [this](const std::stop_token&) { WriteCaptures(*repository_); });
  }
  repository_->Poll(stop);
  ShowReady();
  if (stop.stop_requested()) return absl::OkStatus();
  if (config_.repository.strict) OCTET_RETURN_IF_ERROR(repository_->CheckAll());
  const bool polls = config_.repository.poll_seconds > 0;
  const std::chrono::seconds interval(polls ? config_.repository.poll_seconds : kRetrySeconds);
  poller_.emplace("poller", interval, clock_, [this, polls](const std::stop_token& stopped) {
    if (const uint64_t asked = reloads_asked_; asked != reloads_done_) {
      LookNow(stopped);
      reloads_done_ = asked;  // One that an exception cuts short is made again.
    } else if (polls) {
      repository_->Poll(stopped);
    } else {
      repository_->Retry(stopped);
    }
  });
  return absl::OkStatus();
}

void ServerProcess::Reload() {
  ++reloads_asked_;
  poller_->Hurry();
}

void ServerProcess::LookNow(const std::stop_token& stop) {
  if (tls_ != nullptr) tls_->Reload();
  const absl::Status looked = repository_->Reload(stop);
  if (stop.stop_requested()) return;
  const std::string_view path = config_.repository.path;
  if (looked.ok()) {
    LogEvent(LogLevel::kInfo, "reloaded", {{"repository", path}, {"tls", tls_ != nullptr}});
  } else {
    LogEvent(LogLevel::kError, "reload_failed",
             {{"repository", path}, {"tls", tls_ != nullptr}, {"error", Message(looked)}});
  }
}

void ServerProcess::Pause(TimePoint until) {
  absl::MutexLock lock(&pausing_);
  while (clock_.Now() < until) clock_.WaitUntil(never_, pausing_, until);
}

/// As ServerReady answers.
void ServerProcess::ShowReady() {
  absl::MutexLock lock(&showing_);
  const bool ready = repository_ != nullptr && repository_->Ready() && !gate_.announced();
  metrics_.server().ready.Set(ready ? 1 : 0);
}

void ServerProcess::Retire(TimePoint until) {
  gate_.Announce();
  ShowReady();
  Pause(until);
}

bool ServerProcess::Drain(TimePoint deadline) {
  gate_.Close();
  if (poller_) poller_->Stop();
  if (guards_) guards_->Stop();
  ShowReady();
  if (captures_) captures_->Stop();
  // No batch waits to become full any more; what accepted requests still bring, in sequences and pipelines, is taken.
  dispatcher_.Flush();
  if (repository_ != nullptr) RetireShadows(*repository_);
  // While others are waited for: an answer takes as long as its client reads, a load by RPC ends when it ends, and so may the
  // patience of who stops this process.
  const auto write = [this] {
    if (repository_ != nullptr) WriteCaptures(*repository_);
  };
  const std::jthread first_writer(write);
  const bool answered = gate_.WaitUntilEmpty(deadline);
  if (!answered) {
    LogEvent(LogLevel::kWarn, "drain_timed_out", {{"requests", gate_.inside()}});
    dispatcher_.Abandon();
    // What runs, too, as far as it can be interrupted: HTTP's calls see it, gRPC's are cancelled by its shutdown.
    gate_.Abandon();
  }
  // And what was answered meanwhile, before RPCs are waited for.
  std::jthread writer(write);
  if (grpc_ != nullptr) {
    Pause(std::min(deadline, clock_.Now() + kRefusing));
    grpc_->Shutdown(deadline);
  }
  workers_.reset();
  captures_.reset();
  writer.join();
  // What was answered after that; before HTTP's last answers are waited for.
  write();
  const TimePoint last_answers = std::max(deadline, clock_.Now() + HttpServer::kLastAnswers);
  const bool taken = http_ == nullptr || http_->Stop(last_answers);
  http_.reset();
  metrics_endpoint_.reset();
  poller_.reset();
  guards_.reset();
  tls_looks_.reset();
  return answered && taken;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config,
                                                      const std::string& version, Clock& clock) {
  OCTET_RETURN_IF_ERROR(CheckPassNames(config.engine.disabled_passes));
  const WorkerPlan plan = PlanWorkers(config.workers, AvailableCores());
  auto server = std::make_unique<ServerProcess>(config, version, plan, clock);
  OCTET_RETURN_IF_ERROR(server->Open(version, plan));
  return server;
}

std::string HostPort(const std::string& address, int port) {
  const bool bare_v6 = address.find(':') != std::string::npos && !address.starts_with('[');
  return bare_v6 ? std::format("[{}]:{}", address, port) : std::format("{}:{}", address, port);
}

absl::Status CheckServerConfig(const ServerConfig& config) {
  OCTET_RETURN_IF_ERROR(
      Annotate(CheckPassNames(config.engine.disabled_passes), "engine.disabled_passes"));
  if (!config.tracing.otlp_endpoint.empty()) {
    OCTET_RETURN_IF_ERROR(Tracer::CheckEndpoint(config.tracing.otlp_endpoint));
  }
  if (!config.listen.grpc_tls.certificate.empty()) {
    OCTET_RETURN_IF_ERROR(
        Annotate(LoadTlsFiles(PathsOf(config.listen.grpc_tls)).status(), "listen.grpc_tls"));
  }
  return CheckModelSettings(config);
}

}  // namespace octet
