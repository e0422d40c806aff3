#include "server/repository_poller.h"

#include <pthread.h>

namespace octet {

RepositoryPoller::RepositoryPoller(ModelRepository& repository, Nanoseconds interval, Clock& clock)
    : repository_(repository),
      interval_(interval),
      clock_(clock),
      thread_([this](const std::stop_token& stop) { Run(stop); }) {}

RepositoryPoller::~RepositoryPoller() { Stop(); }

void RepositoryPoller::Stop() {
  thread_.request_stop();
  const absl::MutexLock lock(&mutex_);
  stopping_.SignalAll();
}

void RepositoryPoller::Run(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), "poller");
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      const TimePoint next = clock_.Now() + interval_;
      while (!stop.stop_requested() && clock_.Now() < next) {
        clock_.WaitUntil(stopping_, mutex_, next);
      }
    }
    if (stop.stop_requested()) return;
    repository_.Poll(stop);
  }
}

}  // namespace octet
