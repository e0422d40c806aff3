#include "server/http/connection_server.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <utility>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

namespace octet {
namespace {

constexpr std::string_view kTooManyConnections =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 34\r\n"
    "Retry-After: 1\r\nConnection: close\r\n\r\n{\"error\":\"too many connections\"}\r\n";
constexpr std::string_view kHeadTooLarge =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    "Content-Length: 35\r\nConnection: close\r\n\r\n{\"error\":\"the headers are too long\"}";

/// How often connections that wait for too long are looked for.
constexpr int kSweepMs = 1000;

struct Serving {
  Connection* connection = nullptr;
  bool understood = false;  ///< The head is one of HTTP.
  bool body_unread = false;
};
thread_local Serving serving;

/// Runs its tasks on the thread that brings them: that of the library which accepts connections.
class Inline final : public httplib::TaskQueue {
 public:
  bool enqueue(std::function<void()> task) override {
    task();
    return true;
  }
  void shutdown() override {}
};

bool HasHeader(std::string_view head, std::string_view line_start) {
  const auto equal = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) == b;
  };
  return !std::ranges::search(head, line_start, equal).empty();
}

bool HasBody(std::string_view head) {
  return HasHeader(head, "\r\ncontent-length:") || HasHeader(head, "\r\ntransfer-encoding:");
}

/// Called once the head is read. Leaves the one encoding that answers are made in. (The library prefers Brotli, at its slowest.)
void Prepare(httplib::Request& request) {
  serving.understood = true;
  const std::string accepted = request.get_header_value("Accept-Encoding");
  request.headers.erase("Accept-Encoding");
  const size_t at = accepted.find("gzip");
  if (at == std::string::npos) return;
  std::string quality =
      accepted.substr(at + 4, accepted.find(',', at) - std::min(accepted.size(), at + 4));
  std::erase(quality, ' ');
  if (quality.starts_with(";q=0") && quality.find_first_of("123456789") == std::string::npos)
    return;
  request.set_header("Accept-Encoding", "gzip");
}

}  // namespace

ConnectionServer::ConnectionServer(Limits limits, Clock& clock)
    : limits_(limits),
      clock_(clock),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  new_task_queue = [] { return new Inline; };
}

ConnectionServer::~ConnectionServer() {
  close(wake_);
  close(epoll_);
}

void ConnectionServer::Run() {
  // The library's backlog is 5: of more clients that come at once, some would wait a second for their next try.
  (void)::listen(svr_sock_, SOMAXCONN);
  requests_ = std::make_unique<httplib::ThreadPool>(limits_.threads);
  probes_ = std::make_unique<httplib::ThreadPool>(1);
  epoll_event event = {.events = EPOLLIN, .data = {.fd = wake_}};
  (void)epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  watcher_ = std::jthread([this] { Watch(); });
  pthread_setname_np(watcher_.native_handle(), "http");
  listener_ = std::jthread([this] { (void)listen_after_bind(); });
  pthread_setname_np(listener_.native_handle(), "http-accept");
}

void ConnectionServer::Stop() {
  if (!listener_.joinable()) return;
  wait_until_ready();  // before that, stop() does nothing
  stop();
  listener_.join();
  stopping_ = true;
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof(one));
  watcher_.join();
  {
    absl::MutexLock lock(&mutex_);
    std::erase_if(connections_, [](const auto& entry) { return entry.second.parked; });
    // What is still being read is not waited for; what is being answered is.
    for (const auto& [fd, entry] : connections_) (void)shutdown(fd, SHUT_RD);
  }
  requests_->shutdown();
  probes_->shutdown();
}

Connection& ConnectionServer::current() { return *serving.connection; }
void ConnectionServer::BodyIsRead() { serving.body_unread = false; }

bool ConnectionServer::process_and_close_socket(socket_t fd) {
  auto connection = std::make_shared<Connection>(fd, clock_);
  {
    absl::MutexLock lock(&mutex_);
    if (connections_.size() >= limits_.connections + kProbePlaces && !CloseOldest()) {
      (void)send(fd, kTooManyConnections.data(), kTooManyConnections.size(), MSG_NOSIGNAL);
      return false;
    }
    connections_[fd].connection = std::move(connection);
  }
  epoll_event event = {.events = 0, .data = {.fd = fd}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    Close(fd);
    return false;
  }
  Park(fd, clock_.Now() + kHeadTime);
  return true;
}

void ConnectionServer::Park(int fd, TimePoint deadline) {
  absl::MutexLock lock(&mutex_);
  Entry& entry = connections_.at(fd);
  entry.parked = true;
  entry.since = clock_.Now();
  entry.deadline = deadline;
  epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data = {.fd = fd}};
  (void)epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

std::shared_ptr<Connection> ConnectionServer::Take(int fd, TimePoint& deadline) {
  absl::MutexLock lock(&mutex_);
  const auto found = connections_.find(fd);
  if (found == connections_.end() || !found->second.parked) return nullptr;
  found->second.parked = false;
  deadline = found->second.deadline;
  return found->second.connection;
}

void ConnectionServer::Close(int fd) {
  absl::MutexLock lock(&mutex_);
  connections_.erase(fd);
}

bool ConnectionServer::CloseOldest() {
  auto oldest = connections_.end();
  for (auto entry = connections_.begin(); entry != connections_.end(); ++entry) {
    if (!entry->second.parked) continue;
    if (oldest == connections_.end() || entry->second.since < oldest->second.since) oldest = entry;
  }
  if (oldest == connections_.end()) return false;
  connections_.erase(oldest);
  return true;
}

void ConnectionServer::CloseExpired() {
  const TimePoint now = clock_.Now();
  absl::MutexLock lock(&mutex_);
  std::erase_if(connections_, [&](const auto& entry) {
    return entry.second.parked && entry.second.deadline <= now;
  });
}

void ConnectionServer::Watch() {
  std::array<epoll_event, 64> events;
  TimePoint swept = clock_.Now();
  while (!stopping_) {
    const int ready = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), kSweepMs);
    for (int i = 0; i < ready; ++i) LookAt(events[static_cast<size_t>(i)].data.fd);
    if (clock_.Now() - swept < std::chrono::milliseconds(kSweepMs)) continue;
    CloseExpired();
    swept = clock_.Now();
  }
}

void ConnectionServer::LookAt(int fd) {
  if (fd == wake_) return;
  TimePoint deadline;
  const std::shared_ptr<Connection> connection = Take(fd, deadline);
  if (connection == nullptr) return;
  const bool first = connection->idle();
  switch (connection->ReadHead()) {
    case Connection::Head::kComplete:
      return Dispatch(connection);
    case Connection::Head::kIncomplete:
      // From a request's first byte on its head has kHeadTime, however slowly the others follow.
      return Park(fd, first && !connection->idle() ? clock_.Now() + kHeadTime : deadline);
    case Connection::Head::kTooLarge:
      (void)send(fd, kHeadTooLarge.data(), kHeadTooLarge.size(), MSG_NOSIGNAL);
      break;
    case Connection::Head::kGone:
      break;
  }
  Close(fd);
}

void ConnectionServer::Dispatch(const std::shared_ptr<Connection>& connection) {
  const std::string_view head = connection->head();
  if (head.starts_with("GET /v2/health/") && !HasBody(head)) {
    (void)probes_->enqueue([this, connection] { Serve(connection); });
    return;
  }
  size_t open = 0;
  {
    absl::MutexLock lock(&mutex_);
    open = connections_.size();
  }
  if (open > limits_.connections) {
    (void)send(connection->socket(), kTooManyConnections.data(), kTooManyConnections.size(),
               MSG_NOSIGNAL);
    return Close(connection->socket());
  }
  (void)requests_->enqueue([this, connection] { Serve(connection); });
}

void ConnectionServer::Serve(const std::shared_ptr<Connection>& connection) {
  serving = {.connection = connection.get(), .body_unread = HasBody(connection->head())};
  connection->set_deadline(clock_.Now() + kRequestTime);
  bool close = stopping_;
  const bool answered =
      process_request(*connection, "", 0, "", 0, close, close, Prepare) && connection->Flush();
  if (answered && serving.body_unread) connection->Linger();
  // Of a head that is none nobody knows where it ends.
  close |= !answered || !serving.understood || serving.body_unread || stopping_;
  serving = {};
  const int fd = connection->socket();
  if (close) return Close(fd);
  // The next request may have come with this one.
  const Connection::Head next = connection->ReadHead();
  if (next == Connection::Head::kComplete) return Dispatch(connection);
  if (next != Connection::Head::kIncomplete) return Close(fd);
  Park(fd, clock_.Now() + (connection->idle() ? kIdleTime : kHeadTime));
}

}  // namespace octet
