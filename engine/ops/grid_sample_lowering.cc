// GridSample: the taps of a block of positions are found once, and serve every channel. AffineGrid: coordinates are found once for
// each axis, and what does not change along the last one once a row.
#include <algorithm>
#include <limits>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/grid_sample.h"
#include "engine/ops/row_math.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"
#include "engine/tensor/tensor.h"

namespace octet {
namespace {

/// Positions whose taps lie in the cache together.
constexpr int64_t kSampleBlock = 128;
/// Taps that one thread gets at least.
constexpr int64_t kSampleGrain = int64_t{1} << 14;

/// y[i] = sum over k of weight[k][i] * plane[index[k][i]], without those whose index is below 0.
OCTET_CPU_CLONES void SampleRow(const float* plane, const int32_t* index, const float* weight,
                                int64_t taps, int64_t n, float* y) {
  float sums[kSampleBlock] = {};
  for (int64_t k = 0; k < taps; ++k, index += kSampleBlock, weight += kSampleBlock) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const float share = weight[i] * plane[std::max(index[i], 0)];
      sums[i] += index[i] < 0 ? 0.0F : share;
    }
  }
  std::copy_n(sums, n, y);
}

class GridSampleStep final : public Step {
 public:
  GridSampleStep(const LowerContext& context, const SampleAttributes& attributes)
      : attributes_(attributes),
        input_(RealFormatOf(context.input(0))),
        grid_(RealFormatOf(context.input(1))),
        output_(RealFormatOf(context.output())),
        threads_(std::max(context.target.threads, 1)) {
    const Shape& x = *context.input(0).shape;
    const Shape& grid = *context.input(1).shape;
    const int first = attributes_.channels_last ? 1 : 2;
    axes_ = x.rank() - 2;
    extents_.assign(x.begin() + first, x.begin() + first + axes_);
    batch_ = x[0];
    channels_ = x[attributes_.channels_last ? x.rank() - 1 : 1];
    for (const int64_t extent : extents_) plane_ *= extent;
    points_ = grid.elements(1, grid.rank() - 1);
    for (int axis = 0; axis < axes_; ++axis) taps_ *= attributes_.taps();
  }

  size_t scratch_bytes() const override {
    return static_cast<size_t>(threads_ * ThreadFloats() + WideFloats()) * sizeof(float);
  }

  absl::Status Run(const StepArgs& args) const override {
    auto* scratch = reinterpret_cast<float*>(args.scratch);
    const float* x = Widened(args.inputs[0], scratch + threads_ * ThreadFloats());
    const int64_t blocks = (points_ + kSampleBlock - 1) / kSampleBlock;
    const int64_t tasks = batch_ * blocks;
    const int64_t grain = 1 + kSampleGrain / (std::min(points_, kSampleBlock) * taps_ * channels_);
    ParallelParts(tasks, grain, threads_, [&](int64_t part, int64_t begin, int64_t end) {
      float* own = scratch + part * ThreadFloats();
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % blocks * kSampleBlock;
        SampleBlock(args, x, task / blocks, first, std::min(kSampleBlock, points_ - first), own);
      }
    });
    return absl::OkStatus();
  }

 private:
  /// Indices, weights, positions, and a row of results.
  int64_t ThreadFloats() const {
    return 2 * taps_ * kSampleBlock + AlignUpFloats(kSampleBlock * axes_) +
           AlignUpFloats(std::max(kSampleBlock, channels_));
  }
  int64_t WideFloats() const { return input_.plain() ? 0 : batch_ * channels_ * plane_; }

  const float* Widened(const void* x, float* wide) const {
    if (input_.plain()) return static_cast<const float*>(x);
    ParallelFor(WideFloats(), kSampleGrain, [&](int64_t begin, int64_t end) {
      input_.Read(x, begin, end - begin, wide + begin);
    });
    return wide;
  }

  void SampleBlock(const StepArgs& args, const float* x, int64_t image, int64_t first, int64_t n,
                   float* own) const {
    auto* index = reinterpret_cast<int32_t*>(own);
    float* weight = own + taps_ * kSampleBlock;
    float* positions = weight + taps_ * kSampleBlock;
    float* result = positions + AlignUpFloats(kSampleBlock * axes_);
    const int64_t at = image * points_ + first;
    FindTaps(grid_.Read(args.inputs[1], at * axes_, n * axes_, positions), n, index, weight);
    auto* plain = output_.plain() ? static_cast<float*>(args.outputs[0]) : nullptr;
    x += image * channels_ * plane_;
    const auto store = [&](int64_t offset, int64_t count) {
      if (plain == nullptr) output_.Write(result, args.outputs[0], offset, count);
    };
    if (attributes_.channels_last) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t offset = (at + i) * channels_;
        SampleChannels(x, index + i, weight + i, plain != nullptr ? plain + offset : result);
        store(offset, channels_);
      }
      return;
    }
    for (int64_t c = 0; c < channels_; ++c) {
      const int64_t offset = (image * channels_ + c) * points_ + first;
      SampleRow(x + c * plane_, index, weight, taps_, n,
                plain != nullptr ? plain + offset : result);
      store(offset, n);
    }
  }

  /// Of every position, all products of the taps of its axes; index and weight are [taps_, kSampleBlock].
  void FindTaps(const float* positions, int64_t n, int32_t* index, float* weight) const {
    const int per_axis = attributes_.taps();
    std::array<SampleTaps, kMostSampledAxes> taps;
    for (int64_t i = 0; i < n; ++i) {
      // The grid names the last axis first.
      for (int axis = 0; axis < axes_; ++axis)
        taps[axis] = SampleTapsOf(attributes_, positions[i * axes_ + axes_ - 1 - axis],
                                  extents_[static_cast<size_t>(axis)]);
      for (int64_t k = 0; k < taps_; ++k) {
        int64_t offset = 0;
        int64_t stride = 1;
        double product = 1;
        bool inside = true;
        for (int64_t axis = axes_ - 1, rest = k; axis >= 0; --axis, rest /= per_axis) {
          const auto t = static_cast<size_t>(rest % per_axis);
          inside = inside && taps[axis].index[t] >= 0;
          offset += taps[axis].index[t] * stride;
          product *= taps[axis].weight[t];
          stride *= extents_[static_cast<size_t>(axis)];
        }
        index[k * kSampleBlock + i] = inside ? static_cast<int32_t>(offset) : -1;
        weight[k * kSampleBlock + i] = static_cast<float>(product);
      }
    }
  }

  /// One position of channels that lie side by side.
  void SampleChannels(const float* x, const int32_t* index, const float* weight, float* y) const {
    bool first = true;
    for (int64_t k = 0; k < taps_; ++k) {
      const int64_t at = index[k * kSampleBlock];
      if (at < 0) continue;
      (first ? ScaleRow : AddScaledRow)(x + at * channels_, weight[k * kSampleBlock], channels_, y);
      first = false;
    }
    if (first) std::fill_n(y, channels_, 0.0F);
  }

  SampleAttributes attributes_;
  RealFormat input_;
  RealFormat grid_;
  RealFormat output_;
  int threads_;
  int axes_ = 0;
  std::vector<int64_t> extents_;
  int64_t batch_ = 1;
  int64_t channels_ = 1;
  int64_t plane_ = 1;
  int64_t points_ = 1;
  int64_t taps_ = 1;  ///< Of a position: those of each axis, multiplied.
};

/// grid[n, o..., i] = theta[n, i] (x, [y, z,] 1), x along the last axis.
class AffineGridStep final : public Step {
 public:
  AffineGridStep(const LowerContext& context, bool align_corners)
      : theta_(RealFormatOf(context.input(0))), grid_(*context.output().shape) {
    axes_ = static_cast<int>(grid_.back());
    for (int axis = 0; axis < axes_; ++axis) {
      const int64_t extent = grid_[axis + 1];
      std::vector<double>& along = coordinates_.emplace_back();
      for (int64_t k = 0; k < extent; ++k)
        along.push_back(AffineCoordinate(k, extent, align_corners));
    }
  }

  absl::Status Run(const StepArgs& args) const override {
    const int64_t width = grid_[axes_];
    const int64_t rows = grid_.elements(0, axes_);
    ParallelFor(rows, 1 + kSampleGrain / width, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) MapRow(args, row);
    });
    return absl::OkStatus();
  }

 private:
  void MapRow(const StepArgs& args, int64_t row) const {
    std::array<double, kMostSampledAxes> from{};  // Of the axes ahead of the last one.
    int64_t rest = row;
    for (int axis = axes_ - 2; axis >= 0; --axis) {
      from[static_cast<size_t>(axis)] =
          coordinates_[static_cast<size_t>(axis)][static_cast<size_t>(rest % grid_[axis + 1])];
      rest /= grid_[axis + 1];
    }
    const std::vector<double>& x = coordinates_.back();
    for (int i = 0; i < axes_; ++i) {
      float buffer[kMostSampledAxes + 1];
      const float* theta =
          theta_.Read(args.inputs[0], (rest * axes_ + i) * (axes_ + 1), axes_ + 1, buffer);
      const auto slope = static_cast<double>(theta[0]);
      double base = static_cast<double>(theta[axes_]);
      for (int k = 1; k < axes_; ++k)
        base += static_cast<double>(theta[k]) * from[static_cast<size_t>(axes_ - 1 - k)];
      float* y = static_cast<float*>(args.outputs[0]) + row * std::ssize(x) * axes_ + i;
      for (const double at : x) {
        *y = static_cast<float>(slope * at + base);
        y += axes_;
      }
    }
  }

  RealFormat theta_;
  Shape grid_;  ///< [N, d..., D].
  int axes_ = 0;
  std::vector<std::vector<double>> coordinates_;  ///< Of each axis d.
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerAffineGrid(const LowerContext& context) {
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  const Value& grid = context.output();
  if (!HasRealFormat(context.input(0)) || grid.dtype != DType::kF32 || grid.quant)
    return Unimplemented("theta is neither float nor int8 with one scale, or the grid not FP32");
  OCTET_ASSIGN_OR_RETURN(const int64_t align, context.node.attributes.Int("align_corners", 0));
  context.layer.runs = "f32";
  context.layer.impl = "octet:affine_grid";
  context.layer.isa = context.target.isa;
  return std::make_unique<AffineGridStep>(context, align != 0);
}

absl::StatusOr<std::unique_ptr<Step>> LowerGridSample(const LowerContext& context) {
  const Value& x = context.input(0);
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  if (x.shape->elements() == 0 || context.output().shape->elements() == 0)
    return Unimplemented("empty input");
  for (const Value* value : {&x, &context.input(1), &context.output()}) {
    if (!HasRealFormat(*value))
      return Unimplemented("values are neither float nor int8 with one scale");
  }
  OCTET_ASSIGN_OR_RETURN(const SampleAttributes attributes, ReadSampleAttributes(context.node));
  const int first = attributes.channels_last ? 1 : 2;
  if (x.shape->elements(first, first + x.shape->rank() - 2) > std::numeric_limits<int32_t>::max())
    return Unimplemented("a plane has more elements than 32-bit places");
  context.layer.runs = "f32";
  context.layer.impl = "octet:grid_sample";
  context.layer.isa = context.target.isa;
  return std::make_unique<GridSampleStep>(context, attributes);
}

}  // namespace octet
