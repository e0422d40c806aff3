#include "engine/quantize/calibration.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::array<std::pair<RangeMethod, std::string_view>, 3> kMethodNames = {{
    {RangeMethod::kAuto, "auto"},
    {RangeMethod::kMinMax, "min-max"},
    {RangeMethod::kPercentile, "percentile"},
}};

Range WithZero(Range range) { return {std::min(range.min, 0.0f), std::max(range.max, 0.0f)}; }

// Narrows the extremes until `keep` per cent of the mass is inside, cutting from whichever tail reaches further
// from zero, so that a one-sided distribution is cut on its own side.
Range PercentileRange(const Histogram& histogram, double keep) {
  const Range full = WithZero(histogram.extremes());
  const auto cut =
      static_cast<uint64_t>(std::floor((1 - keep / 100) * static_cast<double>(histogram.count())));
  const auto bins = histogram.bins();
  int low = 0;
  int high = Histogram::kBins - 1;
  for (uint64_t outside = 0; low < high;) {
    const bool cut_low = -histogram.bin_center(low) > histogram.bin_center(high);
    outside += bins[cut_low ? low : high];
    if (outside > cut) break;
    cut_low ? ++low : --high;
  }
  const double half = histogram.bin_width() / 2;
  return {
      std::max(full.min, std::min(0.0f, static_cast<float>(histogram.bin_center(low) - half))),
      std::min(full.max, std::max(0.0f, static_cast<float>(histogram.bin_center(high) + half)))};
}

Range Times(Range range, double factor) {
  return {static_cast<float>(range.min * factor), static_cast<float>(range.max * factor)};
}

}  // namespace

std::string_view RangeMethodName(RangeMethod method) {
  for (const auto& [value, name] : kMethodNames) {
    if (value == method) return name;
  }
  return "";
}

std::optional<RangeMethod> ParseRangeMethod(std::string_view name) {
  for (const auto& [value, known] : kMethodNames) {
    if (known == name) return value;
  }
  return std::nullopt;
}

absl::Status Histogram::Add(std::span<const float> values) {
  if (values.empty()) return absl::OkStatus();
  const MinMax found =
      FindMinMax({values.data(), {DType::kF32, Shape{static_cast<int64_t>(values.size())}}});
  if (!found.finite) return InvalidArgument("NaN or infinity");
  extremes_ = count_ == 0
                  ? Range{found.min, found.max}
                  : Range{std::min(extremes_.min, found.min), std::max(extremes_.max, found.max)};
  count_ += values.size();
  GrowTo(std::max(std::abs(found.min), std::abs(found.max)));
  if (limit_ == 0) {
    bins_[kBins / 2] += values.size();
    return absl::OkStatus();
  }
  const float per_unit = static_cast<float>(kBins / (2 * limit_));
  for (const float value : values) {
    // The largest float below the limit may round up to kBins.
    const int bin = static_cast<int>(value * per_unit + kBins / 2.0f);
    ++bins_[std::min(bin, kBins - 1)];
  }
  return absl::OkStatus();
}

void Histogram::Merge(const Histogram& other) {
  if (other.count_ == 0) return;
  extremes_ = count_ == 0 ? other.extremes_
                          : Range{std::min(extremes_.min, other.extremes_.min),
                                  std::max(extremes_.max, other.extremes_.max)};
  count_ += other.count_;
  Histogram aligned = other;
  aligned.GrowTo(std::max(limit_, other.limit_) / 2);
  GrowTo(std::max(limit_, other.limit_) / 2);
  for (int i = 0; i < kBins; ++i) bins_[i] += aligned.bins_[i];
}

// Keeps |magnitude| < limit. Every doubling folds two bins into one, towards the centre.
void Histogram::GrowTo(double magnitude) {
  if (magnitude == 0) return;
  if (limit_ == 0) {
    // Only zeros so far, and they stay in the bin that starts at zero.
    limit_ = std::exp2(std::floor(std::log2(magnitude)) + 1);
    return;
  }
  while (magnitude >= limit_) {
    std::vector<uint64_t> folded(kBins);
    for (int i = 0; i < kBins; ++i) folded[kBins / 4 + i / 2] += bins_[i];
    bins_ = std::move(folded);
    limit_ *= 2;
  }
}

absl::Status ChannelMoments::Observe(ConstTensorView batch) {
  const Shape& shape = batch.shape();
  const auto channels = static_cast<size_t>(shape[axis_]);
  const int64_t inner = shape.elements(axis_ + 1, shape.rank());
  if (batch.shape().elements() == 0) return absl::OkStatus();
  sums_.resize(channels);
  squares_.resize(channels);
  const float* next = batch.as<float>();
  if (extremes_.empty()) {
    for (size_t c = 0; c < channels; ++c) {
      const float first = next[static_cast<int64_t>(c) * inner];
      extremes_.push_back({first, first});
    }
  }
  for (int64_t outer = shape.elements(0, axis_); outer > 0; --outer) {
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

std::vector<double> ChannelMoments::PerElement(std::vector<double> sums) const {
  for (double& sum : sums) sum /= static_cast<double>(std::max<int64_t>(count_, 1));
  return sums;
}

Range ChooseRange(const Histogram& histogram, const QuantizeRecipe& recipe) {
  return recipe.method == RangeMethod::kPercentile ? PercentileRange(histogram, recipe.percentile)
                                                   : WithZero(histogram.extremes());
}

Range FitGrid(const Histogram& histogram, Range range, DType dtype) {
  std::vector<std::pair<float, double>> occupied;
  for (int i = 0; i < Histogram::kBins; ++i) {
    const uint64_t count = histogram.bins()[static_cast<size_t>(i)];
    if (count > 0) occupied.emplace_back(histogram.bin_center(i), static_cast<double>(count));
  }
  const auto error = [&](double factor) {
    const QuantParams params = ParamsFor(Times(range, factor), dtype);
    // A bin's centre stands for its elements, so nothing below the square of its width means anything.
    double sum =
        static_cast<double>(histogram.count()) * histogram.bin_width() * histogram.bin_width();
    for (const auto& [x, count] : occupied) {
      const int32_t q = QuantizeOne(x, params.scales[0], params.zero_points[0], RangeOf(dtype));
      const double off = static_cast<double>(params.scales[0]) * (q - params.zero_points[0]) - x;
      sum += count * off * off;
    }
    return sum;
  };
  constexpr double kWorthIt = 0.8;
  double best = 1;
  double least = kWorthIt * error(best);
  const auto search = [&](double from, double to, double step) {
    for (double factor = std::max(from, 1.0); factor <= to; factor += step) {
      const double sum = error(factor);
      if (!(sum < least)) continue;
      least = sum;
      best = factor;
    }
  };
  constexpr double kCoarse = 1.0 / 2048;
  search(1, 2, kCoarse);
  search(best - kCoarse, best + kCoarse, kCoarse / 32);
  return Times(range, best);
}

QuantParams ParamsFor(Range range, DType dtype) {
  if (dtype == DType::kI8) {
    const float reach = std::max(-range.min, range.max);
    return QuantParams::PerTensor(
        reach > 0 ? std::max(reach / 127, std::numeric_limits<float>::min()) : 1.0f, 0);
  }
  const float width = range.max - range.min;
  if (!(width > 0)) return QuantParams::PerTensor(1.0f, 0);
  const float scale = std::max(width / 255, std::numeric_limits<float>::min());
  const auto zero_point = static_cast<int32_t>(std::nearbyint(-range.min / scale));
  return QuantParams::PerTensor(scale, std::clamp(zero_point, 0, 255));
}

}  // namespace octet
