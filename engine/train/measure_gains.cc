#include "engine/train/measure_gains.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "engine/quantize/quantizer.h"
#include "engine/tensor/status.h"
#include "engine/train/model_samples.h"
#include "engine/train/network.h"

namespace octet::train {
namespace {

constexpr int64_t kMostSamples = 512;
constexpr int64_t kBatch = 16;

QuantizeRecipe Plainly(const QuantizeRecipe& recipe) {
  QuantizeRecipe plain{.activation = recipe.activation, .per_channel = recipe.per_channel};
  plain.fewer_roundings = recipe.fewer_roundings;
  plain.method = RangeMethod::kMinMax;
  plain.equalize = plain.compensate = plain.correct_bias = plain.byte_constants = false;
  plain.floor.kind = AccuracyFloor::Kind::kAllInt8;
  return plain;
}

// Adds the squares of row-major elements to what their index along an axis has, where the value is not 0, as behind a Relu: what is
// on every grid is not rounded.
void AddSquares(std::span<const float> elements, std::span<const float> values, const Shape& shape,
                int axis, std::vector<double>& sums) {
  const auto inner = static_cast<size_t>(shape.elements(axis + 1, shape.rank()));
  const auto extent = static_cast<size_t>(shape[axis]);
  sums.resize(extent);
  for (size_t i = 0; i < elements.size(); ++i) {
    if (values[i] != 0) sums[i / inner % extent] += static_cast<double>(elements[i]) * elements[i];
  }
}

class GainMeter {
 public:
  explicit GainMeter(Network& network) : network_(network), layers_(network.learned_layers()) {}

  // Requires: inputs filled.
  absl::Status Add(bool shares, std::mt19937_64& random) {
    OCTET_RETURN_IF_ERROR(network_.Forward());
    Activation& output = network_.output();
    const std::span<float> u(output.gradient(), static_cast<size_t>(output.size()));
    std::normal_distribution<float> normal;
    for (float& x : u) x = normal(random);
    const auto classes = static_cast<size_t>(output.shape()[output.shape().rank() - 1]);
    for (size_t row = 0; shares && row < u.size(); row += classes) {
      const auto own = u.subspan(row, classes);
      const float mean =
          std::accumulate(own.begin(), own.end(), 0.0F) / static_cast<float>(classes);
      for (float& x : own) x -= mean;
    }
    OCTET_RETURN_IF_ERROR(network_.Backward());
    for (const Network::Pair& pair : network_.pairs()) Add(pair);
    for (const Network::LearnedLayer& layer : layers_) {
      const float* const gradient = layer.weights->gradient();
      std::vector<double>& of = gains_.weights[layer.result];
      of.resize(static_cast<size_t>(layer.weights->shape().elements()));
      for (size_t k = 0; k < of.size(); ++k)
        of[k] += static_cast<double>(gradient[k]) * gradient[k];
    }
    samples_ += output.shape()[0];
    return absl::OkStatus();
  }

  OutputGains Means() && {
    const auto mean = [this](std::vector<double>& sums) {
      for (double& x : sums) x /= static_cast<double>(samples_);
    };
    for (auto& [name, of] : gains_.values) {
      mean(of.axis_1);
      mean(of.last_axis);
    }
    for (auto& [name, of] : gains_.weights) mean(of);
    return std::move(gains_);
  }

 private:
  void Add(const Network::Pair& pair) {
    Activation& y = *pair.rounded;
    if (!y.has_gradient() || y.shape().rank() < 2) return;
    row_major_.resize(static_cast<size_t>(y.size()));
    values_.resize(row_major_.size());
    CopyToRowMajor(y.gradient(), y.shape(), row_major_.data());
    CopyToRowMajor(y.values(), y.shape(), values_.data());
    OutputGains::OfValue& of = gains_.values[pair.value];
    AddSquares(row_major_, values_, y.shape(), 1, of.axis_1);
    AddSquares(row_major_, values_, y.shape(), y.shape().rank() - 1, of.last_axis);
  }

  Network& network_;
  std::vector<Network::LearnedLayer> layers_;
  OutputGains gains_;
  std::vector<float> row_major_;
  std::vector<float> values_;
  int64_t samples_ = 0;
};

}  // namespace

absl::StatusOr<OutputGains> MeasureGains(const Graph& fp32, const QuantizeRecipe& recipe,
                                         const CalibrationData& set, const CalibrationRun& run,
                                         uint64_t seed) {
  OCTET_ASSIGN_OR_RETURN(const QuantizeResult plain, Quantize(fp32, Plainly(recipe), set, run));
  Graph cut = plain.graph;
  const bool shares = CutSoftmax(cut);
  const std::optional<Shape>& shape = plain.graph.value(plain.graph.inputs[0]).shape;
  const int64_t own = shape && shape->rank() > 0 ? (*shape)[0] : kUnknownDim;
  const int64_t batch = own != kUnknownDim ? own : std::min(kBatch, set.count());
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Network> network,
                         Network::Build(plain.graph, batch, /*learn_ranges=*/false));
  const ModelSamples samples(set, plain.graph);
  std::vector<int64_t> order(static_cast<size_t>(samples.count()));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(seed);
  std::ranges::shuffle(order, random);
  order.resize(static_cast<size_t>(std::min(kMostSamples, std::ssize(order))));
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < samples.inputs(); ++i) {
    const TensorSpec spec = samples.Spec(i, batch);
    inputs.emplace_back(spec.dtype, spec.shape);
  }
  GainMeter meter(*network);
  for (int64_t first = 0; first < std::ssize(order); first += batch) {
    if (run.progress && !run.progress(first, std::ssize(order)))
      return absl::CancelledError("training was stopped");
    const int64_t count = std::min(batch, std::ssize(order) - first);
    OCTET_RETURN_IF_ERROR(PickSamples(
        samples, std::span(order).subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
        inputs));
    for (size_t i = 0; i < inputs.size(); ++i) {
      Activation& to = *network->inputs()[i];
      CopyToPhysical(inputs[i].span<float>().data(), to.shape(), to.values());
    }
    OCTET_RETURN_IF_ERROR(meter.Add(shares, random));
  }
  return std::move(meter).Means();
}

}  // namespace octet::train
