#include "engine/quantize/output_noise.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/tensor/status.h"

namespace octet {
namespace {

class Noise : public Collector {
 public:
  explicit Noise(const std::vector<float>& exact) : exact_(exact) {}

  absl::Status Observe(ConstTensorView batch) override {
    const std::span<const float> got = batch.span<float>();
    const size_t count = std::min(got.size(), exact_.size() - seen_);
    for (size_t i = 0; i < count; ++i) {
      const double exact = exact_[seen_ + i];
      if (!std::isfinite(exact)) continue;  // Nothing is near it, and rounding has not made it.
      noise_ += (got[i] - exact) * (got[i] - exact);
      signal_ += exact * exact;
    }
    seen_ += count;
    return absl::OkStatus();
  }

  double ratio() const { return signal_ > 0 ? noise_ / signal_ : noise_; }

 private:
  const std::vector<float>& exact_;
  size_t seen_ = 0;
  double noise_ = 0;
  double signal_ = 0;
};

}  // namespace

double SqnrDbOf(double noise_over_signal) { return -10 * std::log10(noise_over_signal); }

KeptOutputs::KeptOutputs(const Graph& graph) {
  for (size_t slot = 0; slot < graph.outputs.size(); ++slot) {
    const ValueId id = graph.outputs[slot];
    if (graph.value(id).dtype != DType::kF32 || graph.value(id).is_constant()) continue;
    kept_.emplace_back().slot = slot;
    kept_.back().value = id;
  }
}

std::vector<Observation> KeptOutputs::Observations() {
  std::vector<Observation> observations;
  for (Kept& kept : kept_) observations.push_back({kept.value, &kept});
  return observations;
}

absl::Status KeptOutputs::Kept::Observe(ConstTensorView batch) {
  const std::span<const float> seen = batch.span<float>();
  const auto count =
      static_cast<std::ptrdiff_t>(std::min(seen.size(), kMaxElements - elements.size()));
  elements.insert(elements.end(), seen.begin(), seen.begin() + count);
  return absl::OkStatus();
}

absl::StatusOr<double> KeptOutputs::NoiseOf(const Graph& int8, const CalibrationData& set,
                                            const CalibrationRun& run,
                                            std::span<const Observation> more,
                                            RunFigures* figures) const {
  std::deque<Noise> noises;
  std::vector<Observation> observations(more.begin(), more.end());
  for (const Kept& kept : kept_)
    observations.push_back({int8.outputs[kept.slot], &noises.emplace_back(kept.elements)});
  OCTET_RETURN_IF_ERROR(Calibrate(int8, observations, set, run, Precision::kInt8, figures));
  double sum = 0;
  for (const Noise& noise : noises) sum += noise.ratio();
  if (std::isnan(sum)) return std::numeric_limits<double>::infinity();
  return sum / static_cast<double>(std::max<size_t>(noises.size(), 1));
}

}  // namespace octet
