#include "engine/train/runner.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/tensor/status.h"

namespace octet::train {
namespace {

void BlendSample(size_t row, std::span<const Tensor> samples, size_t other, std::mt19937_64& random,
                 std::vector<Tensor>& batch) {
  const float t = std::uniform_real_distribution<float>(0, 1)(random);
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto length = static_cast<size_t>(batch[i].elements() / batch[i].shape()[0]);
    float* const x = batch[i].mutable_span<float>().data() + row * length;
    const float* const y = samples[i].span<float>().data() + other * length;
    for (size_t k = 0; k < length; ++k) x[k] = t * x[k] + (1 - t) * y[k];
  }
}

void MoveSample(size_t row, std::mt19937_64& random, std::vector<Tensor>& batch) {
  std::uniform_real_distribution<double> part(-0.125, 0.125);
  const double down = part(random);
  const double right = part(random);
  const bool mirror = random() % 2 == 0;
  for (Tensor& tensor : batch) {
    const Shape& shape = tensor.shape();
    const int64_t height = shape[2];
    const int64_t width = shape[3];
    const int64_t a = std::lround(down * static_cast<double>(height));
    const int64_t b = std::lround(right * static_cast<double>(width));
    const int64_t length = shape.elements(1, 4);
    float* const x = tensor.mutable_span<float>().data() + static_cast<int64_t>(row) * length;
    const std::vector<float> before(x, x + length);
    for (int64_t i = 0; i < length; ++i) {
      const int64_t h = i / width % height;
      const int64_t w = i % width;
      const int64_t from_h = std::clamp<int64_t>(h + a, 0, height - 1);
      const int64_t from_w = std::clamp<int64_t>((mirror ? width - 1 - w : w) + b, 0, width - 1);
      x[i] = before[static_cast<size_t>(i + (from_h - h) * width + from_w - w)];
    }
  }
}

}  // namespace

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

void VarySamples(std::span<const Tensor> samples, std::span<const int64_t> others, size_t first,
                 std::mt19937_64& random, std::vector<Tensor>& batch) {
  const auto rows = static_cast<size_t>(batch[0].shape()[0]);
  const bool planes =
      std::ranges::all_of(batch, [](const Tensor& x) { return x.shape().rank() == 4; });
  for (size_t row = first; row < rows; ++row) {
    if (planes && random() % 2 == 0) {
      MoveSample(row, random, batch);
    } else {
      const auto other = static_cast<size_t>(others[random() % others.size()]);
      BlendSample(row, samples, other, random, batch);
    }
  }
}

}  // namespace octet::train
