// A model, its workspace and buffers for one thread: run rows, read outputs.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"

namespace octet::cli {

/// Buffers for one plan at a time; a new batch size takes another plan. Not thread-safe.
class Session {
 public:
  explicit Session(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

  const Model& model() const { return *model_; }
  const Plan& plan() const { return *plan_; }
  /// Makes the buffers for these input shapes. UNIMPLEMENTED for a model that takes or gives what is no tensor.
  absl::Status Prepare(std::span<const Shape> input_shapes);
  /// Room for an input's elements. What strings that are written there point at stays until the outputs have been read.
  TensorView input(size_t i) { return inputs_[i].mutable_view(); }
  /// Copies an input's elements, strings with their characters. Requires: type and shape of the plan's input.
  void SetInput(size_t i, ConstTensorView elements);
  /// The inputs' types and shapes.
  std::span<const TensorSpec> inputs() const { return plan_->inputs(); }
  /// Of a model whose shapes follow from its data: what the last run answered.
  ConstTensorView output(size_t i) const { return outputs_[i].view(); }
  size_t output_count() const { return outputs_.size(); }
  /// Runs on what the inputs hold.
  absl::Status Run();
  Workspace& workspace() { return workspace_; }

 private:
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Plan> plan_;
  std::vector<Tensor> inputs_;
  std::vector<Tensor> outputs_;
  std::vector<const void*> input_pointers_;
  std::vector<void*> output_pointers_;
  std::vector<Datum> data_;  // The inputs of a plan without static outputs.
  Workspace workspace_;
};

}  // namespace octet::cli
