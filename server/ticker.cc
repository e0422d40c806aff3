#include "server/ticker.h"

#include <pthread.h>

#include <algorithm>
#include <exception>
#include <string_view>
#include <utility>

#include "server/logging/event_log.h"

namespace octet {

Ticker::Ticker(std::string name, Nanoseconds interval, Clock& clock, Task task)
    : name_(std::move(name)),
      interval_(interval),
      clock_(clock),
      task_(std::move(task)),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

Ticker::~Ticker() { Stop(); }

void Ticker::Hurry() {
  const absl::MutexLock lock(&mutex_);
  hurried_ = true;
  changed_.SignalAll();
}

void Ticker::Stop() {
  thread_.request_stop();
  const absl::MutexLock lock(&mutex_);
  changed_.SignalAll();
}

void Ticker::Run(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), name_.c_str());
  Nanoseconds wait = interval_;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      const TimePoint next = clock_.Now() + wait;
      while (!stop.stop_requested() && !hurried_ && clock_.Now() < next) {
        clock_.WaitUntil(changed_, mutex_, next);
      }
      hurried_ = false;
    }
    if (stop.stop_requested()) return;
    wait = interval_;
    try {
      task_(stop);
    } catch (const std::exception& error) {  // the next time it may have the memory
      wait = std::min<Nanoseconds>(interval_, kAgain);
      LogEvent(LogLevel::kError, "task_failed",
               {{"thread", name_}, {"error", std::string_view(error.what())}});
    }
  }
}

}  // namespace octet
