// A model run the way it is served, on samples picked by index.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"

namespace octet::train {

/// Runs batches of a fixed size through the only output of a graph. Not thread-safe.
class Runner {
 public:
  /// `samples`: one array per graph input, in its order; batches have their shapes but for axis 0. Errors: as Model::FromGraph
  /// and Model::PlanFor.
  static absl::StatusOr<Runner> Make(const Graph& graph, Precision precision,
                                     const CalibrationRun& run, std::span<const Tensor> samples,
                                     int64_t batch);

  /// The inputs of the next batch, row-major.
  std::vector<Tensor>& inputs() { return inputs_; }
  /// Of the last batch, row-major.
  const Tensor& output() const { return output_; }
  absl::Status Run();
  /// The outputs of samples `indices`, in order.
  absl::StatusOr<std::vector<float>> RunAll(std::span<const Tensor> samples,
                                            std::span<const int64_t> indices);

 private:
  Runner() = default;

  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Plan> plan_;
  std::vector<Tensor> inputs_;
  Tensor output_;
  Workspace workspace_;
};

/// Copies samples to the rows of a batch; rows behind the last index begin again. Requires: indices is not empty.
void PickSamples(std::span<const Tensor> samples, std::span<const int64_t> indices,
                 std::vector<Tensor>& batch);

}  // namespace octet::train
