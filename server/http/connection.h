// One client's socket, as cpp-httplib reads and writes it.
#pragma once

#include <string>
#include <string_view>

#include "httplib.h"

#include "server/scheduling/clock.h"

namespace octet {

/// A stream with a deadline and a memory. What was read ahead (the head of a request, perhaps more)
/// is read first; small writes are put together, so that an answer is one packet; large ones go out from
/// where they are.
/// Thread-safety: one thread at a time.
class Connection final : public httplib::Stream {
 public:
  /// Bytes of a request's line and headers.
  static constexpr size_t kMaxHeadBytes = size_t{16} << 10;

  enum class Head : uint8_t { kIncomplete, kComplete, kTooLarge, kGone };

  /// Owns the socket, which becomes non-blocking.
  Connection(int fd, Clock& clock);
  ~Connection() override;

  /// Reads what is there, without waiting, until a request's head is complete.
  Head ReadHead();
  /// The head. Requires: kComplete.
  std::string_view head() const;
  /// Nothing was read of the next request yet.
  bool idle() const { return read_ == ahead_.size(); }

  /// How long a read waits for the next byte of a body.
  static constexpr std::chrono::seconds kSilence{10};

  /// Until when reads and writes wait. They fail then, reads also after kSilence.
  void set_deadline(TimePoint deadline) { deadline_ = deadline; }
  /// The client has closed its side, or all: nobody waits for the answer. Thread-safety: safe.
  bool gone() const;

  /// Writes what was put together; false when the client does not take it.
  bool Flush();

  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  int socket() const override { return fd_; }

 private:
  /// Waits for an event of poll(2); false at the deadline.
  bool Wait(short event, TimePoint deadline) const;
  /// Writes all of both, one behind the other.
  bool Send(std::string_view first, std::string_view second);

  const int fd_;
  Clock& clock_;
  TimePoint deadline_ = kNever;
  std::string ahead_;   ///< Read from the socket...
  size_t read_ = 0;     ///< ...and so much of it by the reader.
  std::string behind_;  ///< Written, and not yet sent.
};

}  // namespace octet
