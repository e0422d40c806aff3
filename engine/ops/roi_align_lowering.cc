// RoiAlign, means: what a bin's samples take from an axis is found once for each region, and serves every channel.
//
// Where a sample lies along one axis does not depend on the other, so the mean of a bin's samples is
//   y[r, c] = sum over i of down[r, i] * (sum over j of across[c, j] * plane[i, j]),
// with the shares of each row and column of pixels summed over the samples between which it lies. Rows that a bin needs are added up
// over the region's columns first, side by side.
#include <algorithm>
#include <vector>

#include "engine/graph/stored_value.h"
#include "engine/ops/roi_align.h"
#include "engine/ops/row_math.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"
#include "engine/tensor/tensor.h"

namespace octet {
namespace {

/// Channels of one region that one thread gets at least.
constexpr int64_t kChannelGrain = 16;

/// What the bins of one axis take from its pixels.
class AxisShares {
 public:
  /// Pixels [first, first + count) with `count` shares from `shares` on; none where no sample lies inside.
  struct Bin {
    int64_t first = 0;
    int64_t count = 0;
    size_t shares = 0;
  };

  void Find(const RoiBins& bins, int64_t count, int64_t extent) {
    bins_.clear();
    shares_.clear();
    begin_ = extent;
    end_ = 0;
    const std::vector<RoiInside> inside = RoiInsideOf(bins, count, extent);
    for (int64_t bin = 0; bin < count; ++bin) AddBin(bins, bin, inside[bin], extent);
  }

  const std::vector<Bin>& bins() const { return bins_; }
  const float* shares(const Bin& bin) const { return shares_.data() + bin.shares; }
  /// The pixels that any bin takes something from: [begin, end).
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }

 private:
  void AddBin(const RoiBins& bins, int64_t bin, const RoiInside& inside, int64_t extent) {
    Bin& added = bins_.emplace_back(Bin{0, 0, shares_.size()});
    if (inside.count() <= 0) return;
    const RoiSample ends[] = {LocateRoiSample(bins.At(bin, inside.first), extent),
                              LocateRoiSample(bins.At(bin, inside.last - 1), extent)};
    added.first = std::min(ends[0].low, ends[1].low);
    added.count = std::max(ends[0].high, ends[1].high) + 1 - added.first;
    sums_.assign(static_cast<size_t>(added.count), 0);
    for (int64_t sample = inside.first; sample < inside.last; ++sample) {
      const RoiSample at = LocateRoiSample(bins.At(bin, sample), extent);
      sums_[static_cast<size_t>(at.low - added.first)] += 1 - at.f;
      sums_[static_cast<size_t>(at.high - added.first)] += at.f;
    }
    for (const double sum : sums_)
      shares_.push_back(static_cast<float>(sum / static_cast<double>(bins.samples)));
    begin_ = std::min(begin_, added.first);
    end_ = std::max(end_, added.first + added.count);
  }

  std::vector<Bin> bins_;
  std::vector<float> shares_;
  std::vector<double> sums_;  ///< Of one bin.
  int64_t begin_ = 0;
  int64_t end_ = 0;
};

/// One channel of one region. Pixels between two samples have no share, and none of their infinities either. `row` has room for as many floats as the plane is wide.
void AlignPlane(const float* plane, int64_t width, const AxisShares& rows,
                const AxisShares& columns, float* row, float* y) {
  const int64_t begin = columns.begin();
  const int64_t n = columns.end() - begin;
  for (const AxisShares::Bin& down : rows.bins()) {
    if (down.count == 0 || n <= 0) {
      y = std::fill_n(y, columns.bins().size(), 0.0F);
      continue;
    }
    const float* from = plane + down.first * width + begin;
    const float* share = rows.shares(down);
    ScaleRow(from, share[0], n, row);
    for (int64_t i = 1; i < down.count; ++i) {
      if (share[i] != 0) AddScaledRow(from + i * width, share[i], n, row);
    }
    for (const AxisShares::Bin& across : columns.bins()) {
      const float* part = columns.shares(across);
      float sum = 0;
      for (int64_t j = 0; j < across.count; ++j) {
        if (part[j] != 0) sum += part[j] * row[across.first - begin + j];
      }
      *y++ = sum;
    }
  }
}

class RoiAlignStep final : public Step {
 public:
  RoiAlignStep(const LowerContext& context, const RoiForm& form)
      : form_(form),
        name_(Describe(context.node)),
        x_(*context.input(0).shape),
        regions_((*context.output().shape)[0]),
        input_(RealFormatOf(context.input(0))),
        boxes_(RealFormatOf(context.input(1))),
        output_(RealFormatOf(context.output())) {}

  /// Room for x where it is not stored as floats.
  size_t scratch_bytes() const override {
    return input_.plain() ? 0 : static_cast<size_t>(x_.elements()) * sizeof(float);
  }

  absl::Status Run(const StepArgs& args) const override {
    const auto* images = static_cast<const int64_t*>(args.inputs[2]);
    OCTET_RETURN_IF_ERROR(CheckRoiImages(images, regions_, x_[0], name_));
    const float* x = Widened(args);
    const int64_t channels = x_[1];
    ParallelFor(regions_ * channels, kChannelGrain, [&](int64_t begin, int64_t end) {
      AxisShares rows;
      AxisShares columns;
      std::vector<float> row(static_cast<size_t>(x_[3]));
      std::vector<float> bins(static_cast<size_t>(form_.height * form_.width));
      for (int64_t k = begin; k < end; ++k) {
        const int64_t region = k / channels;
        if (k == begin || k % channels == 0) FindShares(args, region, rows, columns);
        const float* plane = x + (images[region] * channels + k % channels) * x_[2] * x_[3];
        const int64_t at = k * std::ssize(bins);
        float* y = output_.plain() ? static_cast<float*>(args.outputs[0]) + at : bins.data();
        AlignPlane(plane, x_[3], rows, columns, row.data(), y);
        if (!output_.plain()) output_.Write(y, args.outputs[0], at, std::ssize(bins));
      }
    });
    return absl::OkStatus();
  }

 private:
  const float* Widened(const StepArgs& args) const {
    if (input_.plain()) return static_cast<const float*>(args.inputs[0]);
    auto* wide = reinterpret_cast<float*>(args.scratch);
    const int64_t plane = x_[2] * x_[3];
    ParallelFor(x_[0] * x_[1], kChannelGrain, [&](int64_t begin, int64_t end) {
      input_.Read(args.inputs[0], begin * plane, (end - begin) * plane, wide + begin * plane);
    });
    return wide;
  }

  void FindShares(const StepArgs& args, int64_t region, AxisShares& rows,
                  AxisShares& columns) const {
    float buffer[4];
    const float* box = boxes_.Read(args.inputs[1], region * 4, 4, buffer);  // x1 y1 x2 y2
    columns.Find(
        RoiBinsOf(form_, static_cast<double>(box[0]), static_cast<double>(box[2]), form_.width),
        form_.width, x_[3]);
    rows.Find(
        RoiBinsOf(form_, static_cast<double>(box[1]), static_cast<double>(box[3]), form_.height),
        form_.height, x_[2]);
  }

  RoiForm form_;
  std::string name_;
  Shape x_;  ///< [N, C, H, W].
  int64_t regions_;
  RealFormat input_;
  RealFormat boxes_;
  RealFormat output_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerRoiAlign(const LowerContext& context) {
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  if (context.input(0).shape->elements() == 0 || context.output().shape->elements() == 0)
    return Unimplemented("empty input");
  for (const Value* value : {&context.input(0), &context.input(1), &context.output()}) {
    if (!HasRealFormat(*value))
      return Unimplemented("values are neither float nor int8 with one scale");
  }
  OCTET_ASSIGN_OR_RETURN(const RoiForm form, RoiFormOf(context.node));
  if (form.largest) return Unimplemented("the largest of the samples");
  context.layer.runs = "f32";
  context.layer.impl = "octet:roi_align";
  context.layer.isa = context.target.isa;
  return std::make_unique<RoiAlignStep>(context, form);
}

}  // namespace octet
