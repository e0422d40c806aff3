#include "server/http/http_server.h"

#include <cerrno>
#include <system_error>
#include <thread>
#include <utility>

#include "httplib.h"
#include <nlohmann/json.hpp>
#include <sys/socket.h>

#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr size_t kThreads = 2;
/// Health requests have no body.
constexpr size_t kMaxBodyBytes = 4096;

void Answer(httplib::Response& response, int code, std::string_view key,
            const nlohmann::json& value) {
  response.status = code;
  const nlohmann::json body = {{std::string(key), value}};
  response.set_content(body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
                       "application/json");
}

/// Lets a restarted server have its port back at once. Not SO_REUSEPORT, which the library would
/// set: two servers on one port would share the requests, and nobody would be told.
void SetSocketOptions(int socket) {
  const int on = 1;
  (void)setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
}

class HealthServer final : public HttpServer {
 public:
  explicit HealthServer(std::function<bool()> ready) : ready_(std::move(ready)) {
    server_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server_.set_socket_options(SetSocketOptions);
    server_.set_payload_max_length(kMaxBodyBytes);
    server_.set_tcp_nodelay(true);
    server_.Get("/v2/health/live", [](const httplib::Request&, httplib::Response& response) {
      Answer(response, 200, "live", true);
    });
    server_.Get("/v2/health/ready", [this](const httplib::Request&, httplib::Response& response) {
      const bool now = ready_();
      Answer(response, now ? 200 : 503, "ready", now);
    });
    server_.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
      // Called for every status of 400 and above, those with an answer included.
      if (!response.body.empty()) return;
      Answer(response, response.status, "error",
             std::format("no such resource: {} {}", request.method, request.path));
    });
  }
  ~HealthServer() override {
    if (!listener_.joinable()) return;
    server_.wait_until_ready();  // before that, stop() does nothing
    server_.stop();
  }

  absl::Status Listen(const std::string& address, int port) {
    errno = 0;
    port_ = port == 0 ? server_.bind_to_any_port(address)
                      : (server_.bind_to_port(address, port) ? port : -1);
    if (port_ <= 0) {
      const std::string reason =
          errno == 0 ? "unknown reason" : std::generic_category().message(errno);
      return MakeError(absl::StatusCode::kUnavailable, "cannot serve HTTP ({}): {}:{}", reason,
                       address, port);
    }
    listener_ = std::jthread([this] { (void)server_.listen_after_bind(); });
    return absl::OkStatus();
  }

  int port() const override { return port_; }

 private:
  const std::function<bool()> ready_;
  httplib::Server server_;
  int port_ = 0;
  std::jthread listener_;  ///< Last: ends before what it uses.
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& address, int port,
                                                              std::function<bool()> ready) {
  auto server = std::make_unique<HealthServer>(std::move(ready));
  OCTET_RETURN_IF_ERROR(server->Listen(address, port));
  return server;
}

}  // namespace octet
