#include "engine/plan/buffer_map.h"

#include <algorithm>

namespace octet {

using Kind = Location::Kind;

BufferMap::BufferMap(const Graph& graph, const std::vector<bool>& is_view)
    : graph_(graph), parent_(graph.value_count()), groups_(graph.value_count()) {
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    parent_[id] = id;
    const Value& value = graph.value(id);
    if (value.has_static_shape()) groups_[id].bytes = TensorSpec{value.dtype, *value.shape}.bytes();
    if (value.is_constant()) groups_[id].location = {Kind::kConstant, id};
  }
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    groups_[graph.inputs[i]].location = {Kind::kInput, static_cast<int32_t>(i)};
  }
  const std::span<const NodeId> order = graph.order();
  for (size_t p = 0; p < order.size(); ++p) {
    const Node& node = graph.node(order[p]);
    const int position = static_cast<int>(p);
    if (is_view[p]) {
      Merge(node.inputs[0], node.outputs[0]);
      continue;
    }
    for (const ValueId id : node.inputs) {
      if (id == kNone) continue;
      Group& group = groups_[Find(id)];
      group.reader_slots_at_last = group.last == position ? group.reader_slots_at_last + 1 : 1;
      group.last = position;
    }
    for (const ValueId id : node.outputs) {
      if (id == kNone) continue;
      Group& group = groups_[id];
      group.location = {Kind::kArena, kNone};
      group.first = group.last = position;
    }
  }
  PlaceOutputs();
}

// A buffer that a step writes and that is an output of the graph lives in the caller's memory.
void BufferMap::PlaceOutputs() {
  for (size_t i = 0; i < graph_.outputs.size(); ++i) {
    Group& group = groups_[Find(graph_.outputs[i])];
    if (group.location.kind == Kind::kArena) {
      group.location = {Kind::kOutput, static_cast<int32_t>(i)};
    }
  }
}

int32_t BufferMap::Find(ValueId id) const {
  while (parent_[id] != id) id = parent_[id];
  return id;
}

void BufferMap::Merge(ValueId into, ValueId id) {
  const int32_t root = Find(into);
  const int32_t child = Find(id);
  parent_[child] = root;
  Group& group = groups_[root];
  const Group& merged = groups_[child];
  if (merged.last > group.last) {
    group.last = merged.last;
    group.reader_slots_at_last = merged.reader_slots_at_last;
  }
}

bool BufferMap::MayOverwrite(int position, size_t slot) const {
  const Node& node = graph_.node(graph_.order()[position]);
  if (node.input(slot) == kNone || node.output(0) == kNone) return false;
  const Group& input = groups_[Find(node.inputs[slot])];
  const Group& output = groups_[Find(node.outputs[0])];
  return input.location.kind == Kind::kArena && output.location.kind == Kind::kArena &&
         input.last == position && input.reader_slots_at_last == 1 && input.bytes == output.bytes;
}

void BufferMap::Overwrite(int position, size_t slot) {
  const Node& node = graph_.node(graph_.order()[position]);
  Merge(node.inputs[slot], node.outputs[0]);
}

std::vector<BufferMap::Buffer> BufferMap::TakeArenaBuffers() {
  std::vector<Buffer> buffers;
  for (ValueId id = 0; id < graph_.value_count(); ++id) {
    Group& group = groups_[id];
    if (Find(id) != id || group.location.kind != Kind::kArena) continue;
    group.location.index = static_cast<int32_t>(buffers.size());
    buffers.push_back({group.bytes, group.first, group.last});
  }
  return buffers;
}

std::vector<BufferMap::Copy> BufferMap::OutputCopies() const {
  std::vector<Copy> copies;
  for (size_t i = 0; i < graph_.outputs.size(); ++i) {
    const Group& group = groups_[Find(graph_.outputs[i])];
    const Location here{Kind::kOutput, static_cast<int32_t>(i)};
    if (group.location != here) copies.push_back({group.location, here.index, group.bytes});
  }
  return copies;
}

}  // namespace octet
