#include "engine/quantize/channel_factors.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <numbers>
#include <set>
#include <span>
#include <tuple>
#include <utility>

#include "engine/quantize/weights.h"

namespace octet {
namespace {

using Factors = std::vector<double>;  ///< By class of channels; reaches of values behind them.

constexpr int kMostSteps = 300;
constexpr int kFewestSteps = 60;
// Of pairs of channels, over all steps: some 6 ns each.
constexpr size_t kMostVisits = size_t{4'000'000} * kMostSteps;
// Of logarithms, at the first step; falls to 0 along half a cosine.
constexpr double kRate = 0.05;
constexpr double kMomentum = 0.9;
constexpr double kSquares = 0.99;
// Slopes of the noise's logarithm that are smaller than this move nothing.
constexpr double kEpsilon = 1e-5;
// And what is steeper counts as this: a range that cuts too much would keep all later steps small.
constexpr double kSteepest = 1;
// A channel without elements would go to any length.
constexpr double kMostFactor = 64;
constexpr double kClipMargin = 2;
// What CompensateRounding leaves of the weights' noise, about.
constexpr double kCompensated = 0.5;
// The mean square of what rounding to steps of 1 is off.
constexpr double kOfStep = 1.0 / 12;

// The largest of x >= 0 or, where shares are asked for, a smooth bound of it, (sum x^16)^(1/16), and how its logarithm follows that of
// each x.
double Largest(std::span<const double> x, std::vector<double>* shares) {
  const double most = x.empty() ? 0 : std::ranges::max(x);
  if (shares == nullptr) return most;
  shares->assign(x.size(), 0);
  if (!(most > 0)) return most;
  double sum = 0;
  const double of_most = 1 / most;
  for (size_t i = 0; i < x.size(); ++i) {
    double power = x[i] * of_most;
    for (int doubled = 1; doubled < 16; doubled *= 2) power *= power;
    (*shares)[i] = power;
    sum += power;
  }
  const double of_sum = 1 / sum;
  for (double& share : *shares) share *= of_sum;
  return most * std::pow(sum, 1.0 / 16);
}

// What is left of a channel's elements beyond an end of its grid: mean of max(0, x - end)^2, x > 0, over those that are not 0, as gains are.
class Tail {
 public:
  // Of a side of the histogram: 1 above 0, -1 below.
  Tail(const Histogram& histogram, int side) {
    const double most = side > 0 ? histogram.extremes().max : -histogram.extremes().min;
    const auto bins = static_cast<int>(histogram.bins().size());
    const uint64_t zeros = histogram.bins()[static_cast<size_t>(bins) / 2];
    const auto all = static_cast<double>(std::max<uint64_t>(1, histogram.count() - zeros));
    double count = 0;
    double sum = 0;
    double squares = 0;
    for (int i = 0; i < bins / 2; ++i) {
      const int bin = side > 0 ? bins - 1 - i : i;
      const auto of_bin = static_cast<double>(histogram.bins()[static_cast<size_t>(bin)]);
      if (of_bin == 0 || !(most > 0)) continue;
      const double x = std::min(side * histogram.bin_center(bin), most);
      count += of_bin;
      sum += of_bin * x;
      squares += of_bin * x * x;
      sums_.push_back({x, count / all, sum / all, squares / all});
    }
  }

  double reach() const { return sums_.empty() ? 0 : sums_.front().from; }

  /// And how it changes with the logarithm of `end`.
  struct Cut {
    double error = 0;
    double slope = 0;
  };
  Cut Beyond(double end) const {
    const auto behind =
        std::ranges::partition_point(sums_, [end](const Sums& sums) { return sums.from > end; });
    if (behind == sums_.begin()) return {};
    const Sums& of = *std::prev(behind);
    return {of.squares - 2 * end * of.sum + end * end * of.count,
            -2 * end * (of.sum - end * of.count)};
  }

 private:
  // Over the elements from `from` on, as shares of all.
  struct Sums {
    double from;
    double count;
    double sum;
    double squares;
  };
  std::vector<Sums> sums_;  ///< From the largest element on.
};

// A value that is rounded to one grid, whose reach is a variable as the factors are.
class ValueNoise {
 public:
  // `reach`: the place of the variable.
  ValueNoise(const ChannelLinks& links, ValueId id, std::span<const Histogram> channels,
             std::span<const double> gains, bool symmetric, size_t reach)
      : gains_(gains.begin(), gains.end()), symmetric_(symmetric), reach_(reach) {
    for (size_t c = 0; c < channels.size(); ++c) {
      classes_.push_back(static_cast<size_t>(links.ClassOf(id, c)));
      low_.emplace_back(channels[c], -1);
      high_.emplace_back(channels[c], 1);
    }
  }

  size_t reach() const { return reach_; }

  // What the channels reach, all of it.
  double Whole(const Factors& t) const { return Reached(low_, t) + Reached(high_, t); }

  // Adds the slopes by the variables' logarithms, where they are asked for.
  double Noise(const Factors& t, Factors* slopes) const {
    constexpr double kGridSteps = 255;
    const double low = Reached(low_, t);
    const double whole = low + Reached(high_, t);
    if (!(whole > 0)) return 0;
    const double below = symmetric_ ? 0.5 : low / whole;
    const double width = t[reach_] * (symmetric_ ? 2 : 1);
    const double step = width / kGridSteps;
    double sum = 0;
    for (size_t c = 0; c < classes_.size(); ++c) {
      const double factor = t[classes_[c]];
      const double rounding = kOfStep * step * step / (factor * factor);
      const Tail::Cut under = low_[c].Beyond(below * width / factor);
      const Tail::Cut over = high_[c].Beyond((1 - below) * width / factor);
      sum += gains_[c] * (rounding + under.error + over.error);
      if (slopes == nullptr) continue;
      const double slope = gains_[c] * (2 * rounding + under.slope + over.slope);
      (*slopes)[classes_[c]] -= slope;
      (*slopes)[reach_] += slope;
    }
    return sum;
  }

 private:
  double Reached(const std::vector<Tail>& tails, const Factors& t) const {
    double reached = 0;
    for (size_t c = 0; c < tails.size(); ++c)
      reached = std::max(reached, tails[c].reach() * t[classes_[c]]);
    return reached;
  }

  std::vector<size_t> classes_;
  std::vector<Tail> low_;
  std::vector<Tail> high_;
  std::vector<double> gains_;
  bool symmetric_;
  size_t reach_;
};

// The weights of a node, those between two channels as one: rounded to a grid per output channel.
class WeightNoise {
 public:
  // Of one output channel, by input channel: places of factors, whose last one is 1 and stays.
  struct Grid {
    size_t out;
    std::vector<uint32_t> in;
    std::vector<float> reach;
    std::vector<double> gain;
  };

  WeightNoise(std::vector<Grid> grids, double left) : grids_(std::move(grids)), left_(left) {}

  // `inverse`: of each factor.
  double Noise(const Factors& t, const Factors& inverse, Factors* slopes) const {
    double sum = 0;
    for (const Grid& grid : grids_) sum += NoiseOf(grid, t, inverse, slopes);
    return sum;
  }

 private:
  // Every weight of a model passes here at every step: no division, nor a branch.
  double NoiseOf(const Grid& grid, const Factors& t, const Factors& inverse,
                 Factors* slopes) const {
    const size_t count = grid.in.size();
    scaled_.resize(count);
    own_.resize(count);
    const double out = t[grid.out];
    double gain = 0;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t in = grid.in[i];
      scaled_[i] = grid.reach[i] * out * inverse[in];
      own_[i] = grid.gain[i] * t[in] * t[in];
      gain += own_[i];
    }
    const double per_gain = inverse[grid.out] * inverse[grid.out];
    const double step = Largest(scaled_, slopes != nullptr ? &shares_ : nullptr) / kByteLimit;
    const double of_gain = left_ * kOfStep * step * step * per_gain;
    if (slopes == nullptr) return of_gain * gain;
    double all = 0;
    for (size_t i = 0; i < count; ++i) {
      const double slope = 2 * of_gain * (shares_[i] * gain - own_[i]);
      all += slope;
      (*slopes)[grid.in[i]] -= slope;
    }
    (*slopes)[grid.out] += all;
    return of_gain * gain;
  }

  std::vector<Grid> grids_;
  double left_;  ///< Of the noise of plain rounding.
  mutable std::vector<double> scaled_;
  mutable std::vector<double> own_;
  mutable std::vector<double> shares_;
};

class FactorSearch {
 public:
  FactorSearch(const Graph& graph, const QuantizeRecipe& recipe, const Statistics& statistics,
               const ChannelLinks& links, const std::vector<ChannelComponent>& components,
               const OutputGains& gains)
      : graph_(graph), recipe_(recipe), statistics_(statistics), links_(links) {
    for (const ChannelComponent& component : components) {
      for (const ValueId id : component.values) AddValue(id, gains);
    }
    for (const WeightedNode& weighted : statistics.selection.weighted) {
      const auto found = gains.weights.find(graph.value(graph.node(weighted.node).outputs[0]).name);
      if (found != gains.weights.end()) AddWeights(weighted, found->second);
    }
  }

  double Run(Factors& factors) {
    Factors t = factors;
    t.resize(FixedPlace());
    t.push_back(1);
    for (const ValueNoise& value : values_) {
      t[value.reach()] = value.Whole(t);
      free_.insert(value.reach());
    }
    const double before = Noise(t, nullptr);
    if (!(before > 0)) return 1;
    Factors slopes(t.size());
    Factors momentum(t.size());
    Factors squares(t.size());
    const int steps = SearchSteps(pairs_);
    for (int step = 1; step <= steps; ++step) {
      std::ranges::fill(slopes, 0);
      const double noise = Noise(t, &slopes);
      const double rate = kRate * (1 + std::cos(std::numbers::pi * step / steps)) / 2;
      for (const size_t of : free_) {
        const double slope = std::clamp(slopes[of] / noise, -kSteepest, kSteepest);
        momentum[of] += (1 - kMomentum) * (slope - momentum[of]);
        squares[of] += (1 - kSquares) * (slope * slope - squares[of]);
        const double direction = momentum[of] / (1 - std::pow(kMomentum, step));
        const double size = std::sqrt(squares[of] / (1 - std::pow(kSquares, step)));
        t[of] *= std::exp(-rate * direction / (size + kEpsilon));
      }
      Bound(factors, t);
    }
    const double after = Noise(t, nullptr);
    if (!(after < before)) return 1;
    t.resize(factors.size());
    factors = std::move(t);
    return after / before;
  }

 private:
  // Behind the factors of classes and the reaches of values.
  size_t FixedPlace() const { return static_cast<size_t>(links_.classes()) + values_.size(); }

  double Noise(const Factors& t, Factors* slopes) {
    inverse_.clear();
    for (const double factor : t) inverse_.push_back(1 / factor);
    double sum = 0;
    for (const ValueNoise& value : values_) sum += value.Noise(t, slopes);
    for (const WeightNoise& weights : weights_) sum += weights.Noise(t, inverse_, slopes);
    return sum;
  }

  // What takes another value's range is on its grid already.
  void AddValue(ValueId id, const OutputGains& gains) {
    const auto moments = statistics_.channels.find(id);
    if (moments == statistics_.channels.end()) return;
    const std::vector<Range>& extremes = moments->second.extremes();
    for (size_t c = 0; c < extremes.size(); ++c)
      free_.insert(static_cast<size_t>(links_.ClassOf(id, c)));
    if (const auto clip = links_.UpperClip(id)) {
      for (size_t c = 0; c < extremes.size(); ++c) {
        const double reach = kClipMargin * Reach(extremes[c]);
        clipped_.emplace_back(static_cast<size_t>(links_.ClassOf(id, c)),
                              reach > 0 ? std::max(1.0, *clip / reach) : 1.0);
      }
    }
    const bool rounded = std::ranges::contains(statistics_.selection.quantized, id) &&
                         !statistics_.selection.range_from.contains(id);
    const auto found = gains.values.find(graph_.value(id).name);
    if (!rounded || found == gains.values.end()) return;
    const std::vector<double>& own =
        links_.AxisOf(id) == 1 ? found->second.axis_1 : found->second.last_axis;
    const auto& channels = statistics_.channel_histograms.at(id).channels();
    if (own.size() == channels.size()) {
      values_.emplace_back(links_, id, channels, own, recipe_.activation.symmetric,
                           static_cast<size_t>(links_.classes()) + values_.size());
    }
  }

  size_t PlaceOf(ValueId id, size_t channel) const {
    const int of = links_.ClassOf(id, channel);
    return of == kNone ? FixedPlace() : static_cast<size_t>(of);
  }

  // Requires: all values have been added.
  void AddWeights(const WeightedNode& weighted, const std::vector<double>& gains) {
    const Node& node = graph_.node(weighted.node);
    const ValueId x = node.inputs[0];
    const ValueId y = node.outputs[0];
    if (links_.ChannelsOf(x) == 0) return;
    const Tensor& weights = graph_.value(node.inputs[1]).constant;
    const WeightIndex index(weights.shape(), LayoutOf(graph_, weighted));
    struct Place {
      size_t out;
      size_t in;
      size_t at;
    };
    std::vector<Place> places;
    for (int64_t i = 0; i < weights.elements(); ++i) {
      const auto [out, in] = index(i);
      places.push_back({out, in, static_cast<size_t>(i)});
    }
    std::ranges::stable_sort(places, {}, [](const Place& p) { return std::tuple(p.out, p.in); });
    std::vector<WeightNoise::Grid> grids;
    const Place* last = nullptr;
    for (const Place& place : places) {
      const bool row = last == nullptr || place.out != last->out;
      if (row) grids.push_back({PlaceOf(y, place.out), {}, {}, {}});
      WeightNoise::Grid& grid = grids.back();
      if (row || place.in != last->in) {
        ++pairs_;
        grid.in.push_back(static_cast<uint32_t>(PlaceOf(x, place.in)));
        grid.reach.push_back(0);
        grid.gain.push_back(0);
      }
      const float magnitude = std::abs(weights.span<float>()[place.at]);
      grid.reach.back() = std::max(grid.reach.back(), magnitude);
      grid.gain.back() += gains[place.at];
      last = &place;
    }
    weights_.emplace_back(std::move(grids), recipe_.compensate ? kCompensated : 1.0);
  }

  void Bound(const Factors& first, Factors& t) const {
    for (size_t of = 0; of < first.size(); ++of)
      t[of] = std::clamp(t[of], first[of] / kMostFactor, first[of] * kMostFactor);
    for (const auto& [of, most] : clipped_) t[of] = std::clamp(t[of], 1.0, most);
  }

  const Graph& graph_;
  const QuantizeRecipe& recipe_;
  const Statistics& statistics_;
  const ChannelLinks& links_;
  std::vector<ValueNoise> values_;
  std::vector<WeightNoise> weights_;
  size_t pairs_ = 0;                                ///< Of channels that weights lie between.
  Factors inverse_;                                 ///< Of the factors whose noise is asked for.
  std::set<size_t> free_;                           ///< Classes of channels.
  std::vector<std::pair<size_t, double>> clipped_;  ///< Classes, and their largest factors.
};

}  // namespace

int SearchSteps(size_t pairs) {
  const size_t most = kMostVisits / std::max<size_t>(pairs, 1);
  return static_cast<int>(std::clamp<size_t>(most, kFewestSteps, kMostSteps));
}

double MinimizeOutputNoise(const Graph& graph, const QuantizeRecipe& recipe,
                           const Statistics& statistics, const ChannelLinks& links,
                           const std::vector<ChannelComponent>& components,
                           const OutputGains& gains, Factors& factors) {
  return FactorSearch(graph, recipe, statistics, links, components, gains).Run(factors);
}

}  // namespace octet
