// The threads that compute: one pool for all models together. Only what is shorter than the way to them runs elsewhere
// (caller_runners.h).
#pragma once

#include <thread>
#include <vector>

#include "config/server_config.h"
#include "server/scheduling/dispatcher.h"

namespace octet {

/// How many workers, and how many OpenMP threads each.
struct WorkerPlan {
  int workers = 1;
  int threads = 1;
  bool operator==(const WorkerPlan&) const = default;
};

/// Fills in what the configuration leaves open (0) such that workers x threads <= cores: threads 1
/// up to 4 cores, 2 up to 16, else 4; workers = cores / threads, at least 1. What the configuration
/// says is kept.
WorkerPlan PlanWorkers(const ServerConfig::Workers& config, int cores);

/// Starts the workers; each takes batches from the dispatcher until it is closed and empty.
class WorkerPool {
 public:
  WorkerPool(Dispatcher& dispatcher, WorkerPlan plan, Clock& clock);
  /// Closes the dispatcher and waits until everything that it holds has run.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

 private:
  Dispatcher& dispatcher_;
  std::vector<std::jthread> workers_;
};

}  // namespace octet
