#include "server/repository/variant_observer.h"

#include <chrono>

namespace octet {
namespace {

double Seconds(Nanoseconds time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

void VariantObserver::OnQueued(size_t bytes) {
  metrics_->in_flight.Add(1);
  metrics_->queue_depth.Add(1);
  metrics_->queue_bytes.Add(static_cast<double>(bytes));
}

void VariantObserver::OnDequeued(size_t bytes) {
  metrics_->queue_depth.Add(-1);
  metrics_->queue_bytes.Add(-static_cast<double>(bytes));
}

void VariantObserver::OnRefused(Refusal reason) {
  metrics_->refused.Add(static_cast<size_t>(reason));
}

void VariantObserver::OnBatch(const BatchRecord& record) {
  for (const Nanoseconds time : record.queue_times) metrics_->queue_duration.Observe(Seconds(time));
  metrics_->compute_input_duration.Observe(Seconds(record.compute_input));
  metrics_->compute_duration.Observe(Seconds(record.compute_infer));
  metrics_->compute_output_duration.Observe(Seconds(record.compute_output));
  metrics_->batch_rows.Observe(static_cast<double>(record.rows));
  metrics_->rows.Add(static_cast<uint64_t>(record.rows));
  metrics_->padding_rows.Add(static_cast<uint64_t>(record.plan_rows - record.rows));
  metrics_->executions.Add();
  if (record.smoothed > Nanoseconds::zero()) {
    absl::MutexLock lock(&mutex_);
    if (!retired_) {
      metrics_->batch_time.Set(BatchSizeIndex(record.plan_rows), Seconds(record.smoothed));
    }
  }
  statistics_->OnBatch(record);
}

void VariantObserver::Retire() {
  absl::MutexLock lock(&mutex_);
  retired_ = true;
  for (size_t i = 0; i < kBatchSizes; ++i) metrics_->batch_time.Set(i, 0);
}

void VariantObserver::OnFinished(absl::StatusCode code, int64_t rows,
                                 const RequestTimings& timings) {
  metrics_->in_flight.Add(-1);
  // A refusal takes no time: among these it would make an overloaded variant look fast.
  if (timings.ran) metrics_->request_duration.Observe(Seconds(timings.total));
  if (timings.ran && limit_ != nullptr) limit_->Observe(timings.total);
  metrics_->requests.Add(static_cast<size_t>(code));
  statistics_->OnFinished(code, rows, timings);
}

void ShadowObserver::OnQueued(size_t bytes) {
  metrics_->shadow_queue_depth.Add(1);
  metrics_->shadow_queue_bytes.Add(static_cast<double>(bytes));
}

void ShadowObserver::OnDequeued(size_t bytes) {
  metrics_->shadow_queue_depth.Add(-1);
  metrics_->shadow_queue_bytes.Add(-static_cast<double>(bytes));
}

void ShadowObserver::OnBatch(const BatchRecord& record) {
  metrics_->shadow_compute_duration.Observe(Seconds(record.compute_infer));
}

}  // namespace octet
