// Takes requests in and hands batches out. No thread of its own: callers bring them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "server/scheduling/variant_queue.h"

namespace octet {

class Dispatcher;

/// The right to run background work, which one batch has at a time, so that the other workers stay
/// free for what somebody waits for. Given back when destroyed; the dispatcher must outlive it.
struct EndBackground {
  void operator()(Dispatcher* dispatcher) const;
};
using BackgroundPass = std::unique_ptr<Dispatcher, EndBackground>;

/// Requests of one variant that run together.
struct Batch {
  std::shared_ptr<VariantQueue> queue;
  std::vector<std::unique_ptr<InferenceRequest>> requests;
  TimePoint taken;
  BackgroundPass background = nullptr;  ///< Of a background queue.
};

/// Tells the observer and calls the request's `done`: the only way in which a request ends.
void FinishRequest(const VariantQueue& queue, std::unique_ptr<InferenceRequest> request,
                   const absl::Status& status, RequestTimings timings, TimePoint now);

/// All queues that hold requests, and the order in which they are served. Queues need no
/// registration: one is known while requests wait in it, and is let go with the last of them.
///
///     open --Close()--> closing (hands out what waits, at once) --empty--> done
///
/// Background queues come last, as ExecutionTarget::background says, and are emptied by Flush and Close.
///
/// Thread-safety: safe. No lock is held while `done` or an observer is called.
class Dispatcher {
 public:
  /// `workers`: that call Take at once.
  explicit Dispatcher(Clock& clock, int workers = 1) : clock_(clock), workers_(workers) {}
  /// Requires: nobody is inside. Finishes what still waits with UNAVAILABLE.
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  /// Queues the request. A refused one is finished before this returns: RESOURCE_EXHAUSTED when the
  /// queue is full or no memory is left, DEADLINE_EXCEEDED when it is too late already, either as DecideAdmission says, UNAVAILABLE after
  /// Close.
  void Submit(std::shared_ptr<VariantQueue> queue, std::unique_ptr<InferenceRequest> request);

  /// Submit, but hands the request back, as a batch that the caller runs, when nobody waits in its queue, no batch is to be
  /// waited for, its runs take as long whatever the data, and those of its size have taken at most `most`.
  std::optional<Batch> SubmitOrTake(std::shared_ptr<VariantQueue> queue,
                                    std::unique_ptr<InferenceRequest> request, Nanoseconds most);

  /// Waits for the next batch; nullopt when closed and empty. The most urgent queue is served
  /// first.
  std::optional<Batch> Take();
  /// The same without waiting: nullopt also when nothing can run now.
  std::optional<Batch> TryTake();

  /// Lets no batch wait to become full from now on, and has no background work any more: finishes what waits of it, and what
  /// comes, with UNAVAILABLE. What others send is still taken.
  void Flush();
  /// Flush, and refuses what comes from now on.
  void Close();
  /// Close, and finishes everything that waits with UNAVAILABLE.
  void Abandon();

  /// Finishes those of a batch that nobody waits for any more, cancelled or behind their deadline, as when they wait.
  static void DropDead(Batch& batch, TimePoint now);

  /// Requests that wait, in all queues together.
  size_t queued() const;

 private:
  friend struct EndBackground;

  /// Why a request does not run.
  struct Fate {
    absl::Status status;
    std::optional<Refusal> refusal = std::nullopt;
  };
  static Fate Expired(const VariantQueue& queue);
  static Fate Hopeless(const VariantQueue& queue, Nanoseconds expected, Nanoseconds remaining);
  static Fate Overloaded(const VariantQueue& queue, Nanoseconds expected);
  static Fate Full(const VariantQueue& queue, const absl::Status& why, TimePoint now);
  static Fate Cancelled(const VariantQueue& queue);
  static Fate Stopping();
  /// A request on its way out without having run, and why.
  struct Dropped {
    std::shared_ptr<VariantQueue> queue;
    std::unique_ptr<InferenceRequest> request;
    Fate fate;
  };

  /// Whether the caller runs the request.
  bool TakesAtOnce(VariantQueue& queue, const InferenceRequest& request, Nanoseconds most,
                   TimePoint now);
  /// Queues the request, which is taken then, or says why not. Throws std::bad_alloc with the queue as it was.
  Fate Accept(const std::shared_ptr<VariantQueue>& queue,
              std::unique_ptr<InferenceRequest>& request, TimePoint now,
              std::vector<Dropped>& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Why the request cannot be queued, or OK.
  Fate Admit(const std::shared_ptr<VariantQueue>& queue, const InferenceRequest& request,
             TimePoint now, std::vector<Dropped>& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<Batch> TakeLocked(TimePoint now, std::vector<Dropped>& dropped, TimePoint& wake)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Tries one queue; drops what is dead in it.
  std::optional<Batch> TakeFrom(const std::shared_ptr<VariantQueue>& queue, TimePoint now,
                                std::vector<Dropped>& dropped, TimePoint& wake)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Takes out what was decided; drops what is not to run.
  std::vector<std::unique_ptr<InferenceRequest>> TakeOut(const std::shared_ptr<VariantQueue>& queue,
                                                         const BatchDecision& decision,
                                                         const QueueMeasurements& measured,
                                                         TimePoint now,
                                                         std::vector<Dropped>& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// The queues that may be served now, most urgent first.
  std::vector<std::shared_ptr<VariantQueue>> Order() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Drops the dead that nobody may look at for long while others are busy: those of background queues, and those of later
  /// levels of priority.
  void SweepPassedOver(TimePoint now, std::vector<Dropped>& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Drops everything that waits in the queue.
  void DropAll(const std::shared_ptr<VariantQueue>& queue, std::vector<Dropped>& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Drops the dead requests of a queue, which also makes room in a full one; done at most once a millisecond.
  void Sweep(const std::shared_ptr<VariantQueue>& queue, TimePoint now,
             std::vector<Dropped>& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FlushLocked(std::vector<Dropped>& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const std::shared_ptr<VariantQueue>& queue) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  /// Finishes what was dropped. Requires: no lock.
  void FinishDropped(std::span<Dropped> dropped);

  Clock& clock_;
  const int workers_;
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  std::vector<std::shared_ptr<VariantQueue>> active_
      ABSL_GUARDED_BY(mutex_);  ///< Those that are not empty.
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  bool flushing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool background_runs_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace octet
