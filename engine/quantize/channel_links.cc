#include "engine/quantize/channel_links.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>
#include <set>
#include <string_view>
#include <utility>

#include "engine/passes/match.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 4> kPassOps = {"Relu", "LeakyRelu", "Identity", "Dropout"};
// What passes channels of one kind alone.
constexpr std::array<std::string_view, 3> kPoolOps = {"MaxPool", "AveragePool",
                                                      "GlobalAveragePool"};
constexpr std::array<std::string_view, 2> kLastAxisOps = {"Transpose", "MatMul"};
constexpr std::array<std::string_view, 3> kFlattenOps = {"Flatten", "Reshape", "Squeeze"};

class DisjointSets {
 public:
  explicit DisjointSets(size_t count) : parent_(count) {
    std::iota(parent_.begin(), parent_.end(), 0);
  }
  int Find(int64_t of) {
    auto at = static_cast<int>(of);
    while (parent_[static_cast<size_t>(at)] != at) {
      int& parent = parent_[static_cast<size_t>(at)];
      parent = parent_[static_cast<size_t>(parent)];
      at = parent;
    }
    return at;
  }
  void Union(int64_t a, int64_t b) { parent_[static_cast<size_t>(Find(a))] = Find(b); }

 private:
  std::vector<int> parent_;
};

// A tensor with one element per channel along an axis of a value of such a rank, broadcast along all others.
bool IsPerChannel(const Tensor& constant, int64_t channels, int axis, int rank) {
  if (constant.dtype() != DType::kF32 || constant.elements() != channels) return false;
  const Shape& shape = constant.shape();
  const int own_axis = axis - (rank - shape.rank());
  return own_axis >= 0 && own_axis < shape.rank() && shape[own_axis] == channels;
}

bool IsScalar(const Tensor& constant) {
  return constant.dtype() == DType::kF32 && constant.elements() == 1;
}

// Of one kind of channels.
class Linker {
 public:
  Linker(const Graph& graph, int axis)
      : graph_(graph),
        last_(axis < 0),
        groups_(static_cast<size_t>(graph.value_count())),
        channels_(0) {
    int64_t next = 0;
    for (ValueId id = 0; id < graph.value_count(); ++id) {
      if (!HasChannels(graph.value(id))) continue;
      first_[id] = next;
      next += Channels(id);
    }
    channels_ = DisjointSets(static_cast<size_t>(next));
    for (const ValueId id : graph.inputs) blocked_.insert(id);
    for (const ValueId id : graph.outputs) blocked_.insert(id);
    for (const NodeId id : graph.order()) {
      if (!Link(id)) Block(graph.node(id));
    }
  }

  std::vector<ChannelComponent> Components() {
    std::set<int> blocked;
    for (const ValueId id : blocked_) blocked.insert(groups_.Find(id));
    std::map<int, ChannelComponent> found;
    for (const auto& [id, unused] : first_) found[groups_.Find(id)].values.push_back(id);
    for (const WeightedNode& weighted : weighted_) {
      const Node& node = graph_.node(weighted.node);
      found[groups_.Find(node.outputs[0])].writers.push_back(weighted);
      found[groups_.Find(node.inputs[0])].readers.push_back(weighted);
    }
    for (const auto& [constant, writes] : constants_) {
      ChannelComponent& of = found[groups_.Find(graph_.node(constant.node).outputs[0])];
      of.constants.push_back(constant);
      of.scaled_by_constants |= writes;
    }
    for (const ValueId id : stages_) found[groups_.Find(id)].joins_stages = true;
    std::vector<ChannelComponent> components;
    for (auto& [group, component] : found) {
      const bool written = !component.writers.empty() || component.scaled_by_constants;
      if (!blocked.contains(group) && written && !component.readers.empty())
        components.push_back(std::move(component));
    }
    return components;
  }

  std::vector<int> Classes() {
    std::vector<int> classes;
    for (const auto& [id, first] : first_) {
      for (int64_t c = 0; c < Channels(id); ++c) classes.push_back(channels_.Find(first + c));
    }
    return classes;
  }

  std::map<ValueId, int64_t>& first() { return first_; }
  std::map<ValueId, float>& clips() { return clips_; }
  int64_t Channels(ValueId id) const {
    const Shape& shape = *graph_.value(id).shape;
    return shape[AxisIn(shape)];
  }

 private:
  bool HasChannels(const Value& value) const {
    return !value.is_constant() && value.dtype == DType::kF32 && value.shape &&
           value.shape->rank() >= (last_ ? 3 : 2) && (*value.shape)[AxisIn(*value.shape)] > 0;
  }

  int AxisIn(const Shape& shape) const { return last_ ? shape.rank() - 1 : 1; }

  // False where a factor does not pass; the node's values are then left alone.
  bool Link(NodeId id) {
    const Node& node = graph_.node(id);
    if (const auto weighted = AsWeighted(graph_, id)) return Weighted(*weighted);
    if (node.domain != kOnnxDomain || node.inputs.empty()) return false;
    const ValueId x = node.inputs[0];
    const ValueId y = node.outputs[0];
    if (std::ranges::contains(kPassOps, node.op)) return Same(x, y);
    if (IsPassing(node.op)) return Pass(node);
    if (std::ranges::contains(kFlattenOps, node.op)) return last_ ? Wrapped(x, y) : Flat(x, y);
    if (node.op == "Clip") return Clip(node) && Same(x, y);
    if (node.op == "Slice" || node.op == "Pad") {
      stages_.push_back(y);
      return node.op == "Slice" ? Slice(node) : Pad(node);
    }
    if (node.op == "Add") return Add(id);
    if (node.op == "Mul" || node.op == "Div") return Times(id);
    if (node.op == "LayerNormalization") return Normalization(id);
    return node.op == "Concat" && Concat(node);
  }

  bool Weighted(const WeightedNode& weighted) {
    const Node& node = graph_.node(weighted.node);
    const ValueId x = node.inputs[0];
    if (!first_.contains(x) || !first_.contains(node.outputs[0])) return false;
    const bool matrices = graph_.value(x).shape->rank() == 2;
    if (last_ ? !node.is("MatMul") : !IsConvolutional(node) && !matrices) return false;
    weighted_.push_back(weighted);
    return true;
  }

  bool IsPassing(std::string_view op) const {
    return last_ ? std::ranges::contains(kLastAxisOps, op) : std::ranges::contains(kPoolOps, op);
  }

  void Block(const Node& node) {
    for (const ValueId id : node.inputs) {
      if (id != kNone) blocked_.insert(id);
    }
    for (const ValueId id : node.outputs) {
      if (id != kNone) blocked_.insert(id);
    }
  }

  void Join(ValueId a, ValueId b, int64_t offset_in_b) {
    groups_.Union(a, b);
    for (int64_t c = 0; c < Channels(a); ++c)
      channels_.Union(first_[a] + c, first_[b] + offset_in_b + c);
  }

  bool Same(ValueId a, ValueId b) {
    if (!first_.contains(a) || !first_.contains(b) || Channels(a) != Channels(b) ||
        graph_.value(a).shape->rank() != graph_.value(b).shape->rank()) {
      return false;
    }
    Join(a, b, 0);
    return true;
  }

  // Pools along the other axes; Transpose that leaves the last one there, and a product's right operand.
  bool Pass(const Node& node) {
    if (node.op == "Transpose") {
      const auto perm = node.attributes.Ints("perm", {});
      const bool stays = perm.ok() && !perm->empty() && perm->back() == std::ssize(*perm) - 1;
      return stays && Same(node.inputs[0], node.outputs[0]);
    }
    if (node.op != "MatMul") return Same(node.inputs[0], node.outputs[0]);
    blocked_.insert(node.inputs[0]);
    return Same(node.inputs[1], node.outputs[0]);
  }

  // [N, C, 1...] -> [N, C].
  bool Flat(ValueId a, ValueId b) {
    if (!first_.contains(a) || !first_.contains(b) || Channels(a) != Channels(b)) return false;
    for (const ValueId id : {a, b}) {
      const Shape& shape = *graph_.value(id).shape;
      for (int axis = 2; axis < shape.rank(); ++axis) {
        if (shape[axis] != 1) return false;
      }
    }
    Join(a, b, 0);
    return true;
  }

  // Of channels, neighbours alone: [N, C, ...] -> [N, from start to end, ...]. Along the other axes any elements.
  bool Slice(const Node& node) {
    const ValueId x = node.inputs[0];
    const ValueId y = node.outputs[0];
    const auto starts = IntsOf(graph_, node.input(1));
    const auto axes = IntsOf(graph_, node.input(3));
    const auto steps = IntsOf(graph_, node.input(4));
    if (!first_.contains(x) || !first_.contains(y) || !starts) return false;
    if ((node.input(3) != kNone && !axes) || (node.input(4) != kNone && !steps)) return false;
    const Shape& shape = *graph_.value(x).shape;
    for (size_t i = 0; i < starts->size(); ++i) {
      const int64_t axis = axes ? (*axes)[i] : static_cast<int64_t>(i);
      if ((axis < 0 ? axis + shape.rank() : axis) != AxisIn(shape)) continue;
      if (steps && (*steps)[i] != 1) return false;
      const int64_t start = (*starts)[i] < 0 ? (*starts)[i] + Channels(x) : (*starts)[i];
      Join(y, x, std::clamp<int64_t>(start, 0, Channels(x) - Channels(y)));
      return true;
    }
    return Same(x, y);
  }

  // With zeros, which any factor leaves, also beside the channels: a shortcut into a wider stage.
  bool Pad(const Node& node) {
    const ValueId x = node.inputs[0];
    const ValueId y = node.outputs[0];
    const auto pads = IntsOf(graph_, node.input(1));
    const auto mode = node.attributes.String("mode", "constant");
    if (!first_.contains(x) || !first_.contains(y) || !pads || node.input(3) != kNone) return false;
    const Tensor* const value = Constant(node, 2);
    const bool zero = node.input(2) == kNone ||
                      (value != nullptr && IsScalar(*value) && value->span<float>()[0] == 0);
    const auto before = (*pads)[static_cast<size_t>(AxisIn(*graph_.value(x).shape))];
    if (!mode.ok() || *mode != "constant" || !zero || before < 0 ||
        before + Channels(x) > Channels(y)) {
      return false;
    }
    Join(x, y, before);
    return true;
  }

  // [..., H * D] -> [..., H, D] or back: an element's place in the memory, modulo D, is its index along the last axis.
  bool Wrapped(ValueId a, ValueId b) {
    if (!first_.contains(a) || !first_.contains(b)) return false;
    if (Channels(a) < Channels(b)) std::swap(a, b);
    const int64_t fewer = Channels(b);
    if (Channels(a) % fewer != 0) return false;
    groups_.Union(a, b);
    for (int64_t c = 0; c < Channels(a); ++c) channels_.Union(first_[a] + c, first_[b] + c % fewer);
    return true;
  }

  const Tensor* Constant(const Node& node, size_t slot) const {
    const ValueId id = node.input(slot);
    return id != kNone && graph_.value(id).is_constant() ? &graph_.value(id).constant : nullptr;
  }

  bool IsPerChannelOf(const Tensor& constant, ValueId y) const {
    const Shape& shape = *graph_.value(y).shape;
    return IsPerChannel(constant, Channels(y), AxisIn(shape), shape.rank());
  }

  // Of two activations, or of one and a bias.
  bool Add(NodeId id) {
    const Node& node = graph_.node(id);
    const ValueId y = node.outputs[0];
    for (const size_t slot : {size_t{0}, size_t{1}}) {
      const Tensor* const bias = Constant(node, slot);
      if (bias == nullptr) continue;
      if (!first_.contains(y) || !IsPerChannelOf(*bias, y)) return false;
      constants_.push_back({{id, slot}, false});
      return Same(node.inputs[1 - slot], y);
    }
    return Same(node.inputs[0], y) && Same(node.inputs[1], y);
  }

  // By a scalar, or by one constant per channel, which writes the result.
  bool Times(NodeId id) {
    const Node& node = graph_.node(id);
    const ValueId y = node.outputs[0];
    for (const size_t slot : {size_t{1}, size_t{0}}) {
      const Tensor* const constant = Constant(node, slot);
      if (constant == nullptr) continue;
      const ValueId x = node.inputs[1 - slot];
      if (node.is("Div") && slot == 0) return false;
      if (IsScalar(*constant)) return Same(x, y);
      if (node.is("Div") || !first_.contains(y) || !IsPerChannelOf(*constant, y)) return false;
      // A sensor's integers are read without rounding as they are (input_grids).
      if (IsOfInput(graph_, x)) return false;
      constants_.push_back({{id, slot}, true});
      blocked_.insert(x);
      return true;
    }
    return false;
  }

  bool Normalization(NodeId id) {
    const Node& node = graph_.node(id);
    const ValueId y = node.outputs[0];
    if (!first_.contains(y)) return false;
    const Shape& shape = *graph_.value(y).shape;
    const int64_t axis = node.attributes.IntOr("axis", -1);
    if ((axis < 0 ? axis + shape.rank() : axis) != AxisIn(shape) ||
        AxisIn(shape) != shape.rank() - 1)
      return false;
    const size_t operands = node.input(2) == kNone ? 1 : 2;
    for (size_t slot = 1; slot <= operands; ++slot) {
      const Tensor* const constant = Constant(node, slot);
      if (constant == nullptr || !IsPerChannelOf(*constant, y)) return false;
    }
    for (size_t slot = 1; slot <= operands; ++slot) constants_.push_back({{id, slot}, true});
    blocked_.insert(node.inputs[0]);
    return true;
  }

  // A Clip from 0 whose upper end only ever moves nearer to 0: see UpperClip.
  bool Clip(const Node& node) {
    float ends[2];
    for (size_t i = 0; i < 2; ++i) {
      const ValueId end = node.input(i + 1);
      if (end == kNone || !graph_.value(end).is_constant()) return false;
      const Tensor& constant = graph_.value(end).constant;
      if (constant.dtype() != DType::kF32 || constant.elements() != 1) return false;
      ends[i] = constant.span<float>()[0];
    }
    if (ends[0] != 0 || !(ends[1] > 0)) return false;
    clips_[node.outputs[0]] = ends[1];
    return true;
  }

  bool Concat(const Node& node) {
    const ValueId y = node.outputs[0];
    const int64_t axis = node.attributes.IntOr("axis", 0);
    if (!first_.contains(y)) return false;
    const Shape& shape = *graph_.value(y).shape;
    if ((axis < 0 ? axis + shape.rank() : axis) != AxisIn(shape)) return false;
    if (!std::ranges::all_of(node.inputs, [&](ValueId x) { return first_.contains(x); }))
      return false;
    int64_t offset = 0;
    for (const ValueId x : node.inputs) {
      Join(x, y, offset);
      offset += Channels(x);
    }
    return true;
  }

  const Graph& graph_;
  const bool last_;
  DisjointSets groups_;  ///< Of values.
  DisjointSets channels_;
  std::map<ValueId, int64_t> first_;
  std::set<ValueId> blocked_;
  std::map<ValueId, float> clips_;
  std::vector<ValueId> stages_;  ///< Results of Slice and Pad.
  std::vector<WeightedNode> weighted_;
  std::vector<std::pair<ChannelConstant, bool>> constants_;  ///< And whether they write.
};

}  // namespace

ChannelLinks::ChannelLinks(const Graph& graph) {
  for (const int axis : {1, -1}) {
    Linker linker(graph, axis);
    std::vector<ChannelComponent> components = linker.Components();
    if (components.empty()) continue;
    const std::vector<int> classes = linker.Classes();
    const auto offset = std::ssize(classes_);
    for (const int of : classes) classes_.push_back(static_cast<int>(offset) + of);
    for (const ChannelComponent& component : components) {
      for (const ValueId id : component.values)
        channels_[id] = {offset + linker.first().at(id), linker.Channels(id), axis};
    }
    std::ranges::move(components, std::back_inserter(components_));
    clips_.merge(linker.clips());
  }
}

int ChannelLinks::AxisOf(ValueId value) const {
  const auto found = channels_.find(value);
  return found == channels_.end() ? 1 : found->second.axis;
}

int64_t ChannelLinks::ChannelsOf(ValueId value) const {
  const auto found = channels_.find(value);
  return found == channels_.end() ? 0 : found->second.count;
}

int ChannelLinks::ClassOf(ValueId value, size_t channel) const {
  const auto found = channels_.find(value);
  if (found == channels_.end()) return kNone;
  return classes_[static_cast<size_t>(found->second.first) + channel];
}

std::optional<float> ChannelLinks::UpperClip(ValueId value) const {
  const auto found = clips_.find(value);
  return found == clips_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace octet
