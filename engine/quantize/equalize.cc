#include "engine/quantize/equalize.h"

#include <algorithm>
#include <cmath>

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

using Factors = std::vector<double>;  ///< By class of channels.

double Reach(const Range& range) {
  return std::max({-static_cast<double>(range.min), static_cast<double>(range.max), 0.0});
}

class Equalizer {
 public:
  Equalizer(Graph& graph, const QuantizeRecipe& recipe, const Statistics& statistics)
      : graph_(graph),
        recipe_(recipe),
        statistics_(statistics),
        links_(graph),
        factors_(static_cast<size_t>(links_.classes()), 1.0) {}

  std::vector<QuantizeRecord> Run() {
    std::vector<QuantizeRecord> records;
    for (const ChannelComponent& component : links_.components()) {
      const double alpha = Choose(component);
      if (alpha == 0) continue;
      records.push_back({graph_.value(component.values[0]).name, "equalized",
                         Format("{} activations, alpha {}", component.values.size(), alpha)});
    }
    for (const NodeId id : graph_.OrderSnapshot()) {
      if (const auto weighted = AsWeighted(graph_, id)) Apply(*weighted);
    }
    return records;
  }

  /// After Run.
  void Scale(Statistics& statistics) const {
    for (const auto& [id, channels] : statistics.channel_histograms) {
      if (Changed(id))
        statistics.histograms.at(id) = channels.Scaled(FactorsOf(id, channels.channels().size()));
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

  double Choose(const ChannelComponent& component) {
    const Factors unscaled = factors_;
    Factors best = unscaled;
    double best_alpha = 0;
    double least = Noise(component, unscaled);
    for (const double alpha : kAlphas) {
      const Factors candidate = Scaled(component, alpha);
      const double noise = Noise(component, candidate);
      if (!(noise < least)) continue;
      least = noise;
      best = candidate;
      best_alpha = alpha;
    }
    factors_ = best;
    return best_alpha;
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
      if (reach[c] > 0) factor = std::min(factor, std::max(1.0, *clip / (kMargin * reach[c])));
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
    const WeightIndex index(weights.shape(), {reader.weight_axis, node.is("Conv")}, std::ssize(t));
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
      const double scale = rounded.params.scales[rounded.params.per_tensor() ? 0 : out];
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
    const auto& shape = graph_.value(id).shape;
    for (int64_t c = 0; shape && shape->rank() >= 2 && c < (*shape)[1]; ++c) {
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
    const int64_t inputs = (*graph_.value(x).shape)[1];
    const WeightIndex index(weights.shape(), {weighted.weight_axis, node.is("Conv")}, inputs);
    Tensor scaled(DType::kF32, weights.shape());
    for (int64_t i = 0; i < weights.elements(); ++i) {
      const auto at = static_cast<size_t>(i);
      const auto [out, in] = index(i);
      scaled.mutable_span<float>()[at] =
          static_cast<float>(weights.span<float>()[at] * FactorOf(y, out) / FactorOf(x, in));
    }
    Replace(weighted.node, 1, std::move(scaled));
    if (weighted.bias == kNone) return;
    const Tensor bias = graph_.value(weighted.bias).constant;
    Tensor scaled_bias(DType::kF32, bias.shape());
    for (size_t o = 0; o < bias.span<float>().size(); ++o) {
      scaled_bias.mutable_span<float>()[o] =
          static_cast<float>(bias.span<float>()[o] * FactorOf(y, o));
    }
    Replace(weighted.node, 2, std::move(scaled_bias));
  }

  void Replace(NodeId node, size_t slot, Tensor tensor) {
    const ValueId old = graph_.node(node).inputs[slot];
    if (graph_.consumers(old).size() == 1) {
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
                                             Statistics& statistics, Statistics* part) {
  Equalizer equalizer(graph, recipe, statistics);
  std::vector<QuantizeRecord> records = equalizer.Run();
  if (part != nullptr) equalizer.Scale(*part);
  equalizer.Scale(statistics);
  graph.RemoveDead();
  return records;
}

}  // namespace octet
