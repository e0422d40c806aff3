#include "engine/ops/pool_rows.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/integer_average.h"
#include "engine/ops/row_math.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"
#include "engine/tensor/tensor.h"

namespace octet {
namespace {

/// Taps, times results, that one thread gets at least.
constexpr int64_t kPoolGrain = int64_t{1} << 14;
/// Windows of a plane's row from this width on are folded each on its own.
constexpr int64_t kLongWindow = 16;

/// The larger of y[i] and x[i * step], and its place, which is place + i * place_step: the first of equal ones, a NaN before all.
/// A place below 0 means that y[i] holds nothing yet.
OCTET_CPU_CLONES void LargestAndPlace(const float* x, int64_t step, int32_t place,
                                      int32_t place_step, int64_t n, float* y, int32_t* places) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i * step];
    const bool takes = v > y[i] || v != v || places[i] < 0;
    y[i] = takes ? v : y[i];
    places[i] = takes ? place + static_cast<int32_t>(i) * place_step : places[i];
  }
}

struct Pooling {
  Fold fold = Fold::kLargest;
  bool averages = false;
  AverageCount count = AverageCount::kInside;
  bool root = false;
  bool places = false;        ///< Output 1 is wanted,
  bool column_major = false;  ///< and counts the first spatial axis fastest.
};

absl::StatusOr<Pooling> PoolingOf(const Node& node) {
  Pooling p;
  if (node.op.ends_with("MaxPool")) {
    p.places = node.output(1) != kNone;
    p.column_major = node.attributes.IntOr("storage_order", 0) != 0;
  } else if (node.op.ends_with("AveragePool")) {
    p.fold = Fold::kSum;
    p.averages = true;
    p.count = AverageCountOf(node);
  } else {
    const int64_t power = node.attributes.IntOr("p", 2);
    if (power != 1 && power != 2) return Unimplemented("p is neither 1 nor 2");
    p.fold = power == 1 ? Fold::kMagnitudes : Fold::kSquares;
    p.root = power == 2;
  }
  return p;
}

/// A task is one row of results: the windows along the last spatial axis, of one channel, or of all where they are last.
class PoolRowsStep final : public Step {
 public:
  PoolRowsStep(const LowerContext& context, const PoolGeometry& geometry, const Pooling& pooling)
      : g_(geometry),
        pooling_(pooling),
        input_(RealFormatOf(context.input(0))),
        output_(RealFormatOf(context.output())),
        threads_(std::max(context.target.threads, 1)),
        inner_(g_.channels_last ? g_.channels : 1),
        planes_(g_.channels_last ? g_.batch : g_.batch * g_.channels) {
    for (size_t axis = 0; axis < 3; ++axis) {
      const AxisWindow& window = g_.axes[axis];
      AxisWindow padded = window;
      padded.in += padded.pad_begin + padded.pad_end;
      padded.pad_begin = 0;
      for (int64_t o = 0; o < window.out; ++o) {
        const auto count = [&](const AxisWindow::Range& taps) {
          return static_cast<float>(taps.end - taps.begin);
        };
        const float inside = count(window.TapsOf(o));
        inside_[axis].push_back(inside);
        has_empty_ = has_empty_ || inside == 0;
        counts_[axis].push_back(pooling_.count == AverageCount::kInside ? inside
                                : pooling_.count == AverageCount::kPadded
                                    ? count(padded.TapsOf(o))
                                    : count({0, window.kernel}));
      }
    }
  }

  size_t scratch_bytes() const override {
    return static_cast<size_t>(threads_ * ThreadFloats()) * sizeof(float);
  }

  absl::Status Run(const StepArgs& args) const override {
    const int64_t rows = planes_ * g_.axes[0].out * g_.axes[1].out;
    int64_t work = out_row();
    for (const AxisWindow& window : g_.axes) work *= std::min(window.kernel, window.in);
    const int64_t grain = 1 + kPoolGrain / std::max<int64_t>(work, 1);
    ParallelParts(rows, grain, threads_, [&](int64_t part, int64_t first, int64_t end) {
      float* own = reinterpret_cast<float*>(args.scratch) + part * ThreadFloats();
      for (int64_t row = first; row < end; ++row) RunRow(args, row, own);
    });
    return absl::OkStatus();
  }

 private:
  int64_t in_row() const { return g_.axes[2].in * inner_; }
  int64_t out_row() const { return g_.axes[2].out * inner_; }
  int64_t input_floats() const { return input_.plain() ? 0 : AlignUpFloats(in_row()); }
  /// A sum of rows, where they are not taken one by one.
  int64_t line_floats() const { return pooling_.places ? 0 : AlignUpFloats(in_row()); }
  int64_t output_floats() const { return output_.plain() ? 0 : AlignUpFloats(out_row()); }
  int64_t ThreadFloats() const {
    return input_floats() + line_floats() + output_floats() +
           (pooling_.places ? AlignUpFloats(out_row()) : 0);
  }

  void RunRow(const StepArgs& args, int64_t row, float* own) const {
    const auto& [depth, height, width] = g_.axes;
    const int64_t plane = row / height.out / depth.out;
    const int64_t od = row / height.out % depth.out;
    const int64_t oh = row % height.out;
    const int64_t at = row * out_row();
    float* y = output_.plain() ? static_cast<float*>(args.outputs[0]) + at
                               : own + input_floats() + line_floats();
    auto* places = reinterpret_cast<int32_t*>(own + input_floats() + output_floats());
    std::fill_n(y, out_row(), FoldStart(pooling_.fold));
    if (pooling_.places) std::fill_n(places, out_row(), -1);
    const auto [d0, d1] = depth.TapsOf(od);
    const auto [h0, h1] = height.TapsOf(oh);
    const bool several = (d1 - d0) * (h1 - h0) > 1;
    float* lines = own + input_floats();
    if (several && !pooling_.places) std::fill_n(lines, in_row(), FoldStart(pooling_.fold));
    for (int64_t kd = d0; kd < d1; ++kd) {
      for (int64_t kh = h0; kh < h1; ++kh) {
        const int64_t line = depth.Position(od, kd) * height.in + height.Position(oh, kh);
        const int64_t from = (plane * depth.in * height.in + line) * in_row();
        const float* x = input_.Read(args.inputs[0], from, in_row(), own);
        if (pooling_.places) {
          TakeLargest(x, static_cast<int32_t>(line * width.in), y, places);
        } else if (several) {
          FoldInto(pooling_.fold, x, lines, in_row());
        } else {
          Take(pooling_.fold, x, y);
        }
      }
    }
    if (several && !pooling_.places) Take(joins(), lines, y);
    Finish(inside_[0][od] * inside_[1][oh], counts_[0][od] * counts_[1][oh], y);
    if (!output_.plain()) output_.Write(y, args.outputs[0], at, out_row());
    if (pooling_.places) WritePlaces(places, plane, static_cast<int64_t*>(args.outputs[1]) + at);
  }

  /// How folds of several rows, or parts of one, become one.
  Fold joins() const { return pooling_.fold == Fold::kLargest ? Fold::kLargest : Fold::kSum; }

  /// Folds one row of the input, or of folds over rows, into the results.
  void Take(Fold fold, const float* x, float* y) const {
    const AxisWindow& w = g_.axes[2];
    if (inner_ == 1 && w.dilation == 1 && w.kernel >= kLongWindow) {
      for (int64_t o = 0; o < w.out; ++o) {
        const auto [k0, k1] = w.TapsOf(o);
        if (k0 == k1) continue;
        const float share = FoldRow(fold, x + w.Position(o, k0), k1 - k0);
        FoldInto(joins(), &share, y + o, 1);
      }
      return;
    }
    if (w.kernel > w.in) {  // Far more taps may lie in the padding than in the input.
      for (int64_t o = 0; o < w.out; ++o) {
        const auto [k0, k1] = w.TapsOf(o);
        for (int64_t k = k0; k < k1; ++k)
          FoldInto(fold, x + w.Position(o, k) * inner_, y + o * inner_, inner_);
      }
      return;
    }
    for (int64_t k = 0; k < w.kernel; ++k) {
      const auto [first, end] = w.OutputsOf(k);
      if (first >= end) continue;
      const float* from = x + w.Position(first, k) * inner_;
      float* to = y + first * inner_;
      if (w.stride == 1) {
        FoldInto(fold, from, to, (end - first) * inner_);
      } else if (inner_ == 1) {
        FoldStrided(fold, from, w.stride, to, end - first);
      } else {
        for (int64_t o = first; o < end; ++o, from += w.stride * inner_, to += inner_)
          FoldInto(fold, from, to, inner_);
      }
    }
  }

  /// The same for maxima with their places; the row's first element has place `place`.
  void TakeLargest(const float* x, int32_t place, float* y, int32_t* places) const {
    const AxisWindow& w = g_.axes[2];
    if (inner_ == 1 && w.kernel <= w.in) {
      for (int64_t k = 0; k < w.kernel; ++k) {
        const auto [first, end] = w.OutputsOf(k);
        if (first >= end) continue;
        const auto position = static_cast<int32_t>(w.Position(first, k));
        LargestAndPlace(x + position, w.stride, place + position, static_cast<int32_t>(w.stride),
                        end - first, y + first, places + first);
      }
      return;
    }
    for (int64_t o = 0; o < w.out; ++o) {
      const auto [k0, k1] = w.TapsOf(o);
      for (int64_t k = k0; k < k1; ++k) {
        const auto position = static_cast<int32_t>(w.Position(o, k));
        LargestAndPlace(x + position * inner_, 1, place + position, 0, inner_, y + o * inner_,
                        places + o * inner_);
      }
    }
  }

  /// `inside` and `count`: taps of the other axes in the input, and those that count.
  void Finish(float inside, float count, float* y) const {
    if (pooling_.root) {
      for (int64_t i = 0; i < out_row(); ++i) y[i] = std::sqrt(y[i]);
    }
    if (!pooling_.averages && !has_empty_) return;
    for (int64_t o = 0; o < g_.axes[2].out; ++o, y += inner_) {
      if (inside * inside_[2][o] == 0) {  // A window in the padding alone.
        std::fill_n(y, inner_, 0.0F);
      } else if (pooling_.averages) {
        const float all = count * counts_[2][o];
        for (int64_t i = 0; i < inner_; ++i) y[i] /= all;
      }
    }
  }

  /// Places within a plane become those in x as [N, C, spatial...].
  void WritePlaces(const int32_t* places, int64_t plane, int64_t* y) const {
    const auto& [depth, height, width] = g_.axes;
    for (int64_t i = 0; i < out_row(); ++i) {
      int64_t place = std::max(places[i], 0);
      if (pooling_.column_major) {
        const int64_t d = place / width.in / height.in;
        const int64_t h = place / width.in % height.in;
        place = d + depth.in * (h + height.in * (place % width.in));
      }
      y[i] = (plane * inner_ + i % inner_) * g_.in_plane() + place;
    }
  }

  PoolGeometry g_;
  Pooling pooling_;
  RealFormat input_;
  RealFormat output_;
  int threads_;
  int64_t inner_;   ///< Channels that lie side by side,
  int64_t planes_;  ///< and how many planes of them there are.
  std::array<std::vector<float>, 3>
      inside_;  ///< Taps of each window of an axis that lie in the input,
  std::array<std::vector<float>, 3> counts_;  ///< and those that an average counts.
  bool has_empty_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerPoolRows(const LowerContext& context,
                                                    const PoolGeometry& geometry) {
  if (!HasRealFormat(context.input(0)) || !HasRealFormat(context.output()))
    return Unimplemented("values are neither float nor int8 with one scale");
  if (geometry.in_plane() > std::numeric_limits<int32_t>::max())
    return Unimplemented("a plane has more elements than 32-bit places");
  OCTET_ASSIGN_OR_RETURN(const Pooling pooling, PoolingOf(context.node));
  context.layer.runs = "f32";
  context.layer.impl = "octet:pool_rows";
  context.layer.isa = context.target.isa;
  return std::make_unique<PoolRowsStep>(context, geometry, pooling);
}

}  // namespace octet
