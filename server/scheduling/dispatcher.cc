#include "server/scheduling/dispatcher.h"

#include <algorithm>
#include <iterator>
#include <new>
#include <numeric>

#include "engine/tensor/status.h"
#include "server/scheduling/retry_after.h"

namespace octet {
namespace {

constexpr std::chrono::milliseconds kSweepInterval{1};
/// Between those of a queue with levels that is not full: a long one is not searched for every batch.
constexpr std::chrono::milliseconds kLevelSweepInterval{10};

double Milliseconds(Nanoseconds time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

/// Tells the observer that they wait no more.
void ReportDequeued(const Batch& batch) {
  for (const auto& request : batch.requests)
    batch.queue->target().observer->OnDequeued(request->queued_bytes);
}

}  // namespace

Dispatcher::Fate Dispatcher::Expired(const VariantQueue& queue) {
  return {MakeError(absl::StatusCode::kDeadlineExceeded,
                    "deadline passed before the request ran: {}", queue.target().name),
          Refusal::kExpired};
}

Dispatcher::Fate Dispatcher::Hopeless(const VariantQueue& queue, Nanoseconds expected,
                                      Nanoseconds remaining) {
  return {
      MakeError(absl::StatusCode::kDeadlineExceeded,
                "deadline cannot be met, expected {:.3f} ms to the answer, {:.3f} ms remain: {}",
                Milliseconds(expected), Milliseconds(remaining), queue.target().name),
      Refusal::kDeadline};
}

Dispatcher::Fate Dispatcher::Overloaded(const VariantQueue& queue, Nanoseconds expected) {
  const Nanoseconds target = queue.target().batch.p99_target;
  const absl::Status status =
      MakeError(absl::StatusCode::kResourceExhausted,
                "too many wait for a p99 target of {} ms, expected {:.3f} ms to the answer: {}",
                Milliseconds(target), Milliseconds(expected), queue.target().name);
  // So much of what waits must be gone.
  return {WithRetryAfter(status, expected - target), Refusal::kTarget};
}

Dispatcher::Fate Dispatcher::Full(const VariantQueue& queue, const absl::Status& why,
                                  TimePoint now) {
  // As long as who is let in last has to wait: the others who are refused come back as well.
  const QueueMeasurements measured = queue.Measure(now);
  if (!measured.curve.known())
    return {WithRetryAfter(why, kUnknownRetryAfter), Refusal::kQueueFull};
  const Nanoseconds wait =
      ExpectedTime({.rows = 1, .rows_ahead = queue.rows_}, queue.target().batch, measured);
  return {WithRetryAfter(why, wait), Refusal::kQueueFull};
}

Dispatcher::Fate Dispatcher::Cancelled(const VariantQueue& queue) {
  return {MakeError(absl::StatusCode::kCancelled, "cancelled before the request ran: {}",
                    queue.target().name)};
}

Dispatcher::Fate Dispatcher::Stopping() { return {ShuttingDown()}; }

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
  request->queued_bytes = request->bytes();
  request->own_time = queue->OwnTime(*request, now);
  // Told before a worker can take it: a gauge never sees the leaving before the coming.
  queue->target().observer->OnQueued(request->queued_bytes);
  std::vector<Dropped> dropped;
  Fate fate;
  {
    absl::MutexLock lock(&mutex_);
    try {
      fate = Accept(queue, request, now, dropped);
    } catch (const std::bad_alloc&) {
      fate = {absl::ResourceExhaustedError("out of memory for a request that waits")};
    }
  }
  FinishDropped(dropped);
  if (fate.status.ok()) return;
  Dropped refused = {std::move(queue), std::move(request), std::move(fate)};
  FinishDropped({&refused, 1});
}

Dispatcher::Fate Dispatcher::Accept(const std::shared_ptr<VariantQueue>& queue,
                                    std::unique_ptr<InferenceRequest>& request, TimePoint now,
                                    std::vector<Dropped>& dropped) {
  Fate fate = Admit(queue, *request, now, dropped);
  if (!fate.status.ok()) return fate;
  // From the first request in the queue on it has to be an active one.
  ReserveOne(active_);
  const bool first = queue->empty();
  queue->Push(request, next_sequence_++);
  if (first) active_.push_back(queue);
  changed_.Signal();
  return fate;
}

std::optional<Batch> Dispatcher::SubmitOrTake(std::shared_ptr<VariantQueue> queue,
                                              std::unique_ptr<InferenceRequest> request,
                                              Nanoseconds most) {
  const TimePoint now = clock_.Now();
  if (!TakesAtOnce(*queue, *request, most, now)) {
    Submit(std::move(queue), std::move(request));
    return std::nullopt;
  }
  Batch batch = {.queue = std::move(queue), .requests = {}, .taken = now};
  request->queued = now;
  request->queued_bytes = request->bytes();
  batch.queue->target().observer->OnQueued(request->queued_bytes);
  batch.requests.push_back(std::move(request));
  ReportDequeued(batch);
  return batch;
}

bool Dispatcher::TakesAtOnce(VariantQueue& queue, const InferenceRequest& request, Nanoseconds most,
                             TimePoint now) {
  const ExecutionTarget& target = queue.target();
  const Nanoseconds time = queue.times().Measured(BucketFor(request.rows, target.batch.max_batch));
  if (time == Nanoseconds::zero() || time > most || !target.steady) return false;
  if (target.batch.max_delay > Nanoseconds::zero() || target.background) return false;
  if (request.deadline <= now) return false;
  absl::MutexLock lock(&mutex_);
  if (closed_ || !queue.empty()) return false;
  queue.pace_.OnArrival(now, request.rows);
  return true;
}

Dispatcher::Fate Dispatcher::Admit(const std::shared_ptr<VariantQueue>& queue,
                                   const InferenceRequest& request, TimePoint now,
                                   std::vector<Dropped>& dropped) {
  if (closed_ || (flushing_ && queue->target().background)) return Stopping();
  if (request.deadline <= now) return Expired(*queue);
  absl::Status room = queue->CheckRoom(request.queued_bytes);
  if (!room.ok() && now >= queue->next_sweep_) {
    Sweep(queue, now, dropped);
    room = queue->CheckRoom(request.queued_bytes);
  }
  if (!room.ok()) return Full(*queue, room, now);
  const BatchLimits& limits = queue->target().batch;
  if (request.deadline == kNever && limits.p99_target == Nanoseconds::zero()) return {};
  const QueueMeasurements measured = queue->Measure(now);
  ArrivalFacts arrival = {.rows = request.rows,
                          .rows_ahead = queue->rows_,
                          .deadline = request.deadline,
                          .own_time = request.own_time};
  // Nearly always: all that wait may go first, so nobody needs to be counted.
  if (!DecideAdmission(arrival, limits, measured, now)) return {};
  arrival.rows_ahead = queue->RowsAhead(request);
  const auto refusal = DecideAdmission(arrival, limits, measured, now);
  if (!refusal) return {};
  return refusal == Refusal::kTarget
             ? Overloaded(*queue, ExpectedTime(arrival, limits, measured))
             : Hopeless(*queue, LeastTime(arrival, limits, measured), request.deadline - now);
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
  SweepPassedOver(now, dropped);
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
    return IsDueBefore(a->facts().front(), b->facts().front());
  });
  return order;
}

void Dispatcher::SweepPassedOver(TimePoint now, std::vector<Dropped>& dropped) {
  const auto due = [now](const auto& queue) {
    if (queue->target().background) return now >= queue->next_sweep_;
    const TimePoint last = queue->next_sweep_ - kSweepInterval;
    return queue->target().levels.count > 1 && now >= last + kLevelSweepInterval;
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
  QueueMeasurements measured = queue->Measure(now);
  if (!queue->target().background) measured.workers = workers_;
  const BatchDecision decision =
      DecideBatch(queue->facts(), queue->target().batch, measured, now, flushing_);
  if (decision.wait_until) {
    wake = std::min(wake, *decision.wait_until);
    queue->pace_.OnPause();
  }
  std::optional<Batch> batch;
  if (!decision.take.empty()) {
    batch = Batch{queue, {}, now};
    if (queue->target().background) {
      batch->background = BackgroundPass(this);
      background_runs_ = true;
    }
  }
  auto requests = TakeOut(queue, decision, measured, now, dropped);
  if (!batch) return std::nullopt;
  int64_t rows = 0;
  for (const auto& request : requests) rows += request->rows;
  batch->requests = std::move(requests);
  queue->pace_.OnTake(now, rows, !queue->empty());
  return batch;
}

std::vector<std::unique_ptr<InferenceRequest>> Dispatcher::TakeOut(
    const std::shared_ptr<VariantQueue>& queue, const BatchDecision& decision,
    const QueueMeasurements& measured, TimePoint now, std::vector<Dropped>& dropped) {
  if (decision.expired.empty() && decision.cancelled.empty() && decision.hopeless.empty()) {
    return queue->Remove(decision.take);
  }
  // Removal shifts indices: take everything out at once, then sort it into its heaps.
  std::vector<size_t> out = decision.take;
  for (const auto* heap : {&decision.expired, &decision.cancelled, &decision.hopeless}) {
    out.insert(out.end(), heap->begin(), heap->end());
  }
  std::ranges::sort(out);
  auto removed = queue->Remove(out);
  std::vector<std::unique_ptr<InferenceRequest>> taken;
  for (size_t i = 0; i < out.size(); ++i) {
    std::unique_ptr<InferenceRequest>& request = removed[i];
    const auto is_in = [&](const auto& heap) { return std::ranges::binary_search(heap, out[i]); };
    if (is_in(decision.take)) {
      taken.push_back(std::move(request));
    } else if (is_in(decision.expired)) {
      dropped.push_back({queue, std::move(request), Expired(*queue)});
    } else if (is_in(decision.cancelled)) {
      dropped.push_back({queue, std::move(request), Cancelled(*queue)});
    } else {
      const Nanoseconds expected = ExpectedTime(
          {.rows = request->rows, .own_time = request->own_time}, queue->target().batch, measured);
      Fate fate = Hopeless(*queue, expected, request->deadline - now);
      dropped.push_back({queue, std::move(request), std::move(fate)});
    }
  }
  return taken;
}

void Dispatcher::Sweep(const std::shared_ptr<VariantQueue>& queue, TimePoint now,
                       std::vector<Dropped>& dropped) {
  queue->next_sweep_ = now + kSweepInterval;
  std::vector<size_t> dead;
  std::vector<Fate> fates;
  const auto facts = queue->facts();
  for (size_t i = 0; i < facts.size(); ++i) {
    const bool cancelled = facts[i].is_cancelled();
    if (!cancelled && facts[i].deadline > now) continue;
    dead.push_back(i);
    fates.push_back(cancelled ? Cancelled(*queue) : Expired(*queue));
  }
  dropped.reserve(dropped.size() + dead.size());  // nothing throws once they are taken out
  auto removed = queue->Remove(dead);
  for (size_t i = 0; i < removed.size(); ++i) {
    dropped.push_back({queue, std::move(removed[i]), std::move(fates[i])});
  }
  if (queue->empty()) Forget(queue);
}

void Dispatcher::Forget(const std::shared_ptr<VariantQueue>& queue) {
  queue->pace_.OnPause();
  std::erase(active_, queue);
}

void Dispatcher::DropDead(Batch& batch, TimePoint now) {
  const VariantQueue& queue = *batch.queue;
  for (std::unique_ptr<InferenceRequest>& request : batch.requests) {
    const bool cancelled = request->is_cancelled();
    if (!cancelled && request->deadline > now) continue;
    const Fate fate = cancelled ? Cancelled(queue) : Expired(queue);
    if (fate.refusal) queue.target().observer->OnRefused(*fate.refusal);
    const RequestTimings timings = {.queue = now - request->queued, .refusal = fate.refusal};
    FinishRequest(queue, std::move(request), fate.status, timings, now);
  }
  std::erase(batch.requests, nullptr);
}

void Dispatcher::FinishDropped(std::span<Dropped> dropped) {
  if (dropped.empty()) return;
  const TimePoint now = clock_.Now();
  for (Dropped& drop : dropped) {
    QueueObserver& observer = *drop.queue->target().observer;
    observer.OnDequeued(drop.request->queued_bytes);
    if (drop.fate.refusal) observer.OnRefused(*drop.fate.refusal);
    // Before the call: its arguments have no order, and one of them moves the request away.
    const RequestTimings timings = {.queue = now - drop.request->queued,
                                    .refusal = drop.fate.refusal};
    FinishRequest(*drop.queue, std::move(drop.request), drop.fate.status, timings, now);
  }
}

}  // namespace octet
