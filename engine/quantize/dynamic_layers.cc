#include "engine/quantize/dynamic_layers.h"

#include <optional>
#include <vector>

#include "engine/quantize/int8_cost.h"
#include "engine/quantize/selection.h"
#include "engine/tensor/format.h"

namespace octet {
namespace {

// Multiply-adds that one dot product of 8 bits makes.
constexpr int64_t kNeighbours = 4;

// A layer's work on each element that it reads.
struct Work {
  double multiply_adds = 0;
  int64_t depth = 1;  ///< Neighbours that it adds up.

  // int8: those that it makes with what fills the last dot product.
  double Saved() const {
    const int64_t filled = (depth + kNeighbours - 1) / kNeighbours * kNeighbours;
    const double made = multiply_adds * static_cast<double>(filled) / static_cast<double>(depth);
    return multiply_adds - (made - SavedByInt8(made));
  }
};

Work WorkOf(const Graph& graph, const WeightedNode& weighted) {
  const Node& node = graph.node(weighted.node);
  const Shape& weights = graph.value(node.inputs[1]).constant.shape();
  const WeightLayout layout = LayoutOf(graph, weighted);
  // A group's: each input has a part in its outputs through every tap, or through those that a Conv's strides leave.
  auto multiply_adds =
      static_cast<double>(layout.Outputs(weights)) / static_cast<double>(layout.groups);
  for (int i = 2; i < weights.rank(); ++i) multiply_adds *= static_cast<double>(weights[i]);
  const auto strides = node.attributes.Ints("strides", {});
  if (node.is("Conv") && strides.ok()) {
    for (const int64_t stride : *strides) multiply_adds /= static_cast<double>(stride);
  }
  return {multiply_adds, layout.Inputs(weights) / layout.groups};
}

// The layers that read one activation, and what they save together.
struct Readers {
  std::vector<NodeId> layers;
  double saved = 0;
  bool product = false;  ///< One of them multiplies matrices.
};

}  // namespace

std::map<NodeId, std::string> LayersSlowerInDynamicInt8(const Graph& graph) {
  std::map<NodeId, std::string> slower;
  std::map<ValueId, Readers> readers;
  for (const NodeId id : graph.order()) {
    const std::optional<WeightedNode> weighted = AsWeighted(graph, id);
    if (!weighted) continue;
    const Work work = WorkOf(graph, *weighted);
    const double saved = work.Saved();
    if (saved <= 0) {
      slower[id] = Format("in float: it adds up {} at a time, int8 {}", work.depth, kNeighbours);
      continue;
    }
    Readers& of = readers[graph.node(id).inputs[0]];
    of.layers.push_back(id);
    of.saved += saved;
    of.product |= !IsConvolutional(graph.node(id));
  }
  for (const auto& [x, of] : readers) {
    if (of.product || of.saved > kConversionTime) continue;
    for (const NodeId id : of.layers) {
      slower[id] = Format(
          "in float: int8 would save the time of {:.1f} multiply-adds of each element of '{}', to "
          "quantize it takes that of {:.0f}",
          of.saved, graph.value(x).name, kConversionTime);
    }
  }
  return slower;
}

}  // namespace octet
