#include "engine/graph/graph.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

#include "engine/tensor/status.h"

namespace octet {
namespace {

// Removes one occurrence: consumers are listed once per reading slot.
void EraseOne(std::vector<NodeId>& nodes, NodeId node) {
  if (const auto found = std::ranges::find(nodes, node); found != nodes.end()) {
    *found = nodes.back();
    nodes.pop_back();
  }
}

}  // namespace

ValueId Graph::AddValue(Value value) {
  if (value.is_constant()) {
    value.dtype = value.constant.dtype();
    value.shape = value.constant.shape();
  }
  values_.push_back({std::move(value), kNone, {}, false});
  unlisted_.push_back(value_count() - 1);
  return value_count() - 1;
}

ValueId Graph::AddConstant(std::string_view hint, Tensor tensor, std::optional<QuantParams> quant) {
  Value value;
  value.name = UniqueName(hint);
  value.constant = std::move(tensor);
  value.quant = std::move(quant);
  return AddValue(std::move(value));
}

NodeId Graph::Register(Node node) {
  const NodeId id = static_cast<NodeId>(nodes_.size());
  for (const ValueId input : node.inputs) {
    if (input != kNone) values_[input].consumers.push_back(id);
  }
  for (const ValueId output : node.outputs) {
    if (output != kNone) values_[output].producer = id;
  }
  nodes_.push_back(std::move(node));
  alive_.push_back(true);
  return id;
}

NodeId Graph::AddNode(Node node) {
  const NodeId id = Register(std::move(node));
  order_.push_back(id);
  return id;
}

NodeId Graph::InsertNodeBefore(NodeId position, Node node) {
  const NodeId id = Register(std::move(node));
  order_.insert(std::ranges::find(order_, position), id);
  return id;
}

NodeId Graph::InsertNodeAfter(NodeId position, Node node) {
  const NodeId id = Register(std::move(node));
  const auto found = std::ranges::find(order_, position);
  order_.insert(found == order_.end() ? found : found + 1, id);
  return id;
}

bool Graph::is_graph_output(ValueId id) const {
  return std::ranges::find(outputs, id) != outputs.end();
}

bool Graph::is_graph_input(ValueId id) const {
  return std::ranges::find(inputs, id) != inputs.end();
}

NodeId Graph::SoleConsumer(ValueId id) const {
  const std::vector<NodeId>& readers = values_[id].consumers;
  return readers.size() == 1 && !is_graph_output(id) ? readers.front() : kNone;
}

ValueId Graph::FindValue(std::string_view value_name) const {
  for (ValueId id = 0; id < value_count(); ++id) {
    if (values_[id].value.name == value_name) return id;
  }
  return kNone;
}

NodeId Graph::FindNode(std::string_view node_name) const {
  for (const NodeId id : order_) {
    if (nodes_[id].name == node_name) return id;
  }
  return kNone;
}

void Graph::SetInput(NodeId node, size_t slot, ValueId value) {
  std::vector<ValueId>& slots = nodes_[node].inputs;
  if (slot >= slots.size()) slots.resize(slot + 1, kNone);
  if (slots[slot] != kNone) EraseOne(values_[slots[slot]].consumers, node);
  slots[slot] = value;
  if (value != kNone) values_[value].consumers.push_back(node);
}

size_t Graph::AppendInput(NodeId node, ValueId value) {
  const size_t slot = nodes_[node].inputs.size();
  SetInput(node, slot, value);
  return slot;
}

void Graph::SetOutput(NodeId node, size_t slot, ValueId value) {
  std::vector<ValueId>& slots = nodes_[node].outputs;
  if (slot >= slots.size()) slots.resize(slot + 1, kNone);
  const ValueId old = std::exchange(slots[slot], value);
  if (old != kNone && values_[old].producer == node) values_[old].producer = kNone;
  if (value != kNone) values_[value].producer = node;
}

void Graph::ReplaceUses(ValueId from, ValueId to) {
  if (from == to) return;
  for (const NodeId reader : std::exchange(values_[from].consumers, {})) {
    // Listed once per slot: each visit moves one slot.
    *std::ranges::find(nodes_[reader].inputs, from) = to;
    values_[to].consumers.push_back(reader);
  }
  if (!is_graph_output(from)) return;
  ValueId heir = to;
  if (is_graph_input(to) || is_graph_output(to)) heir = AddIdentity(to);
  std::ranges::replace(outputs, from, heir);
  std::string free_name = UniqueName(values_[from].value.name);
  mutable_value(heir).name = std::exchange(mutable_value(from).name, std::move(free_name));
}

ValueId Graph::AddIdentity(ValueId of) {
  Value copy = values_[of].value;
  copy.constant = Tensor();
  copy.name = UniqueName(copy.name);
  Node identity;
  identity.op = "Identity";
  identity.version = 14;
  for (const NodeId id : order_) {
    if (nodes_[id].domain == kOnnxDomain) identity.version = nodes_[id].version;
  }
  identity.inputs = {of};
  identity.outputs = {AddValue(std::move(copy))};
  const ValueId output = identity.outputs.front();
  AddNode(std::move(identity));
  return output;
}

void Graph::Unlink(NodeId id) {
  Node& node = nodes_[id];
  for (const ValueId input : node.inputs) {
    if (input != kNone) EraseOne(values_[input].consumers, id);
  }
  for (const ValueId output : node.outputs) {
    if (output != kNone && values_[output].producer == id) values_[output].producer = kNone;
  }
  node = Node();
  alive_[id] = false;
}

void Graph::RemoveNode(NodeId id) {
  Unlink(id);
  order_.erase(std::ranges::find(order_, id));
}

int Graph::RemoveDead() {
  int removed = 0;
  std::vector<bool> wanted(values_.size(), false);
  for (const ValueId output : outputs) wanted[output] = true;
  const auto read = [&](ValueId v) {
    return v != kNone && (wanted[v] || !values_[v].consumers.empty());
  };
  // Consumers before producers, so that a chain dies in one walk.
  for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
    if (std::ranges::any_of(nodes_[*it].outputs, read)) continue;
    Unlink(*it);
    ++removed;
  }
  std::erase_if(order_, [&](NodeId id) { return !alive_[id]; });
  for (ValueId id = 0; id < value_count(); ++id) {
    if (values_[id].value.is_constant() && !read(id)) values_[id].value.constant = Tensor();
  }
  return removed;
}

absl::Status Graph::Sort() {
  std::vector<int> waiting(nodes_.size(), 0);
  std::vector<int> position(nodes_.size(), 0);
  // Of the nodes that are ready, the one that stood first goes first: a sorted order stays as it is.
  std::priority_queue<std::pair<int, NodeId>, std::vector<std::pair<int, NodeId>>, std::greater<>>
      ready;
  for (size_t i = 0; i < order_.size(); ++i) {
    const NodeId id = order_[i];
    position[id] = static_cast<int>(i);
    for (const ValueId input : nodes_[id].inputs) {
      waiting[id] += input != kNone && values_[input].producer != kNone;
    }
    if (waiting[id] == 0) ready.emplace(position[id], id);
  }
  std::vector<NodeId> sorted;
  sorted.reserve(order_.size());
  while (!ready.empty()) {
    const NodeId id = ready.top().second;
    ready.pop();
    sorted.push_back(id);
    for (const ValueId output : nodes_[id].outputs) {
      if (output == kNone || values_[output].producer != id) continue;
      for (const NodeId reader : values_[output].consumers) {
        if (--waiting[reader] == 0) ready.emplace(position[reader], reader);
      }
    }
  }
  if (sorted.size() != order_.size()) return CycleError(waiting);
  order_ = std::move(sorted);
  return absl::OkStatus();
}

absl::Status Graph::CycleError(const std::vector<int>& waiting) const {
  // Nodes that still wait are on a cycle or behind one: walking against the edges ends on the cycle.
  NodeId at = *std::ranges::find_if(order_, [&](NodeId id) { return waiting[id] > 0; });
  std::vector<bool> seen(nodes_.size(), false);
  while (!seen[at]) {
    seen[at] = true;
    for (const ValueId input : nodes_[at].inputs) {
      const NodeId from = input == kNone ? kNone : values_[input].producer;
      if (from == kNone || waiting[from] == 0) continue;
      at = from;
      break;
    }
  }
  return InvalidArgument("the graph is cyclic: a node depends on its own output: {}",
                         Describe(nodes_[at]));
}

bool TouchesStrings(const Graph& graph, const Node& node) {
  const auto strings = [&](ValueId id) {
    return id != kNone && graph.value(id).dtype == DType::kString;
  };
  return std::ranges::any_of(node.inputs, strings) || std::ranges::any_of(node.outputs, strings);
}

std::string Graph::UniqueName(std::string_view hint) {
  for (const ValueId id : unlisted_) {
    names_.insert(values_[id].value.name);
    values_[id].listed = true;
  }
  unlisted_.clear();
  std::string candidate(hint);
  while (candidate.empty() || !names_.insert(candidate).second) {
    candidate = Format("{}_{}", hint, next_unique_++);
  }
  return candidate;
}

void Graph::MarkUnlisted(ValueId id) {
  names_.erase(values_[id].value.name);
  values_[id].listed = false;
  unlisted_.push_back(id);
}

}  // namespace octet
