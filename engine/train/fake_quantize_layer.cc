// Quantization in the forward pass, straight through in the backward pass.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/tensor/cpu_clones.h"
#include "engine/train/layer.h"

namespace octet::train {
namespace {

// Adding and taking away 1.5 * 2^23 rounds half to even what is smaller than 2^22; larger ones are clamped anyway.
constexpr float kRounder = 0x1.8p23F;

struct Grid {
  float scale;
  float low;  ///< Range without the zero point: q - z.
  float high;
};

OCTET_CPU_CLONES void FakeQuantizeRun(const float* x, float* y, int64_t n, Grid grid) {
  const float beyond = grid.high + 1;
  const float below = grid.low - 1;
  for (int64_t i = 0; i < n; ++i) {
    const float steps = std::min(std::max(x[i] / grid.scale, below), beyond);
    const float rounded = (steps + kRounder) - kRounder;
    y[i] = grid.scale * std::min(std::max(rounded, grid.low), grid.high);
  }
}

// Writes dL/dx and returns dL/ds. `y` is what the forward pass wrote.
OCTET_CPU_CLONES double StraightThroughRun(const float* x, const float* dy, float* dx, int64_t n,
                                           Grid grid) {
  double by_scale = 0;
  const float beyond = grid.high + 1;
  const float below = grid.low - 1;
  constexpr int64_t kBlock =
      1024;  // Sums of this many in float lose nothing that a gradient needs.
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t end = std::min(n, first + kBlock);
    float sum = 0;
    for (int64_t i = first; i < end; ++i) {
      const float exact = x[i] / grid.scale;
      const float steps = std::min(std::max(exact, below), beyond);
      const float rounded = (steps + kRounder) - kRounder;
      const float clamped = std::min(std::max(rounded, grid.low), grid.high);
      const bool inside = rounded == clamped;
      dx[i] = inside ? dy[i] : 0.0F;
      sum += dy[i] * (inside ? rounded - exact : clamped);
    }
    by_scale += sum;
  }
  return by_scale;
}

class FakeQuantize : public Layer {
 public:
  FakeQuantize(Activation& x, Activation& y, ActivationScale& scale)
      : x_(x), y_(y), scale_(scale) {}

  absl::Status Forward() override {
    const Grid grid = GridNow();
    ParallelFor(x_.size(), kGrain, [&](int64_t begin, int64_t end) {
      FakeQuantizeRun(x_.values() + begin, y_.values() + begin, end - begin, grid);
    });
    return absl::OkStatus();
  }

  absl::Status Backward() override {
    if (!y_.differentiable()) return absl::OkStatus();
    const Grid grid = GridNow();
    std::vector<double> parts(static_cast<size_t>((x_.size() + kGrain - 1) / kGrain));
    // Sums of fixed parts, so that the result does not depend on who computes them.
    x_.AddGradient([&](float* to) {
      ParallelFor(std::ssize(parts), 1, [&](int64_t begin, int64_t end) {
        for (int64_t part = begin; part < end; ++part) {
          const int64_t first = part * kGrain;
          const int64_t count = std::min(kGrain, x_.size() - first);
          parts[static_cast<size_t>(part)] = StraightThroughRun(
              x_.values() + first, y_.gradient() + first, to + first, count, grid);
        }
      });
    });
    double by_scale = 0;
    for (const double part : parts) by_scale += part;
    scale_.AddGradient(by_scale);
    return absl::OkStatus();
  }

 private:
  static constexpr int64_t kGrain = int64_t{1} << 15;

  Grid GridNow() const {
    const auto zero = static_cast<float>(scale_.zero_point());
    return {scale_.scale(), static_cast<float>(scale_.range().min) - zero,
            static_cast<float>(scale_.range().max) - zero};
  }

  Activation& x_;
  Activation& y_;
  ActivationScale& scale_;
};

}  // namespace

std::unique_ptr<Layer> MakeFakeQuantize(Activation& x, Activation& y, ActivationScale& scale) {
  return std::make_unique<FakeQuantize>(x, y, scale);
}

}  // namespace octet::train
