// Runs a batch: wire bytes -> batch -> plan -> replies.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "server/scheduling/dispatcher.h"

namespace octet {

/// What one thread runs batches with: its workspace, and buffers that grow to the largest batch it
/// has met. Not thread-safe: one per worker, and those of CallerRunners.
class BatchRunner {
 public:
  explicit BatchRunner(Clock& clock) : clock_(clock) {}

  /// Runs the batch and finishes each of its requests exactly once. Never throws.
  ///
  ///     requests [n0, ...], [n1, ...]  --convert-->  batch [bucket, ...]
  ///         --Run-->  outputs [bucket, ...]  --slice-->  sinks [n0, ...], [n1, ...]
  ///
  /// Rows between the sum of n and the compiled batch size are zero. A request that fills the batch
  /// alone is read from the wire and answered into its sink without a copy, where type and
  /// alignment allow. Where a run says that data are not what the model takes (INVALID_ARGUMENT: an index beyond
  /// a table), its requests run again in halves, and so on until one of them is alone: whose they are not, are answered
  /// (for one such request of n by about 2 log2(n) further runs). Who is cancelled or late by then does not run again. For
  /// the others the runs before count as waiting.
  void Run(Batch batch);

 private:
  /// Memory that keeps its size between batches; left to those who keep some of it.
  struct Buffer {
    std::shared_ptr<std::byte[]> data;
    size_t capacity = 0;
    std::byte* Grow(size_t bytes);
  };
  struct Durations {
    Nanoseconds compute_input{0};
    Nanoseconds compute_infer{0};
    Nanoseconds compute_output{0};
    bool steady = false;  ///< No element decides how long the run takes.
  };

  void RunTogether(Batch& batch);
  /// `half`: empty, with room for half of the requests, so that nothing is allocated while they are on their way.
  void RunHalves(Batch& batch, std::vector<std::unique_ptr<InferenceRequest>> half);
  void RunAgain(Batch& batch);
  absl::Status Compute(const Batch& batch, int64_t rows, int64_t plan_rows, Durations& durations);
  /// Runs a plan whose outputs have the extents that the data decide. Requires: one request, since a model with such plans
  /// does not batch.
  absl::Status ComputeDynamic(const Batch& batch, const Plan& plan, TimePoint start,
                              Durations& durations);
  void Gather(const Batch& batch, const Plan& plan, int64_t rows);
  /// Points outputs_ at the sink of the batch's only request, or at buffers; true when anything
  /// needs Scatter.
  bool PrepareOutputs(const Batch& batch, const Plan& plan, bool direct);
  absl::Status Scatter(const Batch& batch, const Plan& plan, int64_t plan_rows);
  /// Without times of waiting: whoever runs again has not finished it.
  static BatchRecord RecordOf(absl::StatusCode code, int64_t rows, int64_t plan_rows,
                              const Durations& durations);
  void Finish(Batch& batch, const absl::Status& status, int64_t rows, int64_t plan_rows,
              const Durations& durations);

  Clock& clock_;
  Workspace workspace_;
  std::vector<Buffer> input_buffers_;
  std::vector<Buffer> output_buffers_;
  std::vector<const void*> inputs_;
  std::vector<void*> outputs_;
  std::vector<Nanoseconds> queue_times_;  ///< Of the batch that runs.
};

}  // namespace octet
