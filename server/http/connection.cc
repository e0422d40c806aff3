#include "server/http/connection.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include <sys/socket.h>
#include <sys/uio.h>

namespace octet {
namespace {

constexpr std::string_view kHeadEnd = "\r\n\r\n";
/// Writes up to this size are put together.
constexpr size_t kSmallWrite = size_t{16} << 10;

}  // namespace

Connection::Connection(int fd, Clock& clock) : fd_(fd), clock_(clock) {
  const int flags = fcntl(fd_, F_GETFL);
  if (flags >= 0) (void)fcntl(fd_, F_SETFL, flags | O_NONBLOCK);
}

Connection::~Connection() { close(fd_); }

Connection::Head Connection::ReadHead() {
  ahead_.erase(0, read_);
  read_ = 0;
  while (true) {
    if (ahead_.find(kHeadEnd) != std::string::npos) return Head::kComplete;
    if (ahead_.size() >= kMaxHeadBytes) return Head::kTooLarge;
    std::array<char, kMaxHeadBytes> chunk;
    const ssize_t got = recv(fd_, chunk.data(), kMaxHeadBytes - ahead_.size(), 0);
    if (got > 0) {
      ahead_.append(chunk.data(), static_cast<size_t>(got));
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else {
      return got < 0 && errno == EAGAIN ? Head::kIncomplete : Head::kGone;
    }
  }
}

std::string_view Connection::head() const {
  return std::string_view(ahead_).substr(0, ahead_.find(kHeadEnd) + kHeadEnd.size());
}

bool Connection::gone() const {
  pollfd watched = {.fd = fd_, .events = POLLRDHUP, .revents = 0};
  return poll(&watched, 1, 0) > 0;
}

bool Connection::Wait(short event, TimePoint deadline) const {
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock_.Now());
    if (left.count() <= 0) return false;
    constexpr int64_t kMost = 60'000;
    pollfd watched = {.fd = fd_, .events = event, .revents = 0};
    const int ready = poll(&watched, 1, static_cast<int>(std::min<int64_t>(left.count(), kMost)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

ssize_t Connection::read(char* data, size_t size) {
  if (read_ < ahead_.size()) {
    const size_t taken = std::min(size, ahead_.size() - read_);
    std::copy_n(ahead_.data() + read_, taken, data);
    read_ += taken;
    return static_cast<ssize_t>(taken);
  }
  // The client may wait for these before it sends: "100 Continue".
  if (!Flush()) return -1;
  while (true) {
    // A client that always has something to send is never waited for.
    if (clock_.Now() >= deadline_) return -1;
    const ssize_t got = recv(fd_, data, size, 0);
    if (got >= 0) return got;
    if (errno == EINTR) continue;
    if (errno != EAGAIN || !Wait(POLLIN, std::min(deadline_, clock_.Now() + kSilence))) return -1;
  }
}

bool Connection::Send(std::string_view first, std::string_view second) {
  while (!first.empty() || !second.empty()) {
    std::array<iovec, 2> parts = {iovec{const_cast<char*>(first.data()), first.size()},
                                  iovec{const_cast<char*>(second.data()), second.size()}};
    msghdr message = {};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t sent = sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR || (errno == EAGAIN && Wait(POLLOUT, deadline_))) continue;
      return false;
    }
    const size_t of_first = std::min(static_cast<size_t>(sent), first.size());
    first.remove_prefix(of_first);
    second.remove_prefix(static_cast<size_t>(sent) - of_first);
  }
  return true;
}

bool Connection::Flush() {
  const bool sent = Send(behind_, {});
  behind_.clear();
  return sent;
}

ssize_t Connection::write(const char* data, size_t size) {
  if (behind_.size() + size <= kSmallWrite) {
    behind_.append(data, size);
    return static_cast<ssize_t>(size);
  }
  const bool sent = Send(behind_, {data, size});
  behind_.clear();
  return sent ? static_cast<ssize_t>(size) : -1;
}

// Nobody asks: who the client is is no part of an answer.
void Connection::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}
void Connection::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

}  // namespace octet
