// SIGTERM, SIGINT and SIGHUP as values instead of interruptions.
#pragma once

#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <thread>

namespace octet {

/// The first SIGTERM or SIGINT requests a stop; the second ends the process at once, with exit code 1. SIGHUP, which a terminal
/// that is closed sends, too, asks for a reload, as with nginx, HAProxy and Prometheus; behind the first of the others it is refused.
/// Make it before any other thread: a thread inherits what it has blocked.
class ProcessSignals {
 public:
  ProcessSignals();
  ~ProcessSignals();
  ProcessSignals(const ProcessSignals&) = delete;
  ProcessSignals& operator=(const ProcessSignals&) = delete;

  /// Stop is requested once the signal for it has come.
  std::stop_token token() const { return stop_.get_token(); }
  /// Waits for the first signal that asks for either. True: for a reload, once for all that have come until now; false: to stop.
  bool WaitForReload();

 private:
  void Receive(const std::stop_token& ending);
  void AskToReload();
  void AskToStop(int signal);

  std::stop_source stop_;
  std::mutex mutex_;
  std::condition_variable_any reload_;
  bool reload_asked_ = false;  ///< Under the mutex.
  std::jthread receiver_;
};

}  // namespace octet
