#include "engine/quantize/equalize.h"

#include <algorithm>
#include <cmath>

#include "engine/quantize/channel_factors.h"
#include "engine/quantize/channel_links.h"
#include "engine/quantize/ranges.h"
#include "engine/quantize/weights.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// Samples that nobody has seen reach further: a channel counts as reaching this much further than it did,
constexpr double kMargin = 2;
// and at least this share of its tensor.
constexpr double kLeastReach = 1.0 / 64;
constexpr double kAlphas[] = {0.25, 0.5};
// Of what a constant scales: a normalization's channels keep their places, however far apart they reach.
constexpr double kSmoothAlphas[] = {0.5, 0.65, 0.8, 0.95};
// Of the largest: what reaches less counts as reaching this far.
constexpr double kLeastShare = 1e-5;

using Factors = std::vector<double>;  ///< By class of channels.

class Equalizer {
 public:
  Equalizer(Graph& graph, const QuantizeRecipe& recipe, const Statistics& statistics)
      : graph_(graph),
        recipe_(recipe),
        statistics_(statistics),
        links_(graph),
        factors_(static_cast<size_t>(links_.classes()), 1.0) {}

  std::vector<QuantizeRecord> Run(const OutputGains* gains) {
    std::vector<QuantizeRecord> records;
    std::vector<ChannelComponent> scaled;
    for (const ChannelComponent& component : links_.components()) {
      if (component.scaled_by_constants && !recipe_.smooth) continue;
      scaled.push_back(component);
      // The reaches of one stage say nothing of the next one's: one alpha for all three stages of resnet20 left more noise than none.
      if (component.joins_stages) continue;
      const Choice choice = Choose(component);
      if (choice.alpha == 0) continue;
      records.push_back({graph_.value(component.values[0]).name, "equalized",
                         Format("{} activations, {}alpha {}", component.values.size(),
                                choice.smooth ? "into the weights, " : "", choice.alpha)});
    }
    if (gains != nullptr) {
      const double left =
          MinimizeOutputNoise(graph_, recipe_, statistics_, links_, scaled, *gains, factors_);
      if (left < 1)
        records.push_back(
            {"factors of all channels", "equalized",
             Format("for the outputs, whose estimated noise falls to {:.3g} of what it was",
                    left)});
    }
    for (const ChannelComponent& component : links_.components()) {
      for (const ChannelConstant& constant : component.constants) Apply(constant);
    }
    for (const NodeId id : graph_.OrderSnapshot()) {
      if (const auto weighted = AsWeighted(graph_, id)) Apply(*weighted);
    }
    return records;
  }

  /// After Run.
  void Scale(Statistics& statistics) const {
    for (const auto& [id, channels] : statistics.channel_histograms) {
      if (!Changed(id)) continue;
      Histogram& whole = statistics.histograms.at(id);
      whole = channels.Scaled(FactorsOf(id, channels.channels().size()), whole);
    }
    for (auto& [id, moments] : statistics.moments) {
      const ValueId x = graph_.node(id).inputs[0];
      if (!Changed(x)) continue;
      const Factors factors = FactorsOf(x, moments.sums().size());
      moments.Scale(factors);
      const auto patches = statistics.patches.find(id);
      if (patches != statistics.patches.end()) patches->second.Scale(factors);
    }
    statistics.channels.clear();
    statistics.channel_histograms.clear();
  }

 private:
  Factors FactorsOf(ValueId id, size_t channels) const {
    Factors factors;
    for (size_t c = 0; c < channels; ++c) factors.push_back(FactorOf(id, c));
    return factors;
  }

  struct Choice {
    double alpha = 0;  ///< 0: factors of 1.
    bool smooth = false;
  };

  Choice Choose(const ChannelComponent& component) {
    const Factors unscaled = factors_;
    Factors best = unscaled;
    Choice chosen;
    double least = Noise(component, unscaled);
    const auto consider = [&](Factors candidate, Choice choice) {
      const double noise = Noise(component, candidate);
      if (!(noise < least)) return;
      least = noise;
      best = std::move(candidate);
      chosen = choice;
    };
    for (const double alpha : kAlphas) consider(Scaled(component, alpha), {alpha, false});
    if (component.scaled_by_constants) {
      for (const double alpha : kSmoothAlphas) consider(Smoothed(component, alpha), {alpha, true});
    }
    factors_ = best;
    return chosen;
  }

  // How far the weights that read a class of channels reach, as shares of the widest.
  Factors WeightReaches(const ChannelComponent& component) const {
    Factors reaches(factors_.size());
    for (const WeightedNode& reader : component.readers) {
      const Node& node = graph_.node(reader.node);
      const ValueId x = node.inputs[0];
      const Tensor& weights = graph_.value(node.inputs[1]).constant;
      const WeightIndex index(weights.shape(), LayoutOf(graph_, reader));
      for (int64_t i = 0; i < weights.elements(); ++i) {
        double& reach = reaches[static_cast<size_t>(links_.ClassOf(x, index(i).in))];
        reach = std::max(reach, std::abs(double{weights.span<float>()[static_cast<size_t>(i)]}));
      }
    }
    return AsShares(std::move(reaches));
  }

  Factors ActivationReaches(const ChannelComponent& component) const {
    Factors reaches(factors_.size());
    for (const ValueId id : component.values) {
      const std::vector<double> of_value = Reaches(id);
      for (size_t c = 0; c < of_value.size(); ++c) {
        double& reach = reaches[static_cast<size_t>(links_.ClassOf(id, c))];
        reach = std::max(reach, of_value[c]);
      }
    }
    reaches = AsShares(std::move(reaches));
    for (double& reach : reaches) reach = std::clamp(kMargin * reach, kLeastReach, 1.0);
    return reaches;
  }

  static Factors AsShares(Factors reaches) {
    const double widest = reaches.empty() ? 0 : std::ranges::max(reaches);
    for (double& reach : reaches) reach = widest > 0 ? std::max(reach / widest, kLeastShare) : 1.0;
    return reaches;
  }

  Factors Smoothed(const ChannelComponent& component, double alpha) const {
    const Factors activations = ActivationReaches(component);
    const Factors weights = WeightReaches(component);
    Factors smoothed = factors_;
    for (const ValueId id : component.values) {
      for (int64_t c = 0; c < links_.ChannelsOf(id); ++c) {
        const auto of = static_cast<size_t>(links_.ClassOf(id, static_cast<size_t>(c)));
        smoothed[of] = std::pow(weights[of], 1 - alpha) / std::pow(activations[of], alpha);
      }
    }
    for (const ValueId id : component.values) KeepInsideClip(id, smoothed);
    return smoothed;
  }

  // The geometric mean over the tensors that hold the channel.
  Factors Scaled(const ChannelComponent& component, double alpha) const {
    Factors logs(factors_.size());
    std::vector<int> tensors(factors_.size());
    for (const ValueId id : component.values) {
      const std::vector<double> reach = Reaches(id);
      if (reach.empty()) continue;
      const double widest = std::ranges::max(reach);
      for (size_t c = 0; c < reach.size() && widest > 0; ++c) {
        const auto of = static_cast<size_t>(links_.ClassOf(id, c));
        logs[of] -= std::log(std::clamp(kMargin * reach[c] / widest, kLeastReach, 1.0));
        ++tensors[of];
      }
    }
    Factors scaled = factors_;
    for (size_t i = 0; i < scaled.size(); ++i) {
      if (tensors[i] > 0) scaled[i] = std::exp(alpha * logs[i] / tensors[i]);
    }
    for (const ValueId id : component.values) KeepInsideClip(id, scaled);
    return scaled;
  }

  void KeepInsideClip(ValueId id, Factors& factors) const {
    const auto clip = links_.UpperClip(id);
    if (!clip) return;
    const std::vector<double> reach = Reaches(id);
    for (size_t c = 0; c < reach.size(); ++c) {
      double& factor = factors[static_cast<size_t>(links_.ClassOf(id, c))];
      // Below 1 it would let through what the Clip cuts.
      const double most = reach[c] > 0 ? std::max(1.0, *clip / (kMargin * reach[c])) : 1.0;
      factor = std::clamp(factor, 1.0, most);
    }
  }

  std::vector<double> Reaches(ValueId id) const {
    std::vector<double> reaches;
    const auto found = statistics_.channels.find(id);
    if (found == statistics_.channels.end()) return reaches;
    for (const Range& range : found->second.extremes()) reaches.push_back(Reach(range));
    return reaches;
  }

  // Estimated noise over signal in what the component's readers compute, summed over the readers.
  double Noise(const ChannelComponent& component, const Factors& factors) const {
    double sum = 0;
    for (const WeightedNode& reader : component.readers) sum += NoiseOf(reader, factors);
    return sum;
  }

  double NoiseOf(const WeightedNode& reader, const Factors& factors) const {
    const Node& node = graph_.node(reader.node);
    const ValueId x = node.inputs[0];
    const ChannelMoments& moments = statistics_.channels.at(x);
    const std::vector<double> squares = moments.mean_squares();
    std::vector<double> t(squares.size());
    Range range;
    for (size_t c = 0; c < t.size(); ++c) {
      t[c] = factors[static_cast<size_t>(links_.ClassOf(x, c))];
      range.min = std::min(range.min, static_cast<float>(moments.extremes()[c].min * t[c]));
      range.max = std::max(range.max, static_cast<float>(moments.extremes()[c].max * t[c]));
    }
    const double step = ParamsFor(range, recipe_.activation).scales[0];
    const Tensor& weights = graph_.value(node.inputs[1]).constant;
    const WeightIndex index(weights.shape(), LayoutOf(graph_, reader));
    Tensor scaled(DType::kF32, weights.shape());
    for (int64_t i = 0; i < weights.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      scaled.mutable_span<float>()[at] =
          static_cast<float>(weights.span<float>()[at] / t[index(i).in]);
    }
    const QuantizedWeights rounded =
        QuantizeWeights(scaled, reader.weight_axis, recipe_.per_channel);
    double signal = 0;
    double noise = 0;
    for (int64_t i = 0; i < weights.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      const auto [out, in] = index(i);
      const double w = scaled.span<float>()[at];
      const double scale = rounded.params.scales[out % rounded.params.scales.size()];
      const double off = rounded.values.span<int8_t>()[at] * scale - w;
      const double power = squares[in] * t[in] * t[in];
      signal += w * w * power;
      noise += off * off * power + w * w * step * step / 12;
    }
    return signal > 0 ? noise / signal : 0;
  }

  double FactorOf(ValueId id, size_t channel) const {
    const int at = links_.ClassOf(id, channel);
    return at == kNone ? 1.0 : factors_[static_cast<size_t>(at)];
  }

  bool Changed(ValueId id) const {
    for (int64_t c = 0; c < links_.ChannelsOf(id); ++c) {
      if (FactorOf(id, static_cast<size_t>(c)) != 1.0) return true;
    }
    return false;
  }

  void Apply(const WeightedNode& weighted) {
    const Node& node = graph_.node(weighted.node);
    const ValueId x = node.inputs[0];
    const ValueId y = node.outputs[0];
    const Tensor weights = graph_.value(node.inputs[1]).constant;
    if (!Changed(x) && !Changed(y)) return;
    const WeightIndex index(weights.shape(), LayoutOf(graph_, weighted));
    Tensor scaled(DType::kF32, weights.shape());
    for (int64_t i = 0; i < weights.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      const auto [out, in] = index(i);
      scaled.mutable_span<float>()[at] =
          static_cast<float>(weights.span<float>()[at] * FactorOf(y, out) / FactorOf(x, in));
    }
    Replace(weighted.node, 1, std::move(scaled));
    if (weighted.bias != kNone) Apply(ChannelConstant{weighted.node, 2});
  }

  void Apply(const ChannelConstant& of) {
    const ValueId y = graph_.node(of.node).outputs[0];
    if (!Changed(y)) return;
    const Tensor constant = graph_.value(graph_.node(of.node).inputs[of.slot]).constant;
    Tensor scaled(DType::kF32, constant.shape());
    for (size_t c = 0; c < constant.span<float>().size(); ++c) {
      scaled.mutable_span<float>()[c] =
          static_cast<float>(constant.span<float>()[c] * FactorOf(y, c));
    }
    Replace(of.node, of.slot, std::move(scaled));
  }

  void Replace(NodeId node, size_t slot, Tensor tensor) {
    const ValueId old = graph_.node(node).inputs[slot];
    if (graph_.SoleConsumer(old) != kNone) {
      graph_.mutable_value(old).constant = std::move(tensor);
    } else {
      graph_.SetInput(node, slot, graph_.AddConstant(graph_.value(old).name, std::move(tensor)));
    }
  }

  Graph& graph_;
  const QuantizeRecipe& recipe_;
  const Statistics& statistics_;
  ChannelLinks links_;
  Factors factors_;
};

}  // namespace

std::vector<QuantizeRecord> EqualizeChannels(Graph& graph, const QuantizeRecipe& recipe,
                                             Statistics& statistics, Statistics* part,
                                             const OutputGains* gains) {
  Equalizer equalizer(graph, recipe, statistics);
  std::vector<QuantizeRecord> records = equalizer.Run(gains);
  if (part != nullptr) equalizer.Scale(*part);
  equalizer.Scale(statistics);
  graph.RemoveDead();
  return records;
}

}  // namespace octet
