// SIGTERM and SIGINT as values instead of interruptions.
#pragma once

#include <stop_token>
#include <thread>

namespace octet {

/// The first signal requests a stop; the second ends the process at once, with exit code 1.
/// Make it before any other thread: a thread inherits what it has blocked.
class ShutdownSignals {
 public:
  ShutdownSignals();
  ~ShutdownSignals();
  ShutdownSignals(const ShutdownSignals&) = delete;
  ShutdownSignals& operator=(const ShutdownSignals&) = delete;

  /// Stop is requested once a signal has come.
  std::stop_token token() const { return stop_.get_token(); }
  /// Waits for the first signal.
  void Wait() const;

 private:
  void Receive(const std::stop_token& ending);

  std::stop_source stop_;
  std::jthread receiver_;
};

}  // namespace octet
