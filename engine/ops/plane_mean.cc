#include "engine/ops/plane_mean.h"

#include <algorithm>
#include <array>

#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Channels that are summed at once: they stay in the cache.
constexpr int64_t kMeanChannels = 512;
/// Channels that a thread takes at least: a cache line.
constexpr int64_t kMeanGroup = 16;
constexpr int64_t kMeanGrain = int64_t{1} << 14;

// Four rows at a time: a quarter of the loads and stores of sums, and errors that grow with a quarter of the rows.
OCTET_CPU_CLONES void AddRows(const float* x, int64_t rows, int64_t pitch, float* sum, int64_t n) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) {
    const float* a = x + row * pitch;
    const float* b = a + pitch;
    const float* c = b + pitch;
    const float* d = c + pitch;
    for (int64_t i = 0; i < n; ++i) sum[i] += (a[i] + b[i]) + (c[i] + d[i]);
  }
  for (; row < rows; ++row) {
    const float* a = x + row * pitch;
    for (int64_t i = 0; i < n; ++i) sum[i] += a[i];
  }
}

class PlaneMeanStep final : public Step {
 public:
  explicit PlaneMeanStep(const PoolGeometry& g)
      : batch_(g.batch), plane_(g.in_plane()), channels_(g.channels) {}

  absl::Status Run(const StepArgs& args) const override {
    const auto* x = static_cast<const float*>(args.inputs[0]);
    auto* y = static_cast<float*>(args.outputs[0]);
    const int64_t groups = (channels_ + kMeanGroup - 1) / kMeanGroup;
    ParallelFor(batch_ * groups, 1 + kMeanGrain / (plane_ * kMeanGroup),
                [&](int64_t begin, int64_t end) {
                  while (begin < end) {
                    const int64_t image = begin / groups;
                    const int64_t last = std::min(end, (image + 1) * groups);
                    Means(x, y, image, begin % groups * kMeanGroup,
                          std::min(channels_, (last - image * groups) * kMeanGroup));
                    begin = last;
                  }
                });
    return absl::OkStatus();
  }

 private:
  /// Channels [first, last) of one image.
  void Means(const float* x, float* y, int64_t image, int64_t first, int64_t last) const {
    const float factor = 1.0F / static_cast<float>(plane_);
    for (; first < last; first += kMeanChannels) {
      const int64_t n = std::min(kMeanChannels, last - first);
      alignas(kTensorAlignment) std::array<float, kMeanChannels> sum;
      std::fill_n(sum.begin(), n, 0.0F);
      AddRows(x + image * plane_ * channels_ + first, plane_, channels_, sum.data(), n);
      for (int64_t i = 0; i < n; ++i) y[image * channels_ + first + i] = sum[i] * factor;
    }
  }

  int64_t batch_;
  int64_t plane_;
  int64_t channels_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerPlaneMean(const LowerContext& context,
                                                     const PoolGeometry& geometry) {
  const auto plain = [](const Value& value) { return value.dtype == DType::kF32 && !value.quant; };
  if (!plain(context.input(0)) || !plain(context.output())) return Unimplemented("not F32");
  context.layer.runs = "f32";
  context.layer.impl = "octet:plane_mean";
  context.layer.isa = context.target.isa;
  return std::make_unique<PlaneMeanStep>(geometry);
}

}  // namespace octet
