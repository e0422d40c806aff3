#include "server/scheduling/worker_pool.h"

#include <pthread.h>

#include <algorithm>
#include <string>

#include "server/scheduling/batch_runner.h"

namespace octet {

WorkerPlan PlanWorkers(const ServerConfig::Workers& config, int cores) {
  WorkerPlan plan;
  const int automatic = cores <= 4 ? 1 : (cores <= 16 ? 2 : 4);
  const int most = config.count > 0 ? std::max(1, cores / config.count) : cores;
  plan.threads = config.threads > 0 ? config.threads : std::min(automatic, most);
  plan.workers = config.count > 0 ? config.count : std::max(1, cores / plan.threads);
  return plan;
}

WorkerPool::WorkerPool(Dispatcher& dispatcher, WorkerPlan plan, Clock& clock)
    : dispatcher_(dispatcher) {
  for (int i = 0; i < plan.workers; ++i) {
    workers_.emplace_back([&dispatcher, &clock, threads = plan.threads, i] {
      const std::string name = "worker-" + std::to_string(i);
      pthread_setname_np(pthread_self(), name.c_str());
      ConfigureWorkerThread(threads);
      BatchRunner runner(clock);
      while (std::optional<Batch> batch = dispatcher.Take()) runner.Run(*std::move(batch));
    });
  }
}

WorkerPool::~WorkerPool() {
  dispatcher_.Close();
  workers_.clear();
}

}  // namespace octet
