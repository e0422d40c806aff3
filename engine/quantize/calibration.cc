#include "engine/quantize/calibration.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr uint64_t kMostCounted = uint64_t{1} << 62;
// Bins per unit and what is multiplied with them stay floats.
constexpr double kLeastLimit = 0x1p-100;
constexpr double kLargestLimit = 0x1p128;

}  // namespace

Range Times(Range range, double factor) {
  constexpr double kLargest = std::numeric_limits<float>::max();
  const auto times = [&](float end) {
    return static_cast<float>(std::clamp(end * factor, -kLargest, kLargest));
  };
  return {times(range.min), times(range.max)};
}

absl::StatusOr<MovingExtremes> MovingExtremes::Restored(int64_t samples, double min_sum,
                                                        double max_sum) {
  MovingExtremes moving;
  moving.samples_ = samples;
  moving.min_sum_ = min_sum;
  moving.max_sum_ = max_sum;
  if (samples < 0 || !std::isfinite(min_sum) || !std::isfinite(max_sum) || min_sum > max_sum ||
      (samples == 0 && (min_sum != 0 || max_sum != 0)))
    return InvalidArgument("no moving average: sums {} and {} of {} samples", min_sum, max_sum,
                           samples);
  return moving;
}

void MovingExtremes::Add(Range sample) {
  ++samples_;
  min_sum_ = (1 - kAveraging) * min_sum_ + sample.min;
  max_sum_ = (1 - kAveraging) * max_sum_ + sample.max;
}

void MovingExtremes::Merge(const MovingExtremes& later) {
  const double kept = std::pow(1 - kAveraging, static_cast<double>(later.samples_));
  samples_ += later.samples_;
  min_sum_ = kept * min_sum_ + later.min_sum_;
  max_sum_ = kept * max_sum_ + later.max_sum_;
}

void MovingExtremes::Scale(double min_factor, double max_factor) {
  max_sum_ *= max_factor;
  min_sum_ = std::min(min_sum_ * min_factor, max_sum_);
}

double MovingExtremes::WeightOf(int64_t samples) {
  return (1 - std::pow(1 - kAveraging, static_cast<double>(samples))) / kAveraging;
}

Range MovingExtremes::average() const {
  if (samples_ == 0) return {};
  const double weights = WeightOf(samples_);
  return {static_cast<float>(min_sum_ / weights), static_cast<float>(max_sum_ / weights)};
}

absl::StatusOr<Histogram> Histogram::Restored(double limit, Range extremes,
                                              std::span<const uint64_t> bins,
                                              const MovingExtremes& moving) {
  int exponent = 0;
  const bool scale = limit == 0 || (limit >= kLeastLimit && limit <= kLargestLimit &&
                                    std::frexp(limit, &exponent) == 0.5);
  const double reach = std::max(-static_cast<double>(extremes.min), double{extremes.max});
  if (!scale || !(extremes.min <= extremes.max) || !(reach <= limit))
    return InvalidArgument("no histogram: limit {}, extremes [{}, {}]", limit, extremes.min,
                           extremes.max);
  Histogram histogram(static_cast<int>(bins.size()));
  histogram.limit_ = limit;
  histogram.extremes_ = extremes;
  histogram.moving_ = moving;
  for (const uint64_t count : bins) {
    histogram.count_ += count;
    if (count > kMostCounted || histogram.count_ > kMostCounted)
      return InvalidArgument("no histogram: counts of more than 2^62 elements");
  }
  std::ranges::copy(bins, histogram.bins_.begin());
  return histogram;
}

absl::Status Histogram::Add(std::span<const float> values) {
  if (values.empty()) return absl::OkStatus();
  const MinMax found =
      FindMinMax({values.data(), {DType::kF32, Shape{static_cast<int64_t>(values.size())}}});
  if (!found.finite) return InvalidArgument("NaN or infinity");
  Count(values, {found.min, found.max});
  return absl::OkStatus();
}

absl::Status Histogram::Observe(ConstTensorView batch) {
  const Shape& shape = batch.shape();
  if (shape.elements() == 0) return absl::OkStatus();
  const Shape sample{shape.elements(1, shape.rank())};
  const MovingExtremes before = moving_;
  Range extremes;
  for (int64_t at = 0; at < shape.elements(); at += sample[0]) {
    const MinMax found = FindMinMax({batch.as<float>() + at, {DType::kF32, sample}});
    if (!found.finite) {
      moving_ = before;
      return InvalidArgument("NaN or infinity");
    }
    moving_.Add({found.min, found.max});
    if (at == 0) extremes = {found.min, found.max};
    extremes = {std::min(extremes.min, found.min), std::max(extremes.max, found.max)};
  }
  Count(batch.span<float>(), extremes);
  return absl::OkStatus();
}

// Finite ones, between the extremes.
void Histogram::Count(std::span<const float> values, Range extremes) {
  Widen(extremes, values.size());
  GrowTo(std::max(std::abs(extremes.min), std::abs(extremes.max)));
  const int bins = static_cast<int>(bins_.size());
  if (limit_ == 0) {
    bins_[bins_.size() / 2] += values.size();
    return;
  }
  const float per_unit = static_cast<float>(bins / (2 * limit_));
  const float centre = static_cast<float>(bins) / 2;
  for (const float value : values) {
    // The largest float below the limit may round up to `bins`.
    const int bin = static_cast<int>(value * per_unit + centre);
    ++bins_[static_cast<size_t>(std::min(bin, bins - 1))];
  }
}

void Histogram::Widen(Range extremes, uint64_t count) {
  extremes_ = count_ == 0 ? extremes
                          : Range{std::min(extremes_.min, extremes.min),
                                  std::max(extremes_.max, extremes.max)};
  count_ += count;
}

void Histogram::Merge(const Histogram& other) {
  if (other.count_ == 0) return;
  moving_.Merge(other.moving_);
  Widen(other.extremes_, other.count_);
  Histogram aligned = other;
  aligned.GrowTo(std::max(limit_, other.limit_) / 2);
  GrowTo(std::max(limit_, other.limit_) / 2);
  for (size_t i = 0; i < bins_.size(); ++i) bins_[i] += aligned.bins_[i];
}

int Histogram::BinOf(double value) const {
  const int bins = static_cast<int>(bins_.size());
  if (limit_ == 0) return bins / 2;
  return std::clamp(static_cast<int>((value + limit_) / bin_width()), 0, bins - 1);
}

void Histogram::AddScaled(const Histogram& other, double factor) {
  if (other.count_ == 0) return;
  const Range reach = Times(other.extremes_, factor);
  Widen(reach, other.count_);
  GrowTo(std::max(-static_cast<double>(reach.min), double{reach.max}));
  const double half = other.bin_width() / 2;
  for (size_t i = 0; i < other.bins_.size(); ++i) {
    const uint64_t count = other.bins_[i];
    if (count == 0) continue;
    const double center = other.bin_center(static_cast<int>(i));
    const bool at_zero = i == other.bins_.size() / 2;
    const auto inside = [&](double x) {
      return std::clamp(x * factor, double{reach.min}, double{reach.max});
    };
    const int low = at_zero ? BinOf(0) : BinOf(inside(center - half));
    const int high = at_zero ? low : BinOf(inside(center + half));
    const uint64_t pieces = static_cast<uint64_t>(high - low) + 1;
    for (uint64_t p = 0; p < pieces; ++p)
      bins_[static_cast<size_t>(low) + p] += count / pieces + (p < count % pieces ? 1 : 0);
  }
}

void Histogram::AverageLike(const Histogram& other) {
  const auto ratio = [](float to, float from) { return from == 0 ? 1.0 : double{to} / from; };
  moving_ = other.moving_;
  moving_.Scale(ratio(extremes_.min, other.extremes_.min),
                ratio(extremes_.max, other.extremes_.max));
}

// Keeps |magnitude| < limit. Every doubling folds two bins into one, towards the centre.
void Histogram::GrowTo(double magnitude) {
  if (magnitude == 0) return;
  if (limit_ == 0) {
    // Only zeros so far, and they stay in the bin that starts at zero.
    limit_ = std::max(kLeastLimit, std::exp2(std::floor(std::log2(magnitude)) + 1));
    return;
  }
  while (magnitude >= limit_) {
    std::vector<uint64_t> folded(bins_.size());
    for (size_t i = 0; i < bins_.size(); ++i) folded[bins_.size() / 4 + i / 2] += bins_[i];
    bins_ = std::move(folded);
    limit_ *= 2;
  }
}

absl::Status ChannelMoments::Observe(ConstTensorView batch) {
  const Shape& shape = batch.shape();
  if (shape.elements() == 0) return absl::OkStatus();
  const int axis = axis_ < 0 ? shape.rank() + axis_ : axis_;
  const auto channels = static_cast<size_t>(shape[axis]);
  const int64_t inner = shape.elements(axis + 1, shape.rank());
  if (!sums_.empty() && sums_.size() != channels)
    return InvalidArgument("expected {} channels, got {}", sums_.size(), channels);
  sums_.resize(channels);
  squares_.resize(channels);
  const float* next = batch.as<float>();
  if (extremes_.empty()) {
    for (size_t c = 0; c < channels; ++c) {
      const float first = next[static_cast<int64_t>(c) * inner];
      extremes_.push_back({first, first});
    }
  }
  for (int64_t outer = shape.elements(0, axis); outer > 0; --outer) {
    for (size_t c = 0; c < channels; ++c) {
      double sum = 0;
      double squares = 0;
      Range& range = extremes_[c];
      for (int64_t i = 0; i < inner; ++i) {
        const float x = *next++;
        sum += x;
        squares += static_cast<double>(x) * x;
        range = {std::min(range.min, x), std::max(range.max, x)};
      }
      if (!std::isfinite(sum)) return InvalidArgument("NaN or infinity");
      sums_[c] += sum;
      squares_[c] += squares;
    }
  }
  count_ += shape.elements() / static_cast<int64_t>(channels);
  return absl::OkStatus();
}

absl::Status ChannelMoments::Add(int64_t count, std::span<const double> sums,
                                 std::span<const double> squares, std::span<const Range> extremes) {
  if (sums.empty()) return absl::OkStatus();
  if (sums_.empty()) {
    sums_.resize(sums.size());
    squares_.resize(sums.size());
    extremes_.assign(extremes.begin(), extremes.end());
  }
  if (sums.size() != sums_.size() || squares.size() != sums_.size() ||
      extremes.size() != extremes_.size())
    return InvalidArgument("expected {} channels, got {}", sums_.size(), sums.size());
  for (size_t c = 0; c < sums.size(); ++c) {
    sums_[c] += sums[c];
    squares_[c] += squares[c];
    extremes_[c] = {std::min(extremes_[c].min, extremes[c].min),
                    std::max(extremes_[c].max, extremes[c].max)};
  }
  count_ += count;
  return absl::OkStatus();
}

void ChannelMoments::Scale(std::span<const double> factors) {
  for (size_t c = 0; c < sums_.size(); ++c) {
    sums_[c] *= factors[c];
    squares_[c] *= factors[c] * factors[c];
    extremes_[c] = Times(extremes_[c], factors[c]);
  }
}

absl::Status ChannelHistograms::Observe(ConstTensorView batch) {
  const Shape& shape = batch.shape();
  if (shape.elements() == 0) return absl::OkStatus();
  const int axis = axis_ < 0 ? shape.rank() + axis_ : axis_;
  const int64_t channels = shape[axis];
  if (!channels_.empty() && std::ssize(channels_) != channels)
    return InvalidArgument("expected {} channels, got {}", channels_.size(), channels);
  channels_.resize(static_cast<size_t>(channels), Histogram(kBins));
  const int64_t inner = shape.elements(axis + 1, shape.rank());
  const std::span<const float> all = batch.span<float>();
  if (inner > 1) {
    for (size_t at = 0, c = 0; at < all.size(); at += static_cast<size_t>(inner), ++c)
      OCTET_RETURN_IF_ERROR(
          channels_[c % channels_.size()].Add(all.subspan(at, static_cast<size_t>(inner))));
    return absl::OkStatus();
  }
  std::vector<float> column(all.size() / channels_.size());
  for (size_t c = 0; c < channels_.size(); ++c) {
    for (size_t row = 0; row < column.size(); ++row) column[row] = all[row * channels_.size() + c];
    OCTET_RETURN_IF_ERROR(channels_[c].Add(column));
  }
  return absl::OkStatus();
}

absl::Status ChannelHistograms::Add(std::span<const Histogram> channels) {
  if (channels_.empty()) channels_.assign(channels.size(), Histogram(kBins));
  if (channels.size() != channels_.size())
    return InvalidArgument("expected {} channels, got {}", channels_.size(), channels.size());
  for (size_t c = 0; c < channels.size(); ++c) channels_[c].Merge(channels[c]);
  return absl::OkStatus();
}

Histogram ChannelHistograms::Scaled(std::span<const double> factors,
                                    const Histogram& unscaled) const {
  Histogram tensor;
  for (size_t c = 0; c < channels_.size(); ++c) tensor.AddScaled(channels_[c], factors[c]);
  tensor.AverageLike(unscaled);
  return tensor;
}

std::vector<double> ChannelMoments::PerElement(std::vector<double> sums) const {
  for (double& sum : sums) sum /= static_cast<double>(std::max<int64_t>(count_, 1));
  return sums;
}

}  // namespace octet
