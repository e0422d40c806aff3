// Resize and Upsample: nearest neighbours as copies, everything else as weighted sums of rows.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/corner_blend.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/resize.h"
#include "engine/ops/row_math.h"
#include "engine/tensor/cpu_clones.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"
#include "engine/tensor/tensor.h"

namespace octet {
namespace {

/// Bytes, or elements that are computed, that one thread gets at least.
constexpr int64_t kGrain = int64_t{1} << 14;

template <typename T>
void GatherRow(const T* x, const int32_t* index, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[index[i]];
}

/// y = x[0], x[0], x[1], x[1], ...
template <typename T>
void DoubleRow(const T* x, int64_t n, T* y) {
  for (int64_t i = 0; i < n; ++i) {
    y[2 * i] = x[i];
    y[2 * i + 1] = x[i];
  }
}

/// Copies stored elements of any type: y[o...] = x[index_a[o_a]...].
class NearestStep final : public Step {
 public:
  NearestStep(std::vector<AxisTable> tables, const Shape& in, size_t element)
      : tables_(std::move(tables)) {
    // Axes behind the last one that changes move in one piece.
    int last = in.rank() - 1;
    while (last > 0 && tables_[static_cast<size_t>(last)].IsIdentity()) --last;
    piece_ = static_cast<int64_t>(element) * in.elements(last + 1, in.rank());
    const AxisTable& row = tables_[static_cast<size_t>(last)];
    index_.assign(row.index.begin(), row.index.end());
    doubles_ = row.out == 2 * row.in;
    for (int64_t o = 0; o < row.out; ++o) doubles_ = doubles_ && row.index[o] == o / 2;
    in_row_ = row.in * piece_;
    out_row_ = row.out * piece_;
    tables_.resize(static_cast<size_t>(last));
    for (const AxisTable& table : tables_) rows_ *= table.out;
  }

  absl::Status Run(const StepArgs& args) const override {
    const auto* x = static_cast<const std::byte*>(args.inputs[0]);
    auto* y = static_cast<std::byte*>(args.outputs[0]);
    ParallelFor(rows_, 1 + kGrain / std::max<int64_t>(out_row_, 1),
                [&](int64_t begin, int64_t end) {
                  int64_t before = -1;
                  for (int64_t row = begin; row < end; ++row) {
                    const int64_t from = SourceRow(row);
                    if (from == before) {
                      std::memcpy(y + row * out_row_, y + (row - 1) * out_row_,
                                  static_cast<size_t>(out_row_));
                    } else {
                      CopyRow(x + from * in_row_, y + row * out_row_);
                    }
                    before = from;
                  }
                });
    return absl::OkStatus();
  }

 private:
  int64_t SourceRow(int64_t row) const {
    int64_t from = 0;
    int64_t stride = 1;
    for (size_t axis = tables_.size(); axis-- > 0;) {
      const AxisTable& table = tables_[axis];
      from += table.index[row % table.out] * stride;
      row /= table.out;
      stride *= table.in;
    }
    return from;
  }

  template <typename T>
  void CopyElements(const std::byte* x, std::byte* y) const {
    const auto* from = reinterpret_cast<const T*>(x);
    auto* to = reinterpret_cast<T*>(y);
    const auto n = static_cast<int64_t>(index_.size());
    doubles_ ? DoubleRow(from, n / 2, to) : GatherRow(from, index_.data(), n, to);
  }

  void CopyRow(const std::byte* x, std::byte* y) const {
    switch (piece_) {
      case 1:
        return CopyElements<uint8_t>(x, y);
      case 2:
        return CopyElements<uint16_t>(x, y);
      case 4:
        return CopyElements<uint32_t>(x, y);
      case 8:
        return CopyElements<uint64_t>(x, y);
      default:
        for (size_t o = 0; o < index_.size(); ++o)
          std::memcpy(y + static_cast<int64_t>(o) * piece_, x + index_[o] * piece_,
                      static_cast<size_t>(piece_));
    }
  }

  std::vector<AxisTable> tables_;  ///< Of the axes ahead of the last one that changes.
  std::vector<int32_t> index_;     ///< Of that one.
  bool doubles_ = false;
  int64_t piece_ = 1;  ///< Bytes that stay together, and of whole rows.
  int64_t in_row_ = 0;
  int64_t out_row_ = 0;
  int64_t rows_ = 1;
};

/// An AxisTable as the loops read it.
struct Taps {
  int64_t in = 1;
  int64_t out = 1;
  int64_t taps = 1;
  std::vector<int32_t> index = {0};
  std::vector<float> weight = {1};

  static Taps Of(const AxisTable& table) {
    return {table.in,
            table.out,
            table.taps,
            {table.index.begin(), table.index.end()},
            {table.weight.begin(), table.weight.end()}};
  }
};

OCTET_CPU_CLONES void TwoTapRow(const float* x, const int32_t* index, const float* weight,
                                int64_t n, float* y) {
  for (int64_t o = 0; o < n; ++o)
    y[o] = weight[2 * o] * x[index[2 * o]] + weight[2 * o + 1] * x[index[2 * o + 1]];
}

/// Fewer floats are added one by one.
constexpr int64_t kVectorFloats = 8;

OCTET_CPU_CLONES void ShortElements(const Taps& t, const float* x, int64_t inner, float* y) {
  const int32_t* index = t.index.data();
  const float* weight = t.weight.data();
  for (int64_t o = 0; o < t.out; ++o, index += t.taps, weight += t.taps) {
    for (int64_t i = 0; i < inner; ++i) {
      float sum = 0;
      for (int64_t k = 0; k < t.taps; ++k) sum += weight[k] * x[index[k] * inner + i];
      *y++ = sum;
    }
  }
}

/// y[o] = sum of weight * x[index], elements of `inner` floats.
void InterpolateRow(const Taps& t, const float* x, int64_t inner, float* y) {
  if (inner == 1 && t.taps == 2) return TwoTapRow(x, t.index.data(), t.weight.data(), t.out, y);
  if (inner < kVectorFloats) return ShortElements(t, x, inner, y);
  for (int64_t o = 0; o < t.out; ++o) {
    float* to = y + o * inner;
    bool first = true;
    for (int64_t k = o * t.taps; k < (o + 1) * t.taps; ++k) {
      if (t.weight[k] == 0) continue;
      (first ? ScaleRow : AddScaledRow)(x + t.index[k] * inner, t.weight[k], inner, to);
      first = false;
    }
    if (first) std::fill_n(to, inner, 0.0F);
  }
}

/// y[n, a, m, b, i] = sum over taps of a and b of weights * x[n, a', m, b', i], one row [m, b, i] at a time.
struct Stage {
  int64_t outer = 1;
  Taps a;
  int64_t middle = 1;
  Taps b;
  int64_t inner = 1;

  int64_t in_row() const { return middle * b.in * inner; }
  int64_t out_row() const { return middle * b.out * inner; }
  int64_t out_elements() const { return outer * a.out * out_row(); }
};

class InterpolateStep final : public Step {
 public:
  InterpolateStep(const LowerContext& context, const std::vector<AxisTable>& tables)
      : input_(RealFormatOf(context.input(0))),
        output_(RealFormatOf(context.output())),
        threads_(std::max(context.target.threads, 1)) {
    Shape shape = *context.input(0).shape;
    std::vector<int> changing;
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (!tables[static_cast<size_t>(axis)].IsIdentity()) changing.push_back(axis);
    }
    // Two axes at a time, the last two together.
    for (size_t i = 0; i < std::max<size_t>(changing.size(), 1);) {
      const size_t count =
          (changing.size() - i) % 2 == 0 ? std::min<size_t>(changing.size(), 2) : 1;
      Stage stage;
      const int a = changing.empty() ? 0 : changing[i];
      const int b = count < 2 ? a : changing[i + 1];
      stage.outer = shape.elements(0, count < 2 ? b : a);
      if (count == 2) {
        stage.a = Taps::Of(tables[static_cast<size_t>(a)]);
        stage.middle = shape.elements(a + 1, b);
        shape[a] = stage.a.out;
      }
      if (shape.rank() > 0) {
        stage.b = Taps::Of(tables[static_cast<size_t>(b)]);
        stage.inner = shape.elements(b + 1, shape.rank());
        shape[b] = stage.b.out;
      }
      stages_.push_back(std::move(stage));
      i += std::max<size_t>(count, 1);
    }
    for (size_t i = 0; i < stages_.size(); ++i) {
      row_floats_ = std::max(row_floats_, AlignUpFloats(stages_[i].in_row()));
      if (i + 1 < stages_.size()) between_.push_back(AlignUpFloats(stages_[i].out_elements()));
    }
    if (!output_.plain()) result_floats_ = AlignUpFloats(stages_.back().out_row());
  }

  size_t scratch_bytes() const override {
    int64_t floats = threads_ * ThreadFloats();
    for (const int64_t count : between_) floats += count;
    return static_cast<size_t>(floats) * sizeof(float);
  }

  absl::Status Run(const StepArgs& args) const override {
    auto* scratch = reinterpret_cast<float*>(args.scratch);
    float* between = scratch + threads_ * ThreadFloats();
    const RealFormat plain;
    const void* from = args.inputs[0];
    for (size_t i = 0; i < stages_.size(); ++i) {
      const bool last = i + 1 == stages_.size();
      void* to = last ? args.outputs[0] : between;
      RunStage(stages_[i], i == 0 ? input_ : plain, from, last ? output_ : plain, to, scratch);
      if (!last) between += between_[i];
      from = to;
    }
    return absl::OkStatus();
  }

 private:
  /// A row as it is read, one that is blended, one of the result.
  int64_t ThreadFloats() const { return 2 * row_floats_ + result_floats_; }

  void RunStage(const Stage& stage, const RealFormat& in, const void* x, const RealFormat& out,
                void* y, float* scratch) const {
    const int64_t rows = stage.outer * stage.a.out;
    const int64_t grain = 1 + kGrain / std::max<int64_t>(stage.out_row(), 1);
    ParallelParts(rows, grain, threads_, [&](int64_t part, int64_t first, int64_t end) {
      float* own = scratch + part * ThreadFloats();
      for (int64_t row = first; row < end; ++row) {
        const float* blended = Blended(stage, in, x, row, own);
        const int64_t at = row * stage.out_row();
        float* result = out.plain() ? static_cast<float*>(y) + at : own + 2 * row_floats_;
        for (int64_t m = 0; m < stage.middle; ++m) {
          InterpolateRow(stage.b, blended + m * stage.b.in * stage.inner, stage.inner,
                         result + m * stage.b.out * stage.inner);
        }
        if (!out.plain()) out.Write(result, y, at, stage.out_row());
      }
    });
  }

  /// The weighted sum of the rows that output row `row` is made of.
  const float* Blended(const Stage& stage, const RealFormat& in, const void* x, int64_t row,
                       float* own) const {
    const Taps& a = stage.a;
    const int64_t n = stage.in_row();
    const int64_t first_row = row / a.out * a.in;
    float* sum = own + row_floats_;
    bool first = true;
    if (a.taps == 1) return in.Read(x, (first_row + a.index[row % a.out]) * n, n, own);
    for (int64_t k = row % a.out * a.taps; k < (row % a.out + 1) * a.taps; ++k) {
      if (a.weight[k] == 0) continue;
      const float* from = in.Read(x, (first_row + a.index[k]) * n, n, own);
      (first ? ScaleRow : AddScaledRow)(from, a.weight[k], n, sum);
      first = false;
    }
    if (first) std::fill_n(sum, n, 0.0F);
    return sum;
  }

  RealFormat input_;
  RealFormat output_;
  int threads_;
  std::vector<Stage> stages_;
  std::vector<int64_t> between_;  ///< Floats that all stages but the last leave.
  int64_t row_floats_ = 0;
  int64_t result_floats_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerResize(const LowerContext& context) {
  const Value& x = context.input(0);
  const Value& y = context.output();
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  if (x.shape->rank() == 0) return Unimplemented("a scalar");
  if (x.shape->elements() == 0 || y.shape->elements() == 0) return Unimplemented("empty input");
  const auto inputs = KernelInputs(context.graph, context.node);
  const auto outputs = KernelOutputs(context.graph, context.node);
  OCTET_ASSIGN_OR_RETURN(std::vector<AxisTable> tables,
                         ResizeTables({context.node, inputs, outputs}));
  context.layer.isa = context.target.isa;
  if (ResizesByCopying(context.node) && x.dtype == y.dtype && x.quant == y.quant) {
    context.layer.runs = "none";
    context.layer.impl = "octet:nearest";
    return std::make_unique<NearestStep>(std::move(tables), *x.shape, SizeOf(x.dtype));
  }
  if (!HasRealFormat(x) || !HasRealFormat(y))
    return Unimplemented("values are neither float nor int8 with one scale");
  context.layer.runs = "f32";
  context.layer.impl = "octet:interpolate";
  if (y.quant && BlendsCorners(tables)) return MakeCornerStep(context, tables);
  return std::make_unique<InterpolateStep>(context, tables);
}

}  // namespace octet
