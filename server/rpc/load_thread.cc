#include "server/rpc/load_thread.h"

#include <pthread.h>

#include <exception>
#include <string_view>
#include <utility>

#include "server/logging/event_log.h"

namespace octet {

LoadThread::LoadThread() : thread_([this] { Run(); }) {
  pthread_setname_np(thread_.native_handle(), "loads");
}

LoadThread::~LoadThread() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

bool LoadThread::Post(absl::AnyInvocable<void() &&> task) {
  absl::MutexLock lock(&mutex_);
  if (tasks_.size() >= kMaxWaiting) return false;
  tasks_.push_back(std::move(task));
  return true;
}

bool LoadThread::busy() const {
  absl::MutexLock lock(&mutex_);
  return running_ || !tasks_.empty();
}

void LoadThread::Run() {
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || !tasks_.empty();
  };
  while (true) {
    absl::AnyInvocable<void() &&> task;
    {
      absl::MutexLock lock(&mutex_);
      running_ = false;
      mutex_.Await(absl::Condition(&has_work));
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
      running_ = true;
    }
    try {
      std::move(task)();
    } catch (const std::exception& error) {
      LogEvent(LogLevel::kError, "task_failed",
               {{"thread", std::string_view("loads")}, {"error", std::string_view(error.what())}});
    }
  }
}

}  // namespace octet
