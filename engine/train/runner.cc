#include "engine/train/runner.h"

#include <algorithm>
#include <cstring>

#include "engine/tensor/status.h"

namespace octet::train {

absl::StatusOr<Runner> Runner::Make(const Graph& graph, Precision precision,
                                    const CalibrationRun& run, std::span<const Tensor> samples,
                                    int64_t batch) {
  Runner runner;
  LoadOptions options;
  options.precision = precision;
  options.threads = run.threads;
  options.disabled_passes = run.disabled_passes;
  OCTET_ASSIGN_OR_RETURN(runner.model_, Model::FromGraph(graph, options));
  std::vector<Shape> shapes;
  for (const Tensor& tensor : samples) {
    shapes.push_back(tensor.shape());
    shapes.back()[0] = batch;
    runner.inputs_.emplace_back(tensor.dtype(), shapes.back());
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

absl::StatusOr<std::vector<float>> Runner::RunAll(std::span<const Tensor> samples,
                                                  std::span<const int64_t> indices) {
  std::vector<float> outputs;
  const auto batch = static_cast<size_t>(output_.shape()[0]);
  const size_t row = static_cast<size_t>(output_.elements()) / batch;
  for (size_t first = 0; first < indices.size(); first += batch) {
    const auto picked = indices.subspan(first, std::min(batch, indices.size() - first));
    PickSamples(samples, picked, inputs_);
    OCTET_RETURN_IF_ERROR(Run());
    const auto rows = output_.span<float>().first(picked.size() * row);
    outputs.insert(outputs.end(), rows.begin(), rows.end());
  }
  return outputs;
}

void PickSamples(std::span<const Tensor> samples, std::span<const int64_t> indices,
                 std::vector<Tensor>& batch) {
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto rows = static_cast<size_t>(batch[i].shape()[0]);
    const size_t row_bytes = batch[i].bytes() / rows;
    const auto* from = static_cast<const std::byte*>(samples[i].data());
    auto* to = static_cast<std::byte*>(batch[i].mutable_data());
    for (size_t row = 0; row < rows; ++row) {
      const int64_t index = indices[row % indices.size()];
      std::memcpy(to + row * row_bytes, from + static_cast<size_t>(index) * row_bytes, row_bytes);
    }
  }
}

}  // namespace octet::train
