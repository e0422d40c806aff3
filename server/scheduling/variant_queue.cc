#include "server/scheduling/variant_queue.h"

#include <algorithm>

#include "engine/tensor/status.h"

namespace octet {
namespace {

bool HasFixedShapes(const ExecutionTarget& target) {
  for (const TensorInfo& input : target.model->signature().inputs) {
    if (!input.rank_known) return false;
    for (int i = target.batches() ? 1 : 0; i < input.shape.rank(); ++i) {
      if (input.shape[i] == kUnknownDim) return false;
    }
  }
  return true;
}

/// Equal extents, the first aside: these can be stacked.
bool CanStack(const InferenceRequest& a, const InferenceRequest& b) {
  for (size_t i = 0; i < a.inputs.size(); ++i) {
    const auto x = a.inputs[i].shape().dims();
    const auto y = b.inputs[i].shape().dims();
    const size_t first = std::min<size_t>(1, x.size());
    if (x.size() != y.size() || !std::ranges::equal(x.subspan(first), y.subspan(first)))
      return false;
  }
  return true;
}

}  // namespace

VariantQueue::VariantQueue(ExecutionTarget target)
    : target_(std::move(target)),
      fixed_shapes_(HasFixedShapes(target_)),
      learns_shapes_(!fixed_shapes_ && !target_.batches()) {}

absl::Status VariantQueue::CheckRoom(size_t bytes) const {
  if (requests_.size() >= target_.max_queue_requests) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "queue is full, at most {} requests wait: {}", target_.max_queue_requests,
                     target_.name);
  }
  if (bytes_ + bytes > target_.max_queue_bytes && !requests_.empty()) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     "queue is full, at most {} bytes wait: {}", target_.max_queue_bytes,
                     target_.name);
  }
  return absl::OkStatus();
}

void VariantQueue::Push(std::unique_ptr<InferenceRequest>& request, uint64_t sequence) {
  ReserveOne(facts_);
  ReserveOne(requests_);
  const QueuedFacts facts = {.sequence = sequence,
                             .queued = request->queued,
                             .deadline = request->deadline,
                             .rows = request->rows,
                             .bytes = request->queued_bytes,
                             .shape_class = ShapeClassOf(*request),
                             .level = LevelOf(*request),
                             .own_time = request->own_time,
                             .cancelled = request->cancelled};
  // Without levels nearly always at the end: later arrivals are due later.
  const auto place = std::upper_bound(facts_.begin(), facts_.end(), facts, RunsBefore);
  requests_.insert(requests_.begin() + (place - facts_.begin()), std::move(request));
  facts_.insert(place, facts);
  bytes_ += facts.bytes;
  rows_ += facts.rows;
  pace_.OnArrival(facts.queued, facts.rows);
}

VariantQueue::Requests VariantQueue::Remove(std::span<const size_t> indices) {
  Requests removed;
  if (indices.empty()) return removed;
  removed.reserve(indices.size());
  size_t kept = indices[0];
  size_t next = 0;
  for (size_t i = indices[0]; i < facts_.size(); ++i) {
    if (next < indices.size() && indices[next] == i) {
      ++next;
      bytes_ -= facts_[i].bytes;
      rows_ -= facts_[i].rows;
      removed.push_back(std::move(requests_[i]));
      continue;
    }
    facts_[kept] = facts_[i];
    requests_[kept++] = std::move(requests_[i]);
  }
  facts_.resize(kept);
  requests_.resize(kept);
  return removed;
}

int VariantQueue::LevelOf(const InferenceRequest& request) const {
  const PriorityLevels& levels = target_.levels;
  const bool is_there =
      request.priority > 0 && request.priority <= static_cast<uint64_t>(levels.count);
  return is_there ? static_cast<int>(request.priority) : levels.default_level;
}

int64_t VariantQueue::RowsAhead(const InferenceRequest& request) const {
  const TimePoint turn =
      QueuedFacts{.queued = request.queued, .deadline = request.deadline, .level = LevelOf(request)}
          .turn();
  int64_t rows = 0;
  for (const QueuedFacts& facts : facts_) {
    if (facts.turn() > turn) break;
    rows += facts.rows;
  }
  return rows;
}

QueueMeasurements VariantQueue::Measure(TimePoint now) const {
  QueueMeasurements measured = {times_.Curve(now, target_.batch.max_batch), pace_.arrival(now),
                                pace_.service(now)};
  measured.curve.fresh &= fixed_shapes_ && target_.steady;
  return measured;
}

uint32_t VariantQueue::ShapeClassOf(const InferenceRequest& request) {
  if (fixed_shapes_) return 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (CanStack(request, *requests_[i])) return facts_[i].shape_class;
  }
  return next_shape_class_++;
}

}  // namespace octet
