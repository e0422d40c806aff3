#include "server/repository/version_statistics.h"

#include <chrono>

namespace octet {

void VersionStatistics::OnBatch(const BatchRecord& record) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  absl::MutexLock lock(&mutex_);
  ++counts_.execution_count;
  if (record.code != absl::StatusCode::kOk) return;
  counts_.last_inference_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  StatisticsSnapshot::Batch& batch = counts_.batches[record.rows];
  batch.compute_input.Add(record.compute_input);
  batch.compute_infer.Add(record.compute_infer);
  batch.compute_output.Add(record.compute_output);
}

void VersionStatistics::OnFinished(absl::StatusCode code, int64_t rows,
                                   const RequestTimings& timings) {
  absl::MutexLock lock(&mutex_);
  if (code != absl::StatusCode::kOk) {
    counts_.fail.Add(timings.total);
    return;
  }
  counts_.inference_count += static_cast<uint64_t>(rows);
  counts_.success.Add(timings.total);
  counts_.queue.Add(timings.queue);
  counts_.compute_input.Add(timings.compute_input);
  counts_.compute_infer.Add(timings.compute_infer);
  counts_.compute_output.Add(timings.compute_output);
}

StatisticsSnapshot VersionStatistics::Read() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

}  // namespace octet
