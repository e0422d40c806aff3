// Requests whose fate a test can look at.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"

#include "server/scheduling/variant_queue.h"

namespace octet {

/// Counts what it is told. Thread-safety: safe.
class CountingObserver final : public QueueObserver {
 public:
  void OnQueued(size_t bytes) override {
    ++queued;
    waiting_bytes += static_cast<int64_t>(bytes);
  }
  void OnDequeued(size_t bytes) override {
    ++dequeued;
    waiting_bytes -= static_cast<int64_t>(bytes);
  }
  void OnRefused(Refusal reason) override { ++refused[static_cast<size_t>(reason)]; }
  void OnBatch(const BatchRecord& record) override {
    ++batches;
    rows += record.rows;
    plan_rows += record.plan_rows;
    batched_requests += static_cast<int64_t>(record.queue_times.size());
  }
  void OnFinished(absl::StatusCode code, int64_t, const RequestTimings&) override {
    ++finished;
    if (code == absl::StatusCode::kOk) ++succeeded;
  }
  std::atomic<int64_t> queued{0}, dequeued{0}, waiting_bytes{0}, batches{0}, rows{0}, plan_rows{0};
  std::atomic<int64_t> batched_requests{0}, finished{0}, succeeded{0};
  std::array<std::atomic<int64_t>, 4> refused{};  ///< By Refusal.
};

/// One caller: owns the wire bytes, the answer, and what became of the request.
class TestCall final : public OutputSink {
 public:
  /// `values` are the rows of input "x" (extents behind the first: `tail`), as FP32.
  TestCall(std::vector<float> values, Shape tail) : values_(std::move(values)), tail_(tail) {}

  std::unique_ptr<InferenceRequest> Request(TimePoint now, TimePoint deadline = kNever) {
    auto request = std::make_unique<InferenceRequest>();
    Shape shape = {0};
    for (const int64_t extent : tail_) shape.push_back(extent);
    shape[0] = 1;
    shape[0] = static_cast<int64_t>(values_.size()) / shape.elements();
    request->rows = shape[0];
    request->inputs = {{values_.data(), {DType::kF32, shape}}};
    request->received = now;
    request->deadline = deadline;
    request->cancelled = &cancelled;
    request->outputs = this;
    request->done = [this](const absl::Status& s, const RequestTimings& t) {
      ++calls;
      status = s;
      timings = t;
      finished.Notify();
    };
    return request;
  }

  void* Reserve(size_t index, const TensorSpec& spec) override {
    if (index != 0 || skip_outputs) return nullptr;
    answer_shape = spec.shape;
    answer.assign(static_cast<size_t>(spec.shape.elements()), 0);
    return answer.data();
  }

  absl::Status TakeStrings(size_t index, ConstTensorView strings) override {
    if (index != 0 || skip_outputs) return absl::OkStatus();
    answer_shape = strings.shape();
    const auto elements = strings.span<std::string_view>();
    answer_strings.assign(elements.begin(), elements.end());
    return absl::OkStatus();
  }

  std::atomic<bool> cancelled{false};
  bool skip_outputs = false;
  std::atomic<int> calls{0};
  absl::Notification finished;
  std::optional<absl::Status> status;  ///< Of `done`; read after `finished`.
  RequestTimings timings;
  std::vector<float> answer;
  std::vector<std::string> answer_strings;
  Shape answer_shape;

 private:
  std::vector<float> values_;
  Shape tail_;
};

/// A queue on `model`.
inline std::shared_ptr<VariantQueue> MakeQueue(std::shared_ptr<const Model> model,
                                               BatchLimits batch,
                                               std::shared_ptr<QueueObserver> observer,
                                               size_t max_requests = 100,
                                               size_t max_bytes = 1 << 20, bool steady = true) {
  ExecutionTarget target;
  target.name = "net/1/fp32";
  for (const TensorInfo& input : model->signature().inputs) {
    target.recipes.push_back(*InputRecipe::Make(input, nullptr));
  }
  target.model = std::move(model);
  target.batch = batch;
  target.max_queue_requests = max_requests;
  target.max_queue_bytes = max_bytes;
  target.steady = steady;
  target.observer = std::move(observer);
  return std::make_shared<VariantQueue>(std::move(target));
}

}  // namespace octet
