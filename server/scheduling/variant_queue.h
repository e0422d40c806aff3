// The requests that wait for one variant of a model, and what running them needs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "engine/engine.h"
#include "server/scheduling/batch_policy.h"
#include "server/scheduling/input_recipe.h"
#include "server/scheduling/queue_observer.h"
#include "server/scheduling/request.h"
#include "server/scheduling/shape_times.h"

namespace octet {

/// The levels of priority that requests of a variant may ask for: 1 .. count, the first one goes first.
struct PriorityLevels {
  int count = 0;          ///< 0 = all requests are of one level.
  int default_level = 1;  ///< Of those that ask for none, or for one that is not there.
};

/// What a worker needs to run requests of a variant. Immutable.
struct ExecutionTarget {
  std::string name;  ///< "resnet/1/int8", for messages.
  std::shared_ptr<const Model> model;
  bool alone = false;                ///< One request at a time, though the model batches.
  std::vector<InputRecipe> recipes;  ///< One per input of the signature.
  BatchLimits batch;                 ///< max_batch is 1 when the model does not batch.
  size_t max_queue_requests = 0;
  size_t max_queue_bytes = 0;
  PriorityLevels levels;
  /// Nobody waits for the answers: it runs when no other queue holds anything, as the only batch of
  /// its kind at that moment, and what waits in it ends with the first Close.
  bool background = false;
  /// A run takes as long whatever the data: no loops, no extents that depend on them.
  bool steady = false;
  std::shared_ptr<QueueObserver> observer;

  /// Whether requests are stacked along axis 0. Requires: model.
  bool batches() const { return !alone && model->signature().batches; }
};

/// Makes room for one more, so that the next insertion cannot throw.
template <typename T>
void ReserveOne(std::vector<T>& items) {
  if (items.size() == items.capacity()) items.reserve(std::max<size_t>(8, 2 * items.size()));
}

/// A bounded queue in order of urgency. Shared by the requests' threads through Dispatcher::Submit;
/// its contents belong to the Dispatcher's lock.
class VariantQueue {
 public:
  /// Requires: target.model, one recipe per input, an observer.
  explicit VariantQueue(ExecutionTarget target);

  const ExecutionTarget& target() const { return target_; }
  /// How long its batches take.
  BatchTimes& times() { return times_; }
  /// `request` has run by itself in a time that only its shapes decide. Nothing is learned of it where the curve says as much.
  void LearnTime(const InferenceRequest& request, Nanoseconds time, TimePoint now) {
    if (learns_shapes_) shape_times_.Observe(request.inputs, time, now);
  }

 private:
  friend class Dispatcher;
  using Requests = std::vector<std::unique_ptr<InferenceRequest>>;

  /// RESOURCE_EXHAUSTED naming the bound when one more does not fit.
  absl::Status CheckRoom(size_t bytes) const;
  /// Requires: CheckRoom, queued_bytes. Takes the request in at its place, or throws std::bad_alloc and changes nothing.
  void Push(std::unique_ptr<InferenceRequest>& request, uint64_t sequence);
  /// Takes the requests at `indices` (ascending) out, in that order.
  Requests Remove(std::span<const size_t> indices);
  /// The class of the request's shapes: that of an equal one that waits, else a new one.
  uint32_t ShapeClassOf(const InferenceRequest& request);

  /// Of what it asks for: the default where there is no such level, as other servers of the protocol do.
  int LevelOf(const InferenceRequest& request) const;
  /// Rows that run before a request which comes now.
  int64_t RowsAhead(const InferenceRequest& request) const;
  /// With open extents, or where the data decide, its curve is never fresh: the time of one shape or of one number of loops is
  /// not that of another, so no deadline is held against it. That of a shape is held against OwnTime alone: nothing
  /// is known of the shapes that wait ahead of it.
  QueueMeasurements Measure(TimePoint now) const;
  /// QueuedFacts::own_time of a request that has a deadline.
  Nanoseconds OwnTime(const InferenceRequest& request, TimePoint now) const {
    const bool asked = learns_shapes_ && request.deadline != kNever;
    return asked ? shape_times_.Expected(request.inputs, now) : Nanoseconds::zero();
  }

  std::span<const QueuedFacts> facts() const { return facts_; }
  bool empty() const { return facts_.empty(); }

  const ExecutionTarget target_;
  bool fixed_shapes_ = true;    ///< All extents but the first are known: one shape class.
  bool learns_shapes_ = false;  ///< Some are open, and each request runs by itself.
  BatchTimes times_;            ///< Of every shape class together.
  ShapeTimes shape_times_;      ///< Where it learns_shapes_.

  // Parallel, ordered by RunsBefore. Protected by the Dispatcher's lock.
  std::vector<QueuedFacts> facts_;
  Requests requests_;
  size_t bytes_ = 0;
  int64_t rows_ = 0;
  QueuePace pace_;
  uint32_t next_shape_class_ = 1;
  TimePoint next_sweep_;  ///< When it may be searched for dead requests again.
};

}  // namespace octet
