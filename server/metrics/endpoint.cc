#include <netdb.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "prometheus/exposer.h"
#include <sys/socket.h>

#include "engine/tensor/status.h"
#include "server/metrics/collector.h"
#include "server/metrics/registry.h"

namespace octet {
namespace {

/// A connection holds a thread while it asks nothing: health checks and scans open such, and Prometheus waits for ten
/// seconds at most.
constexpr const char* kThreads = "8";
constexpr const char* kRequestTimeMs = "2000";

/// civetweb's form: an IPv6 address in brackets.
std::string ListenAddress(const std::string& address, int port) {
  const bool bare_v6 = address.find(':') != std::string::npos && !address.starts_with('[');
  return bare_v6 ? Format("[{}]:{}", address, port) : Format("{}:{}", address, port);
}

/// Opens a connection and closes it: the server's accepting thread wakes. Nothing to report.
void Knock(const std::string& address, int port) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return;
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0) {
    std::ignore = connect(fd, found->ai_addr, found->ai_addrlen);
    close(fd);
  }
  freeaddrinfo(found);
}

}  // namespace

struct MetricsEndpoint::Impl {
  std::string address;
  std::shared_ptr<prometheus::Collectable> collector;
  std::unique_ptr<prometheus::Exposer> exposer;
};

MetricsEndpoint::MetricsEndpoint(std::unique_ptr<Impl> impl, int port)
    : impl_(std::move(impl)), port_(port) {}

MetricsEndpoint::~MetricsEndpoint() {
  // Left alone, the server notices only every two seconds that it is to stop.
  std::jthread waker([&](const std::stop_token& stopped) {
    for (; !stopped.stop_requested(); std::this_thread::sleep_for(std::chrono::milliseconds(10))) {
      Knock(impl_->address, port_);
    }
  });
  impl_->exposer.reset();
}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const MetricsRegistry& registry, const std::string& address, int port) {
  const std::string listen = ListenAddress(address, port);
  auto impl = std::make_unique<Impl>();
  impl->collector = registry.collector_;
  impl->address = address;
  try {
    impl->exposer = std::make_unique<prometheus::Exposer>(std::vector<std::string>{
        "listening_ports", listen, "num_threads", kThreads, "request_timeout_ms", kRequestTimeMs});
    impl->exposer->RegisterCollectable(impl->collector);
    const std::vector<int> ports = impl->exposer->GetListeningPorts();
    if (ports.empty()) return Internal("the metrics server listens on no port: {}", listen);
    return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(std::move(impl), ports[0]));
  } catch (const std::exception& e) {
    return MakeError(absl::StatusCode::kUnavailable, "cannot serve metrics ({}): {}", e.what(),
                     listen);
  }
}

}  // namespace octet
