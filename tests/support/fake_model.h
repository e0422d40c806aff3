// A model without an engine: its outputs are simple functions of its inputs, and it remembers what
// it was asked.
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "engine/engine.h"

namespace octet {

/// Every output i is input i, element by element, times `factor`. FP32 only.
class FakeModel final : public Model {
 public:
  /// One input "x" and one output "y" of `shape`; it batches when extent 0 is unknown.
  explicit FakeModel(Shape shape = {kUnknownDim, 4}, float factor = 2) : factor_(factor) {
    signature_.inputs = {{"x", DType::kF32, shape}};
    signature_.outputs = {{"y", DType::kF32, shape}};
    signature_.batches = shape.rank() > 0 && shape[0] == kUnknownDim;
  }

  Signature& mutable_signature() { return signature_; }
  Precision precision_value = Precision::kFp32;
  std::function<absl::Status()> before_run;  ///< Called in each run; an error is the run's.
  /// The output is a list of the elements above 0 alone: its extent follows from the data.
  bool selects = false;
  absl::Status plan_error;            ///< What PlanFor answers unless OK.
  std::function<void()> before_plan;  ///< Called in each PlanFor.

  /// The shapes of input 0 in each run, in order.
  std::vector<Shape> runs() const {
    absl::MutexLock lock(&mutex_);
    return runs_;
  }
  /// Input 0 of the last run, as the plan saw it.
  std::vector<float> last_input() const {
    absl::MutexLock lock(&mutex_);
    return last_input_;
  }
  const void* last_input_pointer() const {
    absl::MutexLock lock(&mutex_);
    return last_input_pointer_;
  }

  const Signature& signature() const override { return signature_; }
  Precision precision() const override { return precision_value; }
  const std::map<std::string, std::string>& metadata() const override { return metadata_; }
  size_t resident_weight_bytes() const override { return 1000; }
  const std::vector<PassTrace>& pass_trace() const override { return passes_; }
  std::string DumpGraph() const override { return "fake"; }
  absl::StatusOr<std::shared_ptr<const Plan>> PlanFor(
      std::span<const Shape> shapes) const override {
    if (!plan_error.ok()) return plan_error;
    if (before_plan) before_plan();
    return std::make_shared<FakePlan>(*this, shapes);
  }

 private:
  class FakePlan final : public Plan {
   public:
    FakePlan(const FakeModel& model, std::span<const Shape> shapes) : model_(model) {
      for (const Shape& shape : shapes) specs_.push_back({DType::kF32, shape});
    }
    std::span<const TensorSpec> inputs() const override { return specs_; }
    std::span<const TensorSpec> outputs() const override {
      return model_.selects ? std::span<const TensorSpec>(selected_) : specs_;
    }
    bool has_static_outputs() const override { return !model_.selects; }
    absl::StatusOr<std::vector<Datum>> RunDynamic(Workspace& workspace,
                                                  std::span<const Datum> inputs,
                                                  const RunLimits& limits) const override {
      std::vector<float> all(static_cast<size_t>(specs_[0].shape.elements()));
      const void* from = inputs[0].tensor.data();
      void* to = all.data();
      if (absl::Status status = Run(workspace, {&from, 1}, {&to, 1}); !status.ok()) return status;
      if (absl::Status status = limits.Check(); !status.ok()) return status;
      std::erase_if(all, [](float x) { return x <= 0; });
      return std::vector<Datum>{
          Datum::Of(Tensor::From<float>({static_cast<int64_t>(all.size())}, all))};
    }
    const Certificate& certificate() const override { return certificate_; }
    PlanMemory memory() const override { return {}; }
    std::chrono::nanoseconds compile_time() const override { return {}; }
    absl::StatusOr<std::vector<LayerTime>> LayerTimes(Workspace&, int) const override {
      return std::vector<LayerTime>();
    }
    const std::vector<PassTrace>& pass_trace() const override { return passes_; }
    absl::Status Run(Workspace&, std::span<const void* const> inputs,
                     std::span<void* const> outputs) const override {
      if (model_.before_run) {
        if (absl::Status status = model_.before_run(); !status.ok()) return status;
      }
      for (size_t i = 0; i < specs_.size(); ++i) {
        const auto count = static_cast<size_t>(specs_[i].shape.elements());
        const auto* src = static_cast<const float*>(inputs[i]);
        auto* dst = static_cast<float*>(outputs[i]);
        for (size_t e = 0; e < count; ++e) dst[e] = model_.factor_ * src[e];
      }
      model_.Remember(specs_[0].shape, static_cast<const float*>(inputs[0]));
      return absl::OkStatus();
    }

   private:
    const FakeModel& model_;
    std::vector<TensorSpec> specs_;
    std::vector<TensorSpec> selected_ = {{DType::kF32, {kUnknownDim}}};
    Certificate certificate_;
    std::vector<PassTrace> passes_;
  };

  void Remember(const Shape& shape, const float* input) const {
    absl::MutexLock lock(&mutex_);
    runs_.push_back(shape);
    last_input_.assign(input, input + shape.elements());
    last_input_pointer_ = input;
  }

  float factor_;
  Signature signature_;
  std::map<std::string, std::string> metadata_;
  std::vector<PassTrace> passes_;
  mutable absl::Mutex mutex_;
  mutable std::vector<Shape> runs_ ABSL_GUARDED_BY(mutex_);
  mutable std::vector<float> last_input_ ABSL_GUARDED_BY(mutex_);
  mutable const void* last_input_pointer_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace octet
