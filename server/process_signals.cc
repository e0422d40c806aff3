#include "server/process_signals.h"

#include <pthread.h>

#include <csignal>
#include <cstdlib>
#include <utility>

#include "server/logging/event_log.h"

namespace octet {
namespace {

sigset_t Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  return set;
}

}  // namespace

ProcessSignals::ProcessSignals() {
  const sigset_t set = Signals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  receiver_ = std::jthread([this](const std::stop_token& ending) { Receive(ending); });
}

ProcessSignals::~ProcessSignals() {
  receiver_.request_stop();
  pthread_kill(receiver_.native_handle(), SIGINT);  // to wake it
}

bool ProcessSignals::WaitForReload() {
  std::unique_lock lock(mutex_);
  const std::stop_token stop = stop_.get_token();
  reload_.wait(lock, stop, [this] { return reload_asked_; });
  return !stop.stop_requested() && std::exchange(reload_asked_, false);
}

void ProcessSignals::Receive(const std::stop_token& ending) {
  const sigset_t set = Signals();
  while (true) {
    int signal = 0;
    sigwait(&set, &signal);
    if (ending.stop_requested()) return;
    if (signal == SIGHUP) {
      AskToReload();
    } else {
      AskToStop(signal);
    }
  }
}

void ProcessSignals::AskToReload() {
  if (stop_.stop_requested()) {
    return LogEvent(LogLevel::kInfo, "reload_refused",
                    {{"signal", "SIGHUP"}, {"error", "the server is stopping"}});
  }
  LogEvent(LogLevel::kInfo, "reloading", {{"signal", "SIGHUP"}});
  {
    const std::scoped_lock lock(mutex_);
    reload_asked_ = true;
  }
  reload_.notify_all();
}

void ProcessSignals::AskToStop(int signal) {
  const bool first = stop_.request_stop();
  LogEvent(first ? LogLevel::kInfo : LogLevel::kError, first ? "stopping" : "aborted",
           {{"signal", signal == SIGINT ? "SIGINT" : "SIGTERM"}});
  if (!first) std::_Exit(1);
}

}  // namespace octet
