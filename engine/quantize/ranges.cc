#include "engine/quantize/ranges.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/quantize/selection.h"
#include "engine/tensor/format.h"
#include "engine/tensor/quantize.h"

namespace octet {
namespace {

constexpr std::array<std::pair<RangeMethod, std::string_view>, 6> kMethodNames = {{
    {RangeMethod::kAuto, "auto"},
    {RangeMethod::kMinMax, "min-max"},
    {RangeMethod::kMovingAverage, "moving-average"},
    {RangeMethod::kPercentile, "percentile"},
    {RangeMethod::kMse, "mse"},
    {RangeMethod::kEntropy, "entropy"},
}};

constexpr std::array<std::pair<ActivationGrid, std::string_view>, 4> kGridNames = {{
    {{DType::kU8, false}, "u8"},
    {{DType::kU8, true}, "u8-symmetric"},
    {{DType::kI8, true}, "s8"},
    {{DType::kI8, false}, "s8-asymmetric"},
}};

// Per cent of elements inside the range, from the widest to the narrowest.
constexpr double kKeptByAuto[] = {100, 99.999, 99.995};

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

// The bins that are not empty: their centres, which stand for their elements, and how many these are.
using Occupied = std::vector<std::pair<float, double>>;

Occupied OccupiedBins(const Histogram& histogram) {
  Occupied occupied;
  for (int i = 0; i < Histogram::kBins; ++i) {
    const uint64_t count = histogram.bins()[static_cast<size_t>(i)];
    if (count > 0) occupied.emplace_back(histogram.bin_center(i), static_cast<double>(count));
  }
  return occupied;
}

double SquaredError(const Occupied& occupied, Range range, const ActivationGrid& grid) {
  const QuantParams params = ParamsFor(range, grid);
  double sum = 0;
  for (const auto& [x, count] : occupied) {
    const int32_t q = QuantizeOne(x, params.scales[0], params.zero_points[0], RangeOf(grid.dtype));
    const double off = static_cast<double>(params.scales[0]) * (q - params.zero_points[0]) - x;
    sum += count * off * off;
  }
  return sum;
}

// Of the distribution with what is clipped at its ends from the one that the levels can tell. Clipped is what rounds to no level.
double Divergence(const Occupied& occupied, Range range, const ActivationGrid& grid) {
  const QuantParams params = ParamsFor(range, grid);
  const double scale = params.scales[0];
  const IntRange levels = RangeOf(grid.dtype);
  const double low = scale * (levels.min - params.zero_points[0] - 0.5);
  const double high = scale * (levels.max - params.zero_points[0] + 0.5);
  struct Level {
    double inside = 0;
    double bins = 0;
  };
  std::vector<Level> of(static_cast<size_t>(levels.max - levels.min + 1));
  double inside = 0;
  double clipped_low = 0;
  double clipped_high = 0;
  std::vector<std::pair<Level*, double>> kept;  // The bins inside.
  for (const auto& [x, count] : occupied) {
    if (x < low || x > high) {
      (x < low ? clipped_low : clipped_high) += count;
      continue;
    }
    const int32_t q = QuantizeOne(x, params.scales[0], params.zero_points[0], levels);
    Level& level = of[static_cast<size_t>(q - levels.min)];
    level.inside += count;
    level.bins += 1;
    inside += count;
    kept.emplace_back(&level, count);
  }
  if (kept.empty()) return std::numeric_limits<double>::infinity();
  kept.front().second += clipped_low;
  kept.back().second += clipped_high;
  const double all = inside + clipped_low + clipped_high;
  double divergence = 0;
  for (const auto& [level, count] : kept) {
    const double p = count / all;
    divergence += p * std::log(p / (level->inside / level->bins / inside));
  }
  return divergence;
}

// The range of the least cost, of equals the widest; the whole one where no cost is a number.
template <typename Cost>
Range LeastCost(Range full, const Cost& cost) {
  constexpr int kSteps = 128;
  Range best = full;
  double least = std::numeric_limits<double>::infinity();
  for (int step = kSteps; step >= kSteps / 8; --step) {
    const Range range = Times(full, static_cast<double>(step) / kSteps);
    const double of_range = cost(range);
    if (!(of_range < least)) continue;
    least = of_range;
    best = range;
  }
  return best;
}

Range MseRange(const Histogram& histogram, const ActivationGrid& grid) {
  const Occupied occupied = OccupiedBins(histogram);
  return LeastCost(WithZero(histogram.extremes()),
                   [&](Range range) { return SquaredError(occupied, range, grid); });
}

Range EntropyRange(const Histogram& histogram, const ActivationGrid& grid) {
  Occupied occupied = OccupiedBins(histogram);
  // The bin that starts at zero.
  const auto zero = static_cast<float>(histogram.bin_center(Histogram::kBins / 2));
  std::erase_if(occupied, [&](const auto& bin) { return bin.first == zero; });
  return LeastCost(WithZero(histogram.extremes()),
                   [&](Range range) { return Divergence(occupied, range, grid); });
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

std::string_view ActivationGridName(const ActivationGrid& grid) {
  return std::ranges::find(kGridNames, grid, [](const auto& named) { return named.first; })->second;
}

std::optional<ActivationGrid> ParseActivationGrid(std::string_view name) {
  for (const auto& [grid, known] : kGridNames) {
    if (known == name) return grid;
  }
  return std::nullopt;
}

Range ChooseRange(const Histogram& histogram, const QuantizeRecipe& recipe) {
  switch (recipe.method) {
    case RangeMethod::kMovingAverage:
      return WithZero(histogram.moving().average());
    case RangeMethod::kPercentile:
      return PercentileRange(histogram, recipe.percentile);
    case RangeMethod::kMse:
      return MseRange(histogram, recipe.activation);
    case RangeMethod::kEntropy:
      return EntropyRange(histogram, recipe.activation);
    case RangeMethod::kAuto:
    case RangeMethod::kMinMax:
      break;
  }
  return WithZero(histogram.extremes());
}

Range FitGrid(const Histogram& histogram, Range range, const ActivationGrid& grid) {
  const Occupied occupied = OccupiedBins(histogram);
  // A bin's centre stands for its elements, so nothing below the square of its width means anything.
  const double least_error =
      static_cast<double>(histogram.count()) * histogram.bin_width() * histogram.bin_width();
  const auto error = [&](double factor) {
    return least_error + SquaredError(occupied, Times(range, factor), grid);
  };
  constexpr double kFinerAtLeast = 0.8;
  double best = 1;
  double least = kFinerAtLeast * error(best);
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

QuantParams ParamsFor(Range range, const ActivationGrid& grid) {
  const int32_t low = RangeOf(grid.dtype).min;
  const int32_t middle = low + 128;
  const float reach = std::max(-range.min, range.max);
  const float width = grid.symmetric ? reach : range.max - range.min;
  if (!(width > 0)) return QuantParams::PerTensor(1.0f, grid.symmetric ? middle : low);
  // Half of a width is a float, the whole of it may be beyond the largest.
  const float half = grid.symmetric ? reach / 2 : range.max / 2 - range.min / 2;
  const float scale =
      std::max(half / (grid.symmetric ? 63.5F : 127.5F), std::numeric_limits<float>::min());
  if (grid.symmetric) return QuantParams::PerTensor(scale, middle);
  const auto below = static_cast<int32_t>(std::nearbyint(-range.min / scale));
  return QuantParams::PerTensor(scale, low + std::clamp(below, 0, 255));
}

std::vector<QuantizeRecipe> RangeCandidates(const QuantizeRecipe& recipe) {
  if (recipe.method != RangeMethod::kAuto) return {recipe};
  std::vector<QuantizeRecipe> candidates;
  const auto add = [&](RangeMethod method) -> QuantizeRecipe& {
    candidates.push_back(recipe);
    candidates.back().method = method;
    return candidates.back();
  };
  for (const double kept : kKeptByAuto) {
    if (kept < 100) {
      add(RangeMethod::kPercentile).percentile = kept;
    } else {
      add(RangeMethod::kMinMax);
    }
  }
  return candidates;
}

std::string RangesName(const QuantizeRecipe& candidate) {
  if (candidate.method != RangeMethod::kPercentile)
    return std::string(RangeMethodName(candidate.method));
  return Format("percentile {}", candidate.percentile);
}

RangeTable RangesOf(const Graph& graph, const QuantizeRecipe& recipe,
                    const std::map<ValueId, Histogram>& histograms) {
  RangeTable table;
  for (const auto& [id, histogram] : histograms) {
    Range range = ChooseRange(histogram, recipe);
    if (IsOfInput(graph, id)) range = FitGrid(histogram, range, recipe.activation);
    table.emplace(id, TensorRange{range, RangesName(recipe)});
  }
  return table;
}

}  // namespace octet
