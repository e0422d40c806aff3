// octet serve: the server.
#include <iostream>
#include <memory>
#include <optional>

#include "cli/model_options.h"
#include "cli/verb.h"

#include "config/server_config.h"
#include "engine/tensor/status.h"
#include "server/run_server.h"
#include "server/server.h"

namespace octet::cli {
namespace {

// What the command line says; what it does not say is the file's, else the default.
struct ServeOptions {
  std::string config_file;
  std::optional<std::string> repository;
  std::optional<std::string> address;
  std::optional<int> grpc_port;
  std::optional<int> http_port;
  std::optional<int> metrics_port;
  std::optional<int> workers;
  std::optional<int> threads;
  std::optional<int> poll_seconds;
  std::optional<std::string> log_level;
  bool strict = false;
  bool access_log = false;
  bool check_config = false;
};

template <typename T>
void Override(T& value, const std::optional<T>& option) {
  if (option) value = *option;
}

absl::StatusOr<ServerConfig> MakeConfig(const ServeOptions& options) {
  ServerConfig config;
  if (!options.config_file.empty()) {
    OCTET_ASSIGN_OR_RETURN(config, LoadServerConfig(options.config_file));
  }
  Override(config.repository.path, options.repository);
  Override(config.repository.poll_seconds, options.poll_seconds);
  if (options.address) {
    ServerConfig::Listen& listen = config.listen;
    listen.address = *options.address;
    listen.grpc_address = listen.http_address = listen.metrics_address = "";
  }
  Override(config.listen.grpc_port, options.grpc_port);
  Override(config.listen.http_port, options.http_port);
  Override(config.listen.metrics_port, options.metrics_port);
  Override(config.workers.count, options.workers);
  Override(config.workers.threads, options.threads);
  Override(config.logging.level, options.log_level);
  config.repository.strict |= options.strict;
  config.logging.access_log |= options.access_log;
  if (config.repository.path.empty()) {
    return InvalidArgument(
        "no model repository: give --repository DIR, or repository.path in --config FILE");
  }
  return config;
}

absl::Status ServeOrCheck(const ServeOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const ServerConfig config, MakeConfig(options));
  if (!options.check_config) return RunServer(config, OCTET_VERSION);
  OCTET_RETURN_IF_ERROR(CheckServerConfig(config));
  std::cout << "configuration is valid: " << config.repository.path << '\n';
  return absl::OkStatus();
}

}  // namespace

void AddServe(CLI::App& app, Outcome& outcome) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* verb = app.add_subcommand("serve", "Serve a folder of models over gRPC and HTTP");
  const CLI::Range port(0, 65535);
  const CLI::Range count(0, 1024);
  verb->add_option("--repository", options->repository,
                   "Folder of models: NAME/VERSION/PRECISION.onnx");
  verb->add_option("--config", options->config_file,
                   "octet.yaml; what the command line says wins over it");
  verb->add_option("--address", options->address, "Address of all ports; default 0.0.0.0");
  verb->add_option("--grpc-port", options->grpc_port, "Default 8001; 0 = any free port, printed")
      ->check(port);
  verb->add_option("--http-port", options->http_port, "HTTP; default 8000; 0 = any free port")
      ->check(port);
  verb->add_option("--metrics-port", options->metrics_port,
                   "Prometheus; default 8002; 0 = any free port")
      ->check(port);
  verb->add_option("--workers", options->workers,
                   "Threads that run batches; default 0 = cores / threads")
      ->check(count);
  verb->add_option("--threads", options->threads,
                   "OpenMP threads of each worker; default 0 = by the number of cores")
      ->check(count);
  verb->add_option("--poll-seconds", options->poll_seconds,
                   "Look for changed files this often; default 0 = only when asked (SIGHUP)")
      ->check(CLI::Range(0, 86400));
  verb->add_flag("--strict", options->strict, "Refuse to start when a model does not load");
  verb->add_option("--log-level", options->log_level,
                   "trace, debug, info, warn, error or off; default info");
  verb->add_flag("--access-log", options->access_log, "Log one line per request");
  verb->add_flag("--check-config", options->check_config,
                 "Try octet.yaml and every model.yaml, and end: 0 = valid");
  verb->callback([options, &outcome] {
    if (const absl::Status status = ServeOrCheck(*options); !status.ok())
      outcome.exit_code = Fail(status);
  });
}

}  // namespace octet::cli
