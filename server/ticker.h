// A thread that does something again and again.
#pragma once

#include <chrono>
#include <functional>
#include <stop_token>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/scheduling/clock.h"

namespace octet {

/// Does `task` every `interval` on a thread of its own, from construction on, the first time after
/// one interval.
class Ticker {
 public:
  /// At most so long after a task that threw the next one comes, however long the interval.
  static constexpr std::chrono::seconds kAgain{5};

  using Task = std::function<void(const std::stop_token& stop)>;

  /// `name` is the thread's; `clock` outlives it. `stop` is requested by Stop. What the task throws is logged.
  Ticker(std::string name, Nanoseconds interval, Clock& clock, Task task);
  /// Stop, and waits for the task under way.
  ~Ticker();
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

  /// Does the task at once and, while one is under way, once more behind it. The next interval begins after that.
  void Hurry();
  /// Begins no task from now on.
  void Stop();

 private:
  void Run(const std::stop_token& stop);

  const std::string name_;
  const Nanoseconds interval_;
  Clock& clock_;
  const Task task_;
  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool hurried_ ABSL_GUARDED_BY(mutex_) = false;
  std::jthread thread_;
};

}  // namespace octet
