#include "engine/quantize/selection.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "engine/ops/conv_transpose.h"

namespace octet {
namespace {

enum class Role {
  kFloat,     ///< Stays in fp32.
  kWeighted,  ///< Conv, ConvTranspose, Gemm, MatMul with constant weights.
  kProduct,   ///< MatMul of two activations.
  kJoin,      ///< Int8 when every input is: Add, Mul, Concat.
  kUnary,     ///< Int8 in and out, with a range of its own.
  kShare,     ///< Int8 in and out, with its input's range.
  kFused,     ///< Part of the node before it.
};

constexpr std::array<std::string_view, 9> kShareOps = {"MaxPool",   "Reshape",   "Flatten",
                                                       "Transpose", "Squeeze",   "Slice",
                                                       "Split",     "Unsqueeze", "Identity"};
constexpr std::array<std::string_view, 8> kUnaryOps = {
    "AveragePool", "GlobalAveragePool", "Relu",      "Clip",
    "LeakyRelu",   "Sigmoid",           "HardSwish", "HardSigmoid"};
constexpr std::array<std::string_view, 3> kJoinOps = {"Add", "Mul", "Concat"};
constexpr std::array<std::string_view, 9> kActivations = {
    "Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "HardSwish", "Elu", "Gelu"};

// Of all weights, what products in float may have that a file in integers else would not.
constexpr int64_t kSmallShare = 100;

bool IsOneOf(std::string_view op, std::span<const std::string_view> list) {
  return std::ranges::find(list, op) != list.end();
}

// Gemms and MatMuls behind which no layer is, with few weights among them.
std::set<NodeId> SmallLastProducts(const Graph& graph) {
  std::set<NodeId> last;
  std::vector<bool> multiplied(static_cast<size_t>(graph.value_count()));
  int64_t weights = 0;
  int64_t own = 0;
  const auto order = graph.order();
  for (auto at = order.rbegin(); at != order.rend(); ++at) {
    const Node& node = graph.node(*at);
    const bool before = std::ranges::any_of(
        node.outputs, [&](ValueId out) { return out != kNone && multiplied[out]; });
    const bool weighted = AsWeighted(graph, *at).has_value();
    const int64_t count =
        weighted ? graph.value(node.inputs[1]).constant.shape().elements() : int64_t{0};
    weights += count;
    if (weighted && !before && !IsConvolutional(node)) {
      last.insert(*at);
      own += count;
    }
    if (!before && !weighted && !node.is("MatMul")) continue;
    for (const ValueId in : node.inputs) {
      if (in != kNone) multiplied[in] = true;
    }
  }
  return own * kSmallShare <= weights ? last : std::set<NodeId>();
}

class Selector {
 public:
  Selector(const Graph& graph, const std::set<NodeId>& keep_float, bool fewer_roundings)
      : graph_(graph),
        keep_float_(keep_float),
        fewer_roundings_(fewer_roundings),
        source_(static_cast<size_t>(graph.value_count())),
        wanted_(static_cast<size_t>(graph.value_count())) {}

  Selection Run() {
    if (fewer_roundings_) keep_float_.merge(SmallLastProducts(graph_));
    AssignRoles();
    SpreadForward();
    Selection result;
    WantBackward(result);
    result.kept_float = keep_float_;
    for (const NodeId id : graph_.order()) {
      TellFused(id, result);
      if (RoleOf(id) == Role::kWeighted) result.weighted.push_back(*AsWeighted(graph_, id));
      if (RoleOf(id) == Role::kProduct) result.products.push_back(id);
    }
    for (const ValueId id : graph_.inputs) Select(id, result);
    for (const NodeId id : graph_.order()) {
      for (const ValueId out : graph_.node(id).outputs) {
        if (out != kNone) Select(out, result);
      }
    }
    ShareRanges(result);
    return result;
  }

 private:
  Role RoleOf(NodeId id) const {
    const auto found = roles_.find(id);
    return found == roles_.end() ? Role::kFloat : found->second;
  }

  bool IsActivationValue(ValueId id) const {
    return id != kNone && !graph_.value(id).is_constant() && graph_.value(id).dtype == DType::kF32;
  }

  // What only reads a node's result and is computed with it: a MatMul's constant bias, or one activation behind a
  // weighted node, its bias, or a sum.
  bool BelongsToProducer(const Node& node) const {
    if (node.inputs[0] == kNone) return false;  // A Loop's number of iterations.
    const NodeId producer = graph_.producer(node.inputs[0]);
    if (producer == kNone || graph_.SoleConsumer(node.inputs[0]) == kNone) return false;
    const Role role = RoleOf(producer);
    if (node.is("Add")) {
      return role == Role::kWeighted && graph_.node(producer).is("MatMul") &&
             graph_.value(node.inputs[1]).is_constant();
    }
    if (node.domain != kOnnxDomain || !IsOneOf(node.op, kActivations)) return false;
    const bool behind_add =
        graph_.node(producer).is("Add") && (role == Role::kJoin || role == Role::kFused);
    return role == Role::kWeighted || behind_add;
  }

  Role RoleFor(NodeId id) const {
    const Node& node = graph_.node(id);
    if (node.domain != kOnnxDomain || node.inputs.empty()) return Role::kFloat;
    if (keep_float_.contains(id)) return Role::kFloat;
    if (AsWeighted(graph_, id)) return Role::kWeighted;
    if (BelongsToProducer(node)) return Role::kFused;
    const bool product = node.op == "MatMul";
    if (product || IsOneOf(node.op, kJoinOps)) {
      const bool all =
          std::ranges::all_of(node.inputs, [&](ValueId v) { return IsActivationValue(v); });
      if (!all) return Role::kFloat;
      return product ? Role::kProduct : Role::kJoin;
    }
    if (!IsActivationValue(node.inputs[0])) return Role::kFloat;
    if (IsOneOf(node.op, kShareOps))
      return node.output(1) != kNone && node.op == "MaxPool" ? Role::kFloat : Role::kShare;
    return IsOneOf(node.op, kUnaryOps) ? Role::kUnary : Role::kFloat;
  }

  void AssignRoles() {
    for (const NodeId id : graph_.order()) roles_[id] = RoleFor(id);
  }

  // source: the value could be had in integers without leaving them.
  void SpreadForward() {
    for (const ValueId id : graph_.inputs) source_[id] = IsActivationValue(id);
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      bool source = false;
      switch (RoleOf(id)) {
        case Role::kFloat:
          break;
        case Role::kWeighted:
        case Role::kProduct:
          source = true;
          break;
        case Role::kJoin:
          source = std::ranges::all_of(node.inputs, [&](ValueId v) { return source_[v]; });
          break;
        case Role::kUnary:
        case Role::kShare:
        case Role::kFused:
          source = source_[node.inputs[0]];
          break;
      }
      for (const ValueId out : node.outputs) {
        if (out != kNone) source_[out] = source;
      }
    }
  }

  // wanted: somebody computes in integers with it.
  void WantBackward(Selection& result) {
    std::set<NodeId>& integers = result.integers;
    const auto order = graph_.order();
    for (auto at = order.rbegin(); at != order.rend(); ++at) {
      const Node& node = graph_.node(*at);
      const bool out_wanted = std::ranges::any_of(
          node.outputs, [&](ValueId v) { return v != kNone && OutcomeWanted(v); });
      switch (RoleOf(*at)) {
        case Role::kFloat:
        case Role::kFused:
          break;
        case Role::kWeighted:
          wanted_[node.inputs[0]] = IsActivationValue(node.inputs[0]);
          integers.insert(*at);
          break;
        case Role::kProduct:
          for (const ValueId v : node.inputs) wanted_[v] = true;
          integers.insert(*at);
          break;
        case Role::kJoin:
          if (AddsReals(node)) {
            result.sums_of_reals.insert(*at);
          } else if (out_wanted &&
                     std::ranges::all_of(node.inputs, [&](ValueId v) { return source_[v]; })) {
            for (const ValueId v : node.inputs) wanted_[v] = v != SumHost(node);
            integers.insert(*at);
          }
          break;
        case Role::kUnary:
        case Role::kShare:
          if (out_wanted && source_[node.inputs[0]]) {
            wanted_[node.inputs[0]] = true;
            integers.insert(*at);
          }
          break;
      }
    }
  }

  // Requires: the nodes before it are done.
  void TellFused(NodeId id, Selection& result) const {
    const Node& node = graph_.node(id);
    if (RoleOf(id) == Role::kFused) {
      const NodeId producer = graph_.producer(node.inputs[0]);
      if (result.integers.contains(producer)) result.integers.insert(id);
      if (result.behind_integers.contains(producer)) result.behind_integers.insert(id);
    }
    // A sum or product with what float makes is a post-op of the weighted node on its other side (fuse_residual).
    const bool post_op = RoleOf(id) == Role::kJoin && (node.is("Add") || node.is("Mul")) &&
                         !result.integers.contains(id);
    if (post_op &&
        std::ranges::any_of(node.inputs, [&](ValueId v) { return WeightedBehind(v) != kNone; }))
      result.behind_integers.insert(id);
  }

  // The weighted node behind `id`, looking through what belongs to it, or kNone; only if nobody else reads the result.
  NodeId WeightedBehind(ValueId id) const {
    while (graph_.SoleConsumer(id) != kNone && graph_.producer(id) != kNone) {
      const NodeId producer = graph_.producer(id);
      if (RoleOf(producer) == Role::kWeighted) return producer;
      if (RoleOf(producer) != Role::kFused) break;
      id = graph_.node(producer).inputs[0];
    }
    return kNone;
  }

  // The input of an Add that the node before it adds to the other one itself: of two candidates the later, as fuse_residual
  // chooses. It never exists in memory.
  ValueId SumHost(const Node& add) const {
    if (!add.is("Add") || add.inputs[0] == add.inputs[1]) return kNone;
    const auto& a = graph_.value(add.inputs[0]);
    const auto& b = graph_.value(add.inputs[1]);
    if (!a.shape || !b.shape || *a.shape != *b.shape) return kNone;
    const NodeId first = WeightedBehind(add.inputs[0]);
    const NodeId second = WeightedBehind(add.inputs[1]);
    if (first == kNone && second == kNone) return kNone;
    if (first == kNone || second == kNone) return add.inputs[first == kNone ? 1 : 0];
    const auto order = graph_.order();
    return add.inputs[std::ranges::find(order, first) > std::ranges::find(order, second) ? 0 : 1];
  }

  // A sum whose host is there, and whose other side is real before it is rounded.
  bool AddsReals(const Node& node) const {
    if (!fewer_roundings_) return false;
    const ValueId host = SumHost(node);
    if (host == kNone) return false;
    NodeId maker = graph_.producer(node.inputs[node.inputs[0] == host ? 1 : 0]);
    while (maker != kNone && RoleOf(maker) == Role::kFused)
      maker = graph_.producer(graph_.node(maker).inputs[0]);
    if (maker == kNone) return false;
    const Role role = RoleOf(maker);
    return role == Role::kWeighted || (role == Role::kJoin && SumHost(graph_.node(maker)) != kNone);
  }

  // Looks through the activation that belongs to the value's producer.
  bool OutcomeWanted(ValueId id) const {
    if (wanted_[id]) return true;
    const NodeId next = graph_.SoleConsumer(id);
    if (next == kNone || RoleOf(next) != Role::kFused) return false;
    return OutcomeWanted(graph_.node(next).outputs[0]);
  }

  void Select(ValueId id, Selection& result) const {
    if (wanted_[id]) result.quantized.push_back(id);
  }

  void ShareRanges(Selection& result) const {
    for (const NodeId id : graph_.order()) {
      const Node& node = graph_.node(id);
      if (RoleOf(id) == Role::kShare && wanted_[node.inputs[0]]) {
        for (const ValueId out : node.outputs) {
          if (out != kNone && wanted_[out]) result.range_from[out] = node.inputs[0];
        }
      }
      if (RoleOf(id) != Role::kJoin || node.op != "Concat" || !wanted_[node.outputs[0]]) continue;
      for (const ValueId in : node.inputs) {
        if (graph_.SoleConsumer(in) != kNone && !result.range_from.contains(in) &&
            !graph_.is_graph_input(in)) {
          result.range_from[in] = node.outputs[0];
        }
      }
    }
  }

  const Graph& graph_;
  std::set<NodeId> keep_float_;
  bool fewer_roundings_;
  std::map<NodeId, Role> roles_;
  std::vector<bool> source_;
  std::vector<bool> wanted_;
};

bool IsConstantFloat(const Graph& graph, ValueId id) {
  return id != kNone && graph.value(id).is_constant() &&
         graph.value(id).constant.dtype() == DType::kF32;
}

// Whether a Gemm's C has one element per output channel, behind extents of 1. One that is broadcast along the channels has no scale
// per channel; [M, 1] is one per row, also where there are as many rows as channels.
bool IsPerChannel(const Shape& c, int64_t channels) {
  return c.elements() == channels && (c.rank() == 0 || c[c.rank() - 1] == channels);
}

std::optional<WeightedNode> AsGemm(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const auto alpha = node.attributes.Float("alpha", 1.0f);
  const auto beta = node.attributes.Float("beta", 1.0f);
  if (!alpha.ok() || !beta.ok() || *alpha != 1.0f || *beta != 1.0f) return std::nullopt;
  if (node.attributes.IntOr("transA", 0) != 0) return std::nullopt;
  const ValueId bias = node.input(2);
  if (bias != kNone && !IsConstantFloat(graph, bias)) return std::nullopt;
  const int axis = node.attributes.IntOr("transB", 0) != 0 ? 0 : 1;
  const int64_t channels = graph.value(node.inputs[1]).constant.shape()[axis];
  if (bias != kNone && !IsPerChannel(graph.value(bias).constant.shape(), channels))
    return std::nullopt;
  return WeightedNode{id, axis, bias};
}

// Which pads it has, an octet:ConvTranspose has to know when the file is loaded.
bool HasIntegerKernel(const Graph& graph, const Node& node) {
  const std::optional<Shape>& x = graph.value(node.inputs[0]).shape;
  const Shape& weights = graph.value(node.inputs[1]).constant.shape();
  if (!x || x->rank() < 3 || x->rank() != weights.rank()) return false;
  const auto pads = TransposedPadsOf(node, *x, weights);
  return pads.ok() && *pads && TransposesIntegers(node, (*pads)->output_padding);
}

}  // namespace

std::optional<WeightedNode> AsWeighted(const Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (node.domain != kOnnxDomain || node.inputs.size() < 2) return std::nullopt;
  const ValueId x = node.inputs[0];
  if (x == kNone || graph.value(x).is_constant() || graph.value(x).dtype != DType::kF32)
    return std::nullopt;
  if (!IsConstantFloat(graph, node.inputs[1])) return std::nullopt;
  const int weight_rank = graph.value(node.inputs[1]).constant.shape().rank();
  if (IsConvolutional(node)) {
    const ValueId bias = node.input(2);
    if (bias != kNone && !IsConstantFloat(graph, bias)) return std::nullopt;
    if (node.is("Conv")) return WeightedNode{id, 0, bias};
    if (!HasIntegerKernel(graph, node)) return std::nullopt;
    return WeightedNode{id, 1, bias};
  }
  if (node.op == "Gemm" && weight_rank == 2) return AsGemm(graph, id);
  if (node.op == "MatMul" && weight_rank == 2) return WeightedNode{id, 1, kNone};
  return std::nullopt;
}

bool IsConvolutional(const Node& node) { return node.is("Conv") || node.is("ConvTranspose"); }

WeightLayout LayoutOf(const Graph& graph, const WeightedNode& weighted) {
  const Node& node = graph.node(weighted.node);
  return {weighted.weight_axis, IsConvolutional(node) ? node.attributes.IntOr("group", 1) : 1};
}

bool IsOfInput(const Graph& graph, ValueId id) {
  while (!graph.is_graph_input(id)) {
    const NodeId producer = graph.producer(id);
    if (producer == kNone) return false;
    const Node& node = graph.node(producer);
    if (!node.is("Pad") && !node.is("Mul") && !node.is("Add")) return false;
    ValueId next = kNone;
    for (const ValueId operand : node.inputs) {
      if (operand == kNone || graph.value(operand).is_constant()) continue;
      if (next != kNone) return false;
      next = operand;
    }
    if (next == kNone) return false;
    id = next;
  }
  return true;
}

Selection SelectQuantized(const Graph& graph, const std::set<NodeId>& keep_float,
                          bool fewer_roundings) {
  return Selector(graph, keep_float, fewer_roundings).Run();
}

ValueId Selection::RangeOwner(ValueId id) const {
  for (auto at = range_from.find(id); at != range_from.end(); at = range_from.find(id)) {
    id = at->second;
  }
  return id;
}

bool Selection::ReadsReals(const Graph& graph, ValueId id, NodeId reader) const {
  if (integers.contains(reader)) return false;
  if (kept_float.contains(reader) || sums_of_reals.contains(reader)) return true;
  const NodeId producer = graph.producer(id);
  return !integers.contains(producer) && !behind_integers.contains(producer);
}

}  // namespace octet
