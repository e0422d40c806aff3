#include "server/http/connection_server.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "server/logging/event_log.h"

namespace octet {
namespace {

constexpr std::string_view kTooManyConnections =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 34\r\n"
    "Retry-After: 1\r\nConnection: close\r\n\r\n{\"error\":\"too many connections\"}\r\n";
constexpr std::string_view kHeadTooLarge =
    "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    "Content-Length: 36\r\nConnection: close\r\n\r\n{\"error\":\"the headers are too long\"}";
constexpr std::string_view kAmbiguousHead =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 165\r\n"
    "Connection: close\r\n\r\n"
    "{\"error\":\"headers, expected one Content-Length at most, none beside Transfer-Encoding, no "
    "blank before a colon, no line that begins with one, no half of a line end\"}";

/// How often connections that wait for too long are looked for.
constexpr int kSweepMs = 1000;
/// How long nothing is accepted after accept(2) has failed.
constexpr int kAcceptPauseMs = 50;

struct Serving {
  Connection* connection = nullptr;
  const std::atomic<bool>* stopping = nullptr;  ///< The server's.
  bool understood = false;                      ///< The head is one of HTTP.
  bool body_unread = false;
  bool probe = false;
  std::string body_coding;           ///< Of the body, in small letters.
  std::optional<Gate::Pass> inside;  ///< Given back with the answer.
};
thread_local Serving serving;

/// What stands behind the beginning of a line, to the end of the head; empty when there is no such line.
std::string_view Behind(std::string_view head, std::string_view line_start) {
  const auto equal = [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) == b;
  };
  const auto found = std::ranges::search(head, line_start, equal);
  return {found.end(), head.end()};
}

bool HasBody(std::string_view head) {
  if (!Behind(head, "\r\ntransfer-encoding:").empty()) return true;
  std::string_view length = Behind(head, "\r\ncontent-length:");
  if (length.empty()) return false;
  length = length.substr(0, length.find('\r'));
  return length.find_first_not_of(" \t0") != std::string_view::npos;
}

/// A probe of health: it waits for nothing.
bool IsProbe(std::string_view head) {
  return head.starts_with("GET /v2/health/") && !HasBody(head);
}

/// True when one half of a line's end stands alone: some servers take it for the whole.
bool HasHalfLineEnd(std::string_view head) {
  for (size_t i = 0; i < head.size(); ++i) {
    if (head[i] == '\n' && (i == 0 || head[i - 1] != '\r')) return true;
    if (head[i] == '\r' && (i + 1 == head.size() || head[i + 1] != '\n')) return true;
  }
  return false;
}

/// True when another server could find another end of the body, and so another next request, than the library, which takes
/// one of several lengths and passes over headers that are none. Source: RFC 9112, sections 2.2, 5.1, 5.2 and 6.3.
bool IsAmbiguous(std::string_view head) {
  if (HasHalfLineEnd(head)) return true;
  int lengths = 0;
  int codings = 0;
  size_t at = head.find('\n');  // behind the request's line
  while (at + 1 < head.size()) {
    const size_t begin = at + 1;
    at = std::min(head.find('\n', begin), head.size());
    const std::string_view line = head.substr(begin, at - begin);
    if (line.starts_with(' ') || line.starts_with('\t')) return true;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    // Debian's absl::string_view is not std's.
    const absl::string_view name = absl::string_view(line.data(), line.size()).substr(0, colon);
    if (!std::ranges::all_of(name, absl::ascii_isgraph)) return true;
    if (absl::EqualsIgnoreCase(name, "Content-Length")) ++lengths;
    if (absl::EqualsIgnoreCase(name, "Transfer-Encoding")) ++codings;
  }
  return lengths > 1 || (lengths > 0 && codings > 0);
}

/// Of an eventfd(2).
void Signal(int fd) {
  const uint64_t one = 1;
  (void)!write(fd, &one, sizeof(one));
}
void Consume(int fd) {
  uint64_t count = 0;
  (void)!read(fd, &count, sizeof(count));
}

/// Called once the head is read. Answers are whole: the library would send a part of a length that it does not name. Leaves the
/// one encoding that answers are made in. (The library prefers Brotli, at its slowest.) Takes the body's encoding away: the library
/// would decompress it, and not see where that breaks off.
void Prepare(httplib::Request& request) {
  serving.understood = true;
  request.ranges.clear();
  for (auto [coding, end] = request.headers.equal_range("Content-Encoding"); coding != end;
       ++coding) {
    if (!serving.body_coding.empty()) serving.body_coding += ", ";
    serving.body_coding += absl::AsciiStrToLower(coding->second);
  }
  request.headers.erase("Content-Encoding");
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

ConnectionServer::ConnectionServer(Limits limits, const Gate& gate, Clock& clock)
    : limits_(limits),
      gate_(gate),
      clock_(clock),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      all_busy_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      waits_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) {
  // Time to read the answer does not depend on how long the inference took. Probes keep theirs: none.
  set_post_routing_handler([this](const httplib::Request&, httplib::Response&) {
    if (!serving.probe) serving.connection->set_deadline(clock_.Now() + kRequestTime);
  });
}

ConnectionServer::~ConnectionServer() {
  for (const int fd : {waits_, all_busy_, wake_, epoll_}) close(fd);
}

void ConnectionServer::Run() {
  // The library's backlog is 5: of more clients that come at once, some would wait a second for their next try.
  (void)::listen(svr_sock_, SOMAXCONN);
  if (const int flags = fcntl(svr_sock_, F_GETFL); flags >= 0) {
    (void)fcntl(svr_sock_, F_SETFL, flags | O_NONBLOCK);  // A client may go before it is accepted.
  }
  for (const int fd : {wake_, waits_}) {
    epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    (void)epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }
  for (size_t i = 0; i < limits_.threads; ++i) {
    servers_.emplace_back([this] { ServeRequests(); });
    pthread_setname_np(servers_.back().native_handle(), "http");
  }
  watcher_ = std::jthread([this] { Watch(); });
  pthread_setname_np(watcher_.native_handle(), "http-watch");
  listener_ = std::jthread([this] { Accept(); });
  pthread_setname_np(listener_.native_handle(), "http-accept");
}

bool ConnectionServer::Stop(TimePoint deadline) {
  if (!listener_.joinable()) return true;
  bool taken = false;
  stopping_ = true;
  Signal(wake_);
  listener_.join();
  // Nobody comes any more. It is closed last: the library breaks off answers that are being written then.
  (void)shutdown(svr_sock_, SHUT_RDWR);
  watcher_.join();
  {
    absl::MutexLock lock(&mutex_);
    std::erase_if(connections_, [](const auto& entry) { return entry.second.parked; });
    leaving_.clear();
    closed_ = true;
    // What is still being read is not waited for; what is being answered is, for a while.
    for (const auto& [fd, entry] : connections_) (void)shutdown(fd, SHUT_RD);
    const auto none = [this]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return connections_.empty(); };
    const Nanoseconds left = std::max(deadline - clock_.Now(), Nanoseconds(0));
    taken = mutex_.AwaitWithTimeout(absl::Condition(&none), absl::FromChrono(left));
    for (const auto& [fd, entry] : connections_) (void)shutdown(fd, SHUT_RDWR);
  }
  servers_.clear();  // Joined.
  (void)close(svr_sock_.exchange(INVALID_SOCKET));
  return taken;
}

void ConnectionServer::Accept() {
  std::array<pollfd, 2> watched = {pollfd{.fd = svr_sock_, .events = POLLIN, .revents = 0},
                                   pollfd{.fd = wake_, .events = POLLIN, .revents = 0}};
  bool failing = false;
  while (!stopping_) {
    (void)poll(watched.data(), watched.size(), -1);
    if (watched[0].revents == 0) continue;
    const int fd = accept4(svr_sock_, nullptr, nullptr, SOCK_CLOEXEC);
    const int error = errno;
    const bool goes_on = GoesOn(fd >= 0 ? 0 : error, failing);
    if (fd >= 0) Add(fd);
    if (!goes_on) return;
  }
}

bool ConnectionServer::GoesOn(int error, bool& failing) {
  // Of one client alone, which has gone again, or whose network has.
  constexpr std::array kItsOwn = {EAGAIN,      EINTR,       ECONNABORTED, EPROTO,
                                  ENOPROTOOPT, EPERM,       EHOSTDOWN,    EHOSTUNREACH,
                                  ENETDOWN,    ENETUNREACH, ENONET,       EOPNOTSUPP};
  if (std::ranges::contains(kItsOwn, error)) return true;
  if (error == 0) {
    if (std::exchange(failing, false)) LogEvent(LogLevel::kInfo, "http_accept_recovered", {});
    return true;
  }
  const std::string reason = std::generic_category().message(error);
  if (error == EBADF || error == EINVAL || error == ENOTSOCK) {  // No longer a socket that listens.
    LogEvent(LogLevel::kError, "http_accept_ended", {{"error", std::string_view(reason)}});
    return false;
  }
  if (!std::exchange(failing, true)) {
    LogEvent(LogLevel::kError, "http_accept_failed", {{"error", std::string_view(reason)}});
  }
  pollfd stop = {.fd = wake_, .events = POLLIN, .revents = 0};
  (void)poll(&stop, 1, kAcceptPauseMs);
  return true;
}

Connection& ConnectionServer::current() { return *serving.connection; }
void ConnectionServer::BodyIsRead() { serving.body_unread = false; }
bool ConnectionServer::BodyIsUnread() { return serving.body_unread; }
bool ConnectionServer::IsStopping() { return *serving.stopping; }
std::string_view ConnectionServer::BodyCoding() { return serving.body_coding; }
void ConnectionServer::KeepInside(Gate::Pass pass) { serving.inside = std::move(pass); }

void ConnectionServer::Add(int fd) {
  const auto connection = std::make_shared<Connection>(fd, clock_);
  epoll_event event = {.events = 0, .data = {.fd = fd}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) return;
  bool fits = true;
  {
    absl::MutexLock lock(&mutex_);
    fits = connections_.size() < limits_.connections + kProbePlaces || CloseOldest();
    if (fits) connections_[fd].connection = connection;
  }
  if (!fits) return Refuse(connection, kTooManyConnections);
  Park(fd, clock_.Now() + kHeadTime);
}

void ConnectionServer::Park(int fd, TimePoint deadline) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) {  // Nobody watches any more.
    connections_.erase(fd);
    return;
  }
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
  while (!leaving_.empty() && leaving_.front().deadline <= now) leaving_.pop_front();
}

void ConnectionServer::Refuse(const std::shared_ptr<Connection>& connection,
                              std::string_view answer) {
  (void)send(connection->socket(), answer.data(), answer.size(), MSG_NOSIGNAL);
  Leave(connection);
}

void ConnectionServer::Leave(const std::shared_ptr<Connection>& connection) {
  const int fd = connection->socket();
  (void)shutdown(fd, SHUT_WR);
  absl::MutexLock lock(&mutex_);
  connections_.erase(fd);
  if (stopping_) return;  // Nobody watches any more.
  if (leaving_.size() == kLeavingPlaces) leaving_.pop_front();
  leaving_.push_back({connection, clock_.Now() + kLeavingTime});
  epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
  (void)epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

void ConnectionServer::Drain(int fd) {
  absl::MutexLock lock(&mutex_);
  const auto found = std::ranges::find(
      leaving_, fd, [](const Leaving& leaving) { return leaving.connection->socket(); });
  if (found == leaving_.end()) return;
  // A little at a time: epoll(7) brings it back, behind others. Nothing is copied.
  std::array<char, size_t{64} << 10> unread;
  const ssize_t got = recv(fd, unread.data(), unread.size(), MSG_TRUNC);
  const bool waits = got < 0 && (errno == EAGAIN || errno == EINTR);
  if (got <= 0 && !waits) leaving_.erase(found);
}

void ConnectionServer::Watch() {
  std::array<epoll_event, 64> events;
  std::deque<std::shared_ptr<Connection>> probes;
  const auto put = [&](std::shared_ptr<Connection> connection) {
    if (IsProbe(connection->head())) return probes.push_back(std::move(connection));
    if (Wait(std::move(connection))) Signal(waits_);
  };
  TimePoint swept = clock_.Now();
  while (!stopping_) {
    if (probes.empty() && AnyIdle()) {
      std::array<pollfd, 2> watched = {pollfd{.fd = all_busy_, .events = POLLIN, .revents = 0},
                                       pollfd{.fd = wake_, .events = POLLIN, .revents = 0}};
      (void)poll(watched.data(), watched.size(), kSweepMs);
      Consume(all_busy_);
    } else {
      const int ready = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()),
                                   probes.empty() ? kSweepMs : 0);
      for (int i = 0; i < ready; ++i) {
        if (auto connection = LookAt(events[static_cast<size_t>(i)].data.fd)) {
          put(std::move(connection));
        }
      }
    }
    // Who sends one probe behind another takes turns with the others.
    for (size_t turns = probes.size(); turns > 0; --turns) {
      const std::shared_ptr<Connection> connection = std::move(probes.front());
      probes.pop_front();
      if (Serve(connection)) put(connection);
    }
    if (clock_.Now() - swept < std::chrono::milliseconds(kSweepMs)) continue;
    CloseExpired();
    swept = clock_.Now();
  }
  for (const auto& connection : probes) (void)Serve(connection);
}

void ConnectionServer::ServeRequests() {
  while (const std::shared_ptr<Connection> connection = Next()) {
    // This thread itself looks at the queue next: nobody else is woken for it.
    if (Serve(connection)) (void)Wait(connection);
  }
}

std::shared_ptr<Connection> ConnectionServer::Next() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      // A server that stops takes nothing new, but answers what waits, and what its watcher has still in hand.
      const auto turn = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return !waiting_.empty() || !stopping_ || closed_;
      };
      mutex_.Await(absl::Condition(&turn));
      if (!waiting_.empty()) {
        std::shared_ptr<Connection> connection = std::move(waiting_.front());
        waiting_.pop_front();
        return connection;
      }
      if (closed_) return nullptr;
      ++idle_;
    }
    epoll_event event;
    const int ready = epoll_wait(epoll_, &event, 1, -1);
    bool last = false;
    {
      absl::MutexLock lock(&mutex_);
      last = --idle_ == 0;
    }
    if (last) Signal(all_busy_);
    if (ready != 1) continue;
    if (auto connection = LookAt(event.data.fd)) return connection;
  }
}

bool ConnectionServer::Wait(std::shared_ptr<Connection> connection) {
  absl::MutexLock lock(&mutex_);
  waiting_.push_back(std::move(connection));
  return idle_ > 0;
}

bool ConnectionServer::AnyIdle() const {
  absl::MutexLock lock(&mutex_);
  return idle_ > 0;
}

std::shared_ptr<Connection> ConnectionServer::LookAt(int fd) {
  if (fd == wake_) return nullptr;
  if (fd == waits_) {
    Consume(waits_);
    return nullptr;
  }
  TimePoint deadline;
  const std::shared_ptr<Connection> connection = Take(fd, deadline);
  if (connection == nullptr) {
    Drain(fd);
    return nullptr;
  }
  return ReadHead(connection, deadline) ? connection : nullptr;
}

bool ConnectionServer::ReadHead(const std::shared_ptr<Connection>& connection, TimePoint deadline) {
  const bool first = connection->idle();
  switch (connection->ReadHead()) {
    case Connection::Head::kComplete:
      return Admit(connection);
    case Connection::Head::kIncomplete:
      // From a request's first byte on its head has kHeadTime, however slowly the others follow.
      if (first && !connection->idle()) deadline = clock_.Now() + kHeadTime;
      Park(connection->socket(), deadline);
      break;
    case Connection::Head::kTooLarge:
      Refuse(connection, kHeadTooLarge);
      break;
    case Connection::Head::kGone:
      Close(connection->socket());
      break;
  }
  return false;
}

bool ConnectionServer::Admit(const std::shared_ptr<Connection>& connection) {
  const std::string_view head = connection->head();
  if (IsAmbiguous(head)) {
    Refuse(connection, kAmbiguousHead);
    return false;
  }
  if (IsProbe(head)) return true;
  bool fits = true;
  {
    absl::MutexLock lock(&mutex_);
    while (fits && connections_.size() > limits_.connections) fits = CloseOldest();
  }
  if (!fits) Refuse(connection, kTooManyConnections);
  return fits;
}

bool ConnectionServer::Serve(const std::shared_ptr<Connection>& connection) {
  const std::string_view head = connection->head();
  const bool probe = IsProbe(head);
  serving = {.connection = connection.get(),
             .stopping = &stopping_,
             .body_unread = HasBody(head),
             .probe = probe};
  connection->set_deadline(clock_.Now() + (probe ? std::chrono::seconds(0) : kRequestTime));
  // Bodies of other methods are not read.
  bool close =
      stopping_ || gate_.announced() || (serving.body_unread && !head.starts_with("POST "));
  const bool answered =
      process_request(*connection, "", 0, "", 0, close, close, Prepare) && connection->Flush();
  const bool leaves = answered && serving.body_unread;
  // Of a head that is none nobody knows where it ends.
  close |= !answered || !serving.understood || stopping_;
  serving = {};
  if (leaves) {
    Leave(connection);
    return false;
  }
  if (close) {
    Close(connection->socket());
    return false;
  }
  // The next request may have come with this one.
  return ReadHead(connection, clock_.Now() + (connection->idle() ? kIdleTime : kHeadTime));
}

}  // namespace octet
