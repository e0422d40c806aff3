#include "engine/ops/corner_blend.h"

#include <algorithm>
#include <array>

#include "engine/graph/stored_value.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/tensor.h"

namespace octet {
namespace {

/// Results that one thread gets at least.
constexpr int64_t kCornerGrain = int64_t{1} << 13;

/// Both taps of each result along the last axis that changes.
struct LastAxis {
  std::vector<int32_t> index[2];
  std::vector<float> weight[2];
};

/// What a source row counts: by the axis ahead of the last one, and by the one ahead of that.
struct RowWeight {
  float middle = 1;
  float first = 1;
};

OCTET_UNFUSED_CPU_CLONES void AddCorners(const float* x, const int32_t* left, const float* by_left,
                                         const int32_t* right, const float* by_right, float middle,
                                         float first, int64_t n, float* y) {
#pragma GCC ivdep
  for (int64_t o = 0; o < n; ++o) {
    const float sum = y[o] + by_left[o] * middle * first * x[left[o]];
    y[o] = sum + by_right[o] * middle * first * x[right[o]];
  }
}

/// The same where a result is `inner` floats.
OCTET_UNFUSED_CPU_CLONES void AddWideCorners(const float* x, const int32_t* left,
                                             const float* by_left, const int32_t* right,
                                             const float* by_right, float middle, float first,
                                             int64_t n, int64_t inner, float* y) {
  for (int64_t o = 0; o < n; ++o, y += inner) {
    const float a = by_left[o] * middle * first;
    const float b = by_right[o] * middle * first;
    const float* p = x + left[o] * inner;
    const float* q = x + right[o] * inner;
#pragma GCC ivdep
    for (int64_t i = 0; i < inner; ++i) {
      const float sum = y[i] + a * p[i];
      y[i] = sum + b * q[i];
    }
  }
}

class CornerStep final : public Step {
 public:
  CornerStep(const LowerContext& context, const std::vector<AxisTable>& tables)
      : input_(RealFormatOf(context.input(0))),
        output_(RealFormatOf(context.output())),
        threads_(std::max(context.target.threads, 1)) {
    const Shape& shape = *context.input(0).shape;
    int last = shape.rank() - 1;
    while (tables[static_cast<size_t>(last)].IsIdentity()) --last;
    inner_ = shape.elements(last + 1, shape.rank());
    const AxisTable& row = tables[static_cast<size_t>(last)];
    in_row_ = row.in * inner_;
    out_row_ = row.out * inner_;
    for (int64_t o = 0; o < row.out; ++o) {
      for (const int64_t t : {0, 1}) {
        last_.index[t].push_back(static_cast<int32_t>(row.index[2 * o + t]));
        last_.weight[t].push_back(static_cast<float>(row.weight[2 * o + t]));
      }
    }
    outer_.assign(tables.begin(), tables.begin() + last);
    for (const AxisTable& table : outer_) {
      rows_ *= table.out;
      if (table.taps == 2) sources_ *= 2;
    }
  }

  size_t scratch_bytes() const override {
    return static_cast<size_t>(threads_ * ThreadFloats()) * sizeof(float);
  }

  absl::Status Run(const StepArgs& args) const override {
    const int64_t grain = 1 + kCornerGrain / out_row_;
    ParallelParts(rows_, grain, threads_, [&](int64_t part, int64_t first, int64_t end) {
      float* own = reinterpret_cast<float*>(args.scratch) + part * ThreadFloats();
      Rows held;
      held.fill(-1);
      for (int64_t row = first; row < end; ++row) RunRow(args, row, held, own);
    });
    return absl::OkStatus();
  }

 private:
  static constexpr size_t kMostSources = 4;
  using Rows = std::array<int64_t, kMostSources>;

  /// The source rows as they are read, and a row of results.
  int64_t ThreadFloats() const {
    return static_cast<int64_t>(sources_) * AlignUpFloats(in_row_) + AlignUpFloats(out_row_);
  }

  /// The source rows of an output row, the later axis fastest.
  void FindSources(int64_t row, Rows& sources, std::array<RowWeight, kMostSources>& weights) const {
    sources.fill(0);
    int64_t stride = 1;
    size_t bit = 0;
    for (size_t axis = outer_.size(); axis-- > 0;) {
      const AxisTable& table = outer_[axis];
      const int64_t o = row % table.out;
      row /= table.out;
      for (size_t s = 0; s < sources_; ++s) {
        const int64_t at = table.taps == 2 ? 2 * o + static_cast<int64_t>(s >> bit & 1) : o;
        sources[s] += table.index[at] * stride;
        if (table.taps != 2) continue;
        (bit == 0 ? weights[s].middle : weights[s].first) = static_cast<float>(table.weight[at]);
      }
      stride *= table.in;
      if (table.taps == 2) ++bit;
    }
  }

  /// Reads a row, unless one of the last ones is it.
  const float* SourceRow(const void* x, int64_t row, const Rows& needed, Rows& held,
                         float* own) const {
    if (input_.plain()) return static_cast<const float*>(x) + row * in_row_;
    const auto slots = std::span(held).first(sources_);
    auto slot = std::ranges::find(slots, row);
    const bool is_held = slot != slots.end();
    if (!is_held) {
      slot = std::ranges::find_if(slots, [&](int64_t other) {
        return !std::ranges::contains(std::span(needed).first(sources_), other);
      });
      *slot = row;
    }
    float* buffer = own + (slot - slots.begin()) * AlignUpFloats(in_row_);
    return is_held ? buffer : input_.Read(x, row * in_row_, in_row_, buffer);
  }

  void RunRow(const StepArgs& args, int64_t row, Rows& held, float* own) const {
    Rows sources;
    std::array<RowWeight, kMostSources> weights;
    FindSources(row, sources, weights);
    float* y = output_.plain() ? static_cast<float*>(args.outputs[0]) + row * out_row_
                               : own + static_cast<int64_t>(sources_) * AlignUpFloats(in_row_);
    std::fill_n(y, out_row_, 0.0F);
    const auto n = static_cast<int64_t>(last_.index[0].size());
    for (size_t s = 0; s < sources_; ++s) {
      const auto [middle, first] = weights[s];
      if (middle == 0 || first == 0) continue;
      const float* x = SourceRow(args.inputs[0], sources[s], sources, held, own);
      if (inner_ == 1) {
        AddCorners(x, last_.index[0].data(), last_.weight[0].data(), last_.index[1].data(),
                   last_.weight[1].data(), middle, first, n, y);
      } else {
        AddWideCorners(x, last_.index[0].data(), last_.weight[0].data(), last_.index[1].data(),
                       last_.weight[1].data(), middle, first, n, inner_, y);
      }
    }
    if (!output_.plain()) output_.Write(y, args.outputs[0], row * out_row_, out_row_);
  }

  RealFormat input_;
  RealFormat output_;
  int threads_;
  std::vector<AxisTable> outer_;  ///< Of the axes ahead of the last one that changes.
  LastAxis last_;
  int64_t rows_ = 1;
  size_t sources_ = 1;  ///< Rows that a row of results is made of.
  int64_t inner_ = 1;
  int64_t in_row_ = 0;
  int64_t out_row_ = 0;
};

}  // namespace

bool BlendsCorners(const std::vector<AxisTable>& tables) {
  int changing = 0;
  for (const AxisTable& table : tables) {
    if (table.IsIdentity()) continue;
    if (table.taps != 2) return false;
    ++changing;
  }
  return changing >= 1 && changing <= 3;
}

std::unique_ptr<Step> MakeCornerStep(const LowerContext& context,
                                     const std::vector<AxisTable>& tables) {
  return std::make_unique<CornerStep>(context, tables);
}

}  // namespace octet
