#include "engine/quantize/concat_factors.h"

#include <algorithm>
#include <cmath>

namespace octet {
namespace {

// Behind that the weights of the input would vanish beside the others'.
constexpr int kLargestExponent = 6;

int ExponentOf(double reach, double widest) {
  if (!(reach > 0)) return 0;
  return std::clamp(static_cast<int>(std::lround(std::log2(widest / reach) / 2)), 0,
                    kLargestExponent);
}

// The channels' axis of what a weighted node reads.
int ChannelAxis(const Graph& graph, const Node& reader) {
  return IsConvolutional(reader) ? 1 : graph.value(reader.inputs[0]).shape->rank() - 1;
}

class Finder {
 public:
  Finder(const Graph& graph, const Selection& selection, const RangeTable& ranges)
      : graph_(graph), selection_(selection), ranges_(ranges) {}

  ConcatFactors Run() {
    for (const NodeId id : graph_.order()) {
      if (graph_.node(id).is("Concat") && IsRescalable(id)) Rescale(graph_.node(id));
    }
    return std::move(found_);
  }

 private:
  // It moves integers, weighted nodes alone read them, and its channels are theirs.
  bool IsRescalable(NodeId id) const {
    if (!selection_.integers.contains(id)) return false;
    const Node& concat = graph_.node(id);
    const ValueId y = concat.outputs[0];
    const auto& shape = graph_.value(y).shape;
    if (!ranges_.contains(y) || !std::ranges::contains(selection_.quantized, y) ||
        selection_.range_from.contains(y) || graph_.is_graph_output(y) || !shape)
      return false;
    const int64_t axis = concat.attributes.IntOr("axis", 0);
    const int64_t at = axis < 0 ? axis + shape->rank() : axis;
    return std::ranges::all_of(graph_.consumers(y),
                               [&](NodeId reader) {
                                 const Node& node = graph_.node(reader);
                                 return std::ranges::contains(selection_.weighted, reader,
                                                              &WeightedNode::node) &&
                                        node.inputs[0] == y && ChannelAxis(graph_, node) == at;
                               }) &&
           std::ranges::all_of(concat.inputs, [&](ValueId x) {
             const auto& of_input = graph_.value(x).shape;
             return ranges_.contains(x) && of_input && (*of_input)[static_cast<int>(at)] > 0;
           });
  }

  // Has the range of the whole for no other reason, and hands it on to none.
  bool IsFree(ValueId x, ValueId y) const {
    const auto from = selection_.range_from.find(x);
    return from != selection_.range_from.end() && from->second == y &&
           std::ranges::contains(selection_.quantized, x) &&
           std::ranges::none_of(selection_.range_from,
                                [&](const auto& entry) { return entry.second == x; });
  }

  void Rescale(const Node& concat) {
    const ValueId y = concat.outputs[0];
    double widest = 0;
    for (const ValueId x : concat.inputs) widest = std::max(widest, Reach(ranges_.at(x).range));
    const int axis = ChannelAxis(graph_, graph_.node(graph_.consumers(y).front()));
    std::map<ValueId, int> exponents;
    std::vector<double> factors;
    Range joined;
    for (const ValueId x : concat.inputs) {
      const Range& own = ranges_.at(x).range;
      const int exponent = IsFree(x, y) ? ExponentOf(Reach(own), widest) : 0;
      if (exponent > 0) exponents[x] = exponent;
      const double factor = std::ldexp(1.0, exponent);
      joined.min = std::min(joined.min, static_cast<float>(own.min * factor));
      joined.max = std::max(joined.max, static_cast<float>(own.max * factor));
      factors.insert(factors.end(), static_cast<size_t>((*graph_.value(x).shape)[axis]), factor);
    }
    if (exponents.empty()) return;
    found_.exponents.merge(exponents);
    found_.ranges[y] = joined;
    for (const NodeId reader : graph_.consumers(y)) found_.readers[reader] = factors;
  }

  const Graph& graph_;
  const Selection& selection_;
  const RangeTable& ranges_;
  ConcatFactors found_;
};

}  // namespace

ConcatFactors FindConcatFactors(const Graph& graph, const Selection& selection,
                                const RangeTable& ranges) {
  return Finder(graph, selection, ranges).Run();
}

Tensor OverFactors(const Tensor& weights, const WeightLayout& layout,
                   std::span<const double> factors) {
  const WeightIndex index(weights.shape(), layout);
  Tensor scaled(DType::kF32, weights.shape());
  for (int64_t i = 0; i < weights.elements(); ++i) {
    const auto at = static_cast<size_t>(i);
    scaled.mutable_span<float>()[at] =
        static_cast<float>(weights.span<float>()[at] / factors[index(i).in]);
  }
  return scaled;
}

}  // namespace octet
