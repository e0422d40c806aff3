#include "engine/ops/plane_mean.h"

#include <algorithm>
#include <array>

#include "engine/ops/row_sums.h"
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

OCTET_CPU_CLONES void AddRows(const float* x, int64_t rows, int64_t pitch, float* sum, int64_t n) {
  row_sums::Add(x, rows, pitch, sum, n);
}
OCTET_CPU_CLONES void AddRows(const BFloat16* x, int64_t rows, int64_t pitch, float* sum,
                              int64_t n) {
  row_sums::Add(x, rows, pitch, sum, n);
}

void Store(float mean, float& y) { y = mean; }
void Store(float mean, BFloat16& y) { y = ToBFloat16(mean); }

template <typename T>
class PlaneMeanStep final : public Step {
 public:
  explicit PlaneMeanStep(const PoolGeometry& g)
      : batch_(g.batch), plane_(g.in_plane()), channels_(g.channels) {}

  absl::Status Run(const StepArgs& args) const override {
    const auto* x = static_cast<const T*>(args.inputs[0]);
    auto* y = static_cast<T*>(args.outputs[0]);
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
  void Means(const T* x, T* y, int64_t image, int64_t first, int64_t last) const {
    const float factor = 1.0F / static_cast<float>(plane_);
    for (; first < last; first += kMeanChannels) {
      const int64_t n = std::min(kMeanChannels, last - first);
      alignas(kTensorAlignment) std::array<float, kMeanChannels> sum;
      std::fill_n(sum.begin(), n, 0.0F);
      AddRows(x + image * plane_ * channels_ + first, plane_, channels_, sum.data(), n);
      for (int64_t i = 0; i < n; ++i) Store(sum[i] * factor, y[image * channels_ + first + i]);
    }
  }

  int64_t batch_;
  int64_t plane_;
  int64_t channels_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerPlaneMean(const LowerContext& context,
                                                     const PoolGeometry& geometry) {
  const DType dtype = context.input(0).dtype;
  const bool real = (dtype == DType::kF32 || dtype == DType::kBF16) && !context.input(0).quant;
  if (!real || context.output().dtype != dtype || context.output().quant)
    return Unimplemented("neither F32 nor BF16 throughout");
  context.layer.runs = "f32";
  context.layer.impl = "octet:plane_mean";
  context.layer.isa = context.target.isa;
  if (dtype == DType::kBF16) return std::make_unique<PlaneMeanStep<BFloat16>>(geometry);
  return std::make_unique<PlaneMeanStep<float>>(geometry);
}

}  // namespace octet
