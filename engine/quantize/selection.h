// Which values of an fp32 graph become 8-bit integers: the first half of static quantization.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "engine/graph/graph.h"
#include "engine/quantize/weights.h"

namespace octet {

/// A node that multiplies an activation by constant weights.
struct WeightedNode {
  NodeId node = kNone;
  int weight_axis = 0;  ///< The output channels' axis of input 1; of a group's, in a ConvTranspose.
  ValueId bias = kNone;  ///< Constant F32 bias, or kNone.
};

/// Conv with constant weights; ConvTranspose with such, where there is a kernel for its integers (TransposesIntegers); Gemm with constant
/// B, plain A, alpha = beta = 1; MatMul with a constant [K, N] B. nullopt for every other node.
std::optional<WeightedNode> AsWeighted(const Graph& graph, NodeId node);

/// Conv or ConvTranspose: the channels of its activations lie on axis 1, those of other weighted nodes' on the last.
bool IsConvolutional(const Node& node);
WeightLayout LayoutOf(const Graph& graph, const WeightedNode& weighted);

/// True for an input of the graph, and what only Pad, Mul and Add by constants make of one: a sensor's integers may lie there.
bool IsOfInput(const Graph& graph, ValueId id);

/// What static quantization will do.
struct Selection {
  std::vector<WeightedNode> weighted;
  /// MatMuls of two activations that multiply integers.
  std::vector<NodeId> products;
  /// Nodes that compute in integers.
  std::set<NodeId> integers;
  /// Float nodes that the passes make part of one that does: what they make is stored as its integers.
  std::set<NodeId> behind_integers;
  /// Nodes that could compute in integers but are to stay in float.
  std::set<NodeId> kept_float;
  /// Residual sums that add reals to a weighted node's exact sums, whoever reads the integers of what is added.
  std::set<NodeId> sums_of_reals;
  /// Values that get a QuantizeLinear/DequantizeLinear pair, in graph order.
  std::vector<ValueId> quantized;
  /// Quantized value -> the value whose range it takes over: data movement passes its input's on, and what only a
  /// Concat reads takes the Concat's, so that the concatenation moves bytes.
  std::map<ValueId, ValueId> range_from;

  /// The value whose range `id` takes: itself, or the end of the chain in range_from.
  ValueId RangeOwner(ValueId id) const;
  /// True when `reader` of the quantized value `id` takes the reals before they were rounded. A node in float does where they
  /// exist anyway, because float makes them, or where it is in float for accuracy's sake.
  bool ReadsReals(const Graph& graph, ValueId id, NodeId reader) const;
};

/// Every value that a weighted node or a product of two activations reads is quantized, unless the node is in `keep_float`; from there the integers spread through residual sums, products,
/// concatenations, pools and data movement as long as both sides of an operator are integers anyway. An
/// activation right behind a weighted node (or a sum) belongs to it: the value between them stays unquantized. So does the
/// result of a weighted node that only a sum with a value of the same shape reads: the node adds the other side, in
/// integers, to its own exact sums, and one rounding less is made.
/// Source of the last: NVIDIA, "Working with Quantized Types" (TensorRT), on Q/DQ pairs around residual sums.
/// With `fewer_roundings` that other side stays real where a weighted node or another sum makes it, whose results are real before they
/// are rounded; so along a chain of residual blocks nothing is rounded but what layers multiply. And Gemms and MatMuls that no other
/// layer is behind stay in float, if all of them together have at most a hundredth of the weights: after them no weight averages
/// what rounding adds. The multiply-adds of a row that comes once per sample are as few, for a layer uses each weight once at least.
Selection SelectQuantized(const Graph& graph, const std::set<NodeId>& keep_float = {},
                          bool fewer_roundings = false);

}  // namespace octet
