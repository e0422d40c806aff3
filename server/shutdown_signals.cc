#include "server/shutdown_signals.h"

#include <pthread.h>

#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <mutex>

#include "server/logging/event_log.h"

namespace octet {
namespace {

sigset_t Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

ShutdownSignals::ShutdownSignals() {
  const sigset_t set = Signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  receiver_ = std::jthread([this](const std::stop_token& ending) { Receive(ending); });
}

ShutdownSignals::~ShutdownSignals() {
  receiver_.request_stop();
  pthread_kill(receiver_.native_handle(), SIGTERM);  // to wake it
}

void ShutdownSignals::Wait() const {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait(lock, stop_.get_token(), [] { return false; });
}

void ShutdownSignals::Receive(const std::stop_token& ending) {
  const sigset_t set = Signals();
  while (true) {
    int signal = 0;
    sigwait(&set, &signal);
    if (ending.stop_requested()) return;
    const bool first = stop_.request_stop();
    LogEvent(first ? LogLevel::kInfo : LogLevel::kError, first ? "stopping" : "aborted",
             {{"signal", signal == SIGINT ? "SIGINT" : "SIGTERM"}});
    if (!first) std::_Exit(1);
  }
}

}  // namespace octet
