#include "engine/quantize/channel_links.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <set>
#include <string_view>

namespace octet {
namespace {

constexpr std::array<std::string_view, 7> kPassOps = {
    "Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout"};
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

bool HasChannels(const Value& value) {
  return !value.is_constant() && value.dtype == DType::kF32 && value.shape &&
         value.shape->rank() >= 2 && (*value.shape)[1] > 0;
}

class Linker {
 public:
  explicit Linker(const Graph& graph)
      : graph_(graph), groups_(static_cast<size_t>(graph.value_count())), channels_(0) {
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
    std::vector<ChannelComponent> components;
    for (auto& [group, component] : found) {
      if (!blocked.contains(group) && !component.writers.empty() && !component.readers.empty())
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

 private:
  int64_t Channels(ValueId id) const { return (*graph_.value(id).shape)[1]; }

  // False where a factor does not pass; the node's values are then left alone.
  bool Link(NodeId id) {
    const Node& node = graph_.node(id);
    if (const auto weighted = AsWeighted(graph_, id)) {
      const ValueId x = node.inputs[0];
      if (!first_.contains(x) || !first_.contains(node.outputs[0])) return false;
      if (!node.is("Conv") && graph_.value(x).shape->rank() != 2) return false;
      weighted_.push_back(*weighted);
      return true;
    }
    if (node.domain != kOnnxDomain || node.inputs.empty()) return false;
    const ValueId x = node.inputs[0];
    const ValueId y = node.outputs[0];
    if (std::ranges::find(kPassOps, node.op) != kPassOps.end()) return Same(x, y);
    if (std::ranges::find(kFlattenOps, node.op) != kFlattenOps.end()) return Flat(x, y);
    if (node.op == "Clip") return Clip(node) && Same(x, y);
    if (node.op == "Add") return Same(x, y) && Same(node.inputs[1], y);
    return node.op == "Concat" && Concat(node);
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
    if (!first_.contains(y) || node.attributes.IntOr("axis", 0) != 1) return false;
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
  DisjointSets groups_;  ///< Of values.
  DisjointSets channels_;
  std::map<ValueId, int64_t> first_;
  std::set<ValueId> blocked_;
  std::map<ValueId, float> clips_;
  std::vector<WeightedNode> weighted_;
};

}  // namespace

ChannelLinks::ChannelLinks(const Graph& graph) {
  Linker linker(graph);
  components_ = linker.Components();
  classes_ = linker.Classes();
  first_ = std::move(linker.first());
  clips_ = std::move(linker.clips());
}

int ChannelLinks::ClassOf(ValueId value, size_t channel) const {
  const auto found = first_.find(value);
  return found == first_.end() ? kNone : classes_[static_cast<size_t>(found->second) + channel];
}

std::optional<float> ChannelLinks::UpperClip(ValueId value) const {
  const auto found = clips_.find(value);
  return found == clips_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace octet
