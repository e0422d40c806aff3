#include "server/scheduling/dispatcher.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::chrono::milliseconds kSweepInterval{1};

absl::Status Expired(const VariantQueue& queue) {
  return MakeError(absl::StatusCode::kDeadlineExceeded,
                   "deadline passed before the request ran: {}", queue.target().name);
}

absl::Status Cancelled(const VariantQueue& queue) {
  return MakeError(absl::StatusCode::kCancelled, "cancelled before the request ran: {}",
                   queue.target().name);
}

absl::Status Stopping() { return absl::UnavailableError("the server is shutting down"); }

/// Tells the observer that they wait no more, and sets the time that each has waited.
void ReportDequeued(const Batch& batch) {
  for (const auto& request : batch.requests)
    batch.queue->target().observer->OnDequeued(request->bytes());
}

}  // namespace

void FinishRequest(const VariantQueue& queue, std::unique_ptr<InferenceRequest> request,
                   const absl::Status& status, RequestTimings timings, TimePoint now) {
  timings.total = now - request->received;
  queue.target().observer->OnFinished(status.code(), request->rows, timings);
  std::move(request->done)(status, timings);
}

void EndBackground::operator()(Dispatcher* dispatcher) const {
  absl::MutexLock lock(&dispatcher->mutex_);
  dispatcher->background_runs_ = false;
  if (!dispatcher->active_.empty()) dispatcher->changed_.Signal();
}

Dispatcher::~Dispatcher() { Abandon(); }

void Dispatcher::Submit(std::shared_ptr<VariantQueue> queue,
                        std::unique_ptr<InferenceRequest> request) {
  const TimePoint now = clock_.Now();
  request->queued = now;
  // Told before a worker can take it: a gauge never sees the leaving before the coming.
  queue->target().observer->OnQueued(request->bytes());
  std::vector<Dropped> dropped;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Status status = Admit(queue, *request, now, dropped);
    if (status.ok()) {
      if (queue->empty()) active_.push_back(queue);
      queue->Push(std::move(request), next_sequence_++);
      changed_.Signal();
    } else {
      dropped.push_back({std::move(queue), std::move(request), status});
    }
  }
  FinishDropped(dropped);
}

absl::Status Dispatcher::Admit(const std::shared_ptr<VariantQueue>& queue,
                               const InferenceRequest& request, TimePoint now,
                               std::vector<Dropped>& dropped) {
  if (closed_ || (flushing_ && queue->target().background)) return Stopping();
  if (request.deadline <= now) return Expired(*queue);
  const size_t bytes = request.bytes();
  absl::Status status = queue->CheckRoom(bytes);
  if (status.ok() || now < queue->next_sweep_) return status;
  Sweep(queue, now, dropped);
  return queue->CheckRoom(bytes);
}

std::optional<Batch> Dispatcher::Take() {
  while (true) {
    std::vector<Dropped> dropped;
    std::optional<Batch> batch;
    bool done = false;
    {
      absl::MutexLock lock(&mutex_);
      TimePoint wake = kNever;
      batch = TakeLocked(clock_.Now(), dropped, wake);
      done = batch.has_value() || (closed_ && active_.empty());
      // What was dropped is finished before this thread sleeps.
      if (!done && dropped.empty()) clock_.WaitUntil(changed_, mutex_, wake);
    }
    FinishDropped(dropped);
    if (!done) continue;
    if (batch) ReportDequeued(*batch);
    return batch;
  }
}

std::optional<Batch> Dispatcher::TryTake() {
  std::vector<Dropped> dropped;
  std::optional<Batch> batch;
  {
    absl::MutexLock lock(&mutex_);
    TimePoint wake = kNever;
    batch = TakeLocked(clock_.Now(), dropped, wake);
  }
  FinishDropped(dropped);
  if (batch) ReportDequeued(*batch);
  return batch;
}

void Dispatcher::Flush() {
  std::vector<Dropped> dropped;
  {
    absl::MutexLock lock(&mutex_);
    FlushLocked(dropped);
  }
  FinishDropped(dropped);
}

void Dispatcher::Close() {
  std::vector<Dropped> dropped;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    FlushLocked(dropped);
  }
  FinishDropped(dropped);
}

void Dispatcher::FlushLocked(std::vector<Dropped>& dropped) {
  flushing_ = true;
  for (const auto& queue : std::vector(active_)) {
    if (queue->target().background) DropAll(queue, dropped);
  }
  changed_.SignalAll();
}

void Dispatcher::Abandon() {
  std::vector<Dropped> dropped;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    for (const auto& queue : std::vector(active_)) DropAll(queue, dropped);
    changed_.SignalAll();
  }
  FinishDropped(dropped);
}

size_t Dispatcher::queued() const {
  absl::MutexLock lock(&mutex_);
  size_t sum = 0;
  for (const auto& queue : active_) sum += queue->facts().size();
  return sum;
}

std::optional<Batch> Dispatcher::TakeLocked(TimePoint now, std::vector<Dropped>& dropped,
                                            TimePoint& wake) {
  SweepBackground(now, dropped);
  for (const auto& queue : Order()) {
    std::optional<Batch> batch = TakeFrom(queue, now, dropped, wake);
    if (queue->empty()) Forget(queue);
    if (!batch) continue;
    // Another worker looks at what is left: it may run now, or need a timer.
    if (!active_.empty()) changed_.Signal();
    return batch;
  }
  if (closed_ && active_.empty()) changed_.SignalAll();
  return std::nullopt;
}

std::vector<std::shared_ptr<VariantQueue>> Dispatcher::Order() const {
  // Few queues are active at a time: a sort of pointers is cheaper than an ordered structure kept
  // up to date.
  std::vector<std::shared_ptr<VariantQueue>> order = active_;
  const auto background =
      std::ranges::partition(order, [](const auto& queue) { return !queue->target().background; });
  // Also while the others wait to become full: a background batch could make them late.
  if (background.begin() != order.begin() || background_runs_) {
    order.erase(background.begin(), background.end());
  }
  std::ranges::sort(order, [](const auto& a, const auto& b) {
    return RunsBefore(a->facts().front(), b->facts().front());
  });
  return order;
}

void Dispatcher::SweepBackground(TimePoint now, std::vector<Dropped>& dropped) {
  const auto due = [now](const auto& queue) {
    return queue->target().background && now >= queue->next_sweep_;
  };
  std::vector<std::shared_ptr<VariantQueue>> queues;
  std::ranges::copy_if(active_, std::back_inserter(queues), due);
  for (const auto& queue : queues) Sweep(queue, now, dropped);
}

void Dispatcher::DropAll(const std::shared_ptr<VariantQueue>& queue,
                         std::vector<Dropped>& dropped) {
  std::vector<size_t> all(queue->facts().size());
  std::iota(all.begin(), all.end(), size_t{0});
  for (auto& request : queue->Remove(all)) {
    dropped.push_back({queue, std::move(request), Stopping()});
  }
  Forget(queue);
}

std::optional<Batch> Dispatcher::TakeFrom(const std::shared_ptr<VariantQueue>& queue, TimePoint now,
                                          std::vector<Dropped>& dropped, TimePoint& wake) {
  const BatchDecision decision = DecideBatch(queue->facts(), queue->target().batch, now, flushing_);
  if (decision.wait_until) wake = std::min(wake, *decision.wait_until);
  std::optional<Batch> batch;
  if (!decision.take.empty()) {
    batch = Batch{queue, {}, now};
    if (queue->target().background) {
      batch->background = BackgroundPass(this);
      background_runs_ = true;
    }
  }
  if (decision.expired.empty() && decision.cancelled.empty()) {
    if (batch) batch->requests = queue->Remove(decision.take);
    return batch;
  }
  // Removal shifts indices: take everything out at once, then sort it into its heaps.
  std::vector<size_t> out;
  out.insert(out.end(), decision.take.begin(), decision.take.end());
  out.insert(out.end(), decision.expired.begin(), decision.expired.end());
  out.insert(out.end(), decision.cancelled.begin(), decision.cancelled.end());
  std::ranges::sort(out);
  auto removed = queue->Remove(out);
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::ranges::binary_search(decision.take, out[i])) {
      batch->requests.push_back(std::move(removed[i]));
    } else if (std::ranges::binary_search(decision.expired, out[i])) {
      dropped.push_back({queue, std::move(removed[i]), Expired(*queue)});
    } else {
      dropped.push_back({queue, std::move(removed[i]), Cancelled(*queue)});
    }
  }
  return batch;
}

void Dispatcher::Sweep(const std::shared_ptr<VariantQueue>& queue, TimePoint now,
                       std::vector<Dropped>& dropped) {
  queue->next_sweep_ = now + kSweepInterval;
  std::vector<size_t> dead;
  std::vector<absl::Status> fates;
  const auto facts = queue->facts();
  for (size_t i = 0; i < facts.size(); ++i) {
    const bool cancelled = facts[i].is_cancelled();
    if (!cancelled && facts[i].deadline > now) continue;
    dead.push_back(i);
    fates.push_back(cancelled ? Cancelled(*queue) : Expired(*queue));
  }
  auto removed = queue->Remove(dead);
  for (size_t i = 0; i < removed.size(); ++i) {
    dropped.push_back({queue, std::move(removed[i]), std::move(fates[i])});
  }
  if (queue->empty()) Forget(queue);
}

void Dispatcher::Forget(const std::shared_ptr<VariantQueue>& queue) { std::erase(active_, queue); }

void Dispatcher::FinishDropped(std::vector<Dropped>& dropped) {
  if (dropped.empty()) return;
  const TimePoint now = clock_.Now();
  for (Dropped& drop : dropped) {
    drop.queue->target().observer->OnDequeued(drop.request->bytes());
    FinishRequest(*drop.queue, std::move(drop.request), drop.status,
                  {.queue = now - drop.request->queued}, now);
  }
}

}  // namespace octet
