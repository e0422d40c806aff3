// A model run the way it is served, batch by batch.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/engine.h"
#include "engine/train/model_samples.h"

namespace octet::train {

/// Runs batches of a fixed size through the only output of a graph. Not thread-safe.
class Runner {
 public:
  /// `samples`: of the graph's inputs, in its order; batches have their shapes but for axis 0. Errors: as Model::FromGraph
  /// and Model::PlanFor.
  static absl::StatusOr<Runner> Make(const Graph& graph, Precision precision,
                                     const CalibrationRun& run, const ModelSamples& samples,
                                     int64_t batch);

  /// The inputs of the next batch, row-major.
  std::vector<Tensor>& inputs() { return inputs_; }
  /// Of the last batch, row-major.
  const Tensor& output() const { return output_; }
  absl::Status Run();
  /// Fills a batch with `count` rows of what is run, those from `first` on; all behind them with any.
  using FillBatch =
      std::function<absl::Status(int64_t first, int64_t count, std::vector<Tensor>& batch)>;
  /// The outputs of so many rows, in order. Errors: those of `fill` and of the runs.
  absl::StatusOr<std::vector<float>> RunAll(int64_t rows, const FillBatch& fill);

 private:
  Runner() = default;

  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Plan> plan_;
  std::vector<Tensor> inputs_;
  Tensor output_;
  Workspace workspace_;
};

}  // namespace octet::train
