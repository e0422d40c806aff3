#include "engine/train/runner.h"

#include <algorithm>

#include "engine/tensor/status.h"

namespace octet::train {

absl::StatusOr<Runner> Runner::Make(const Graph& graph, Precision precision,
                                    const CalibrationRun& run, const ModelSamples& samples,
                                    int64_t batch) {
  Runner runner;
  LoadOptions options;
  options.precision = precision;
  options.threads = run.threads;
  options.disabled_passes = run.disabled_passes;
  OCTET_ASSIGN_OR_RETURN(runner.model_, Model::FromGraph(graph, options));
  std::vector<Shape> shapes;
  for (size_t i = 0; i < samples.inputs(); ++i) {
    const TensorSpec spec = samples.Spec(i, batch);
    shapes.push_back(spec.shape);
    runner.inputs_.emplace_back(spec.dtype, spec.shape);
  }
  OCTET_ASSIGN_OR_RETURN(runner.plan_, runner.model_->PlanFor(shapes));
  if (!runner.plan_->has_static_outputs() || runner.plan_->outputs().size() != 1 ||
      runner.plan_->outputs()[0].dtype != DType::kF32) {
    return Unimplemented("training knows models with one output of FP32 and a shape of its own");
  }
  const TensorSpec& spec = runner.plan_->outputs()[0];
  if (spec.shape.rank() == 0 || spec.shape[0] != batch)
    return Unimplemented(
        "training needs an output with one row per sample, for {} samples it is {}", batch,
        spec.shape.ToString());
  runner.output_ = Tensor(spec.dtype, spec.shape);
  return runner;
}

absl::Status Runner::Run() {
  std::vector<const void*> in;
  for (const Tensor& input : inputs_) in.push_back(input.data());
  void* out = output_.mutable_data();
  return plan_->Run(workspace_, in, {&out, 1});
}

absl::StatusOr<std::vector<float>> Runner::RunAll(int64_t rows, const FillBatch& fill) {
  std::vector<float> outputs;
  const int64_t batch = output_.shape()[0];
  const int64_t row = output_.elements() / batch;
  for (int64_t first = 0; first < rows; first += batch) {
    const int64_t count = std::min(batch, rows - first);
    OCTET_RETURN_IF_ERROR(fill(first, count, inputs_));
    OCTET_RETURN_IF_ERROR(Run());
    const auto own = output_.span<float>().first(static_cast<size_t>(count * row));
    outputs.insert(outputs.end(), own.begin(), own.end());
  }
  return outputs;
}

}  // namespace octet::train
