#include "engine/passes/rewrite.h"

#include <algorithm>
#include <utility>

#include "engine/passes/match.h"
#include "engine/tensor/format.h"

namespace octet {

Node MakeNode(std::string_view op, const Node& origin, std::vector<ValueId> inputs,
              std::vector<ValueId> outputs, std::string_view domain) {
  Node node;
  node.name = origin.name;
  node.op = op;
  node.domain = domain;
  node.version = domain == kOnnxDomain ? kPassOpset : 1;
  node.inputs = std::move(inputs);
  node.outputs = std::move(outputs);
  return node;
}

ValueId AddValue(Graph& graph, std::string_view hint, DType dtype, std::optional<Shape> shape,
                 std::optional<QuantParams> quant) {
  Value value;
  value.name = graph.UniqueName(hint);
  value.dtype = dtype;
  value.shape = std::move(shape);
  value.quant = std::move(quant);
  return graph.AddValue(std::move(value));
}

ValueId AddValueLike(Graph& graph, ValueId like, std::string_view suffix) {
  const Value& value = graph.value(like);
  return AddValue(graph, Format("{}{}", value.name, suffix), value.dtype, value.shape, value.quant);
}

ValueId AddFloats(Graph& graph, std::string_view hint, Shape shape, std::vector<float> floats) {
  const auto owner = std::make_shared<const std::vector<float>>(std::move(floats));
  return graph.AddConstant(hint, Tensor(DType::kF32, std::move(shape), owner, owner->data()));
}

ValueId AddInts(Graph& graph, std::string_view hint, std::span<const int64_t> ints) {
  return graph.AddConstant(hint,
                           Tensor::From<int64_t>(Shape{static_cast<int64_t>(ints.size())}, ints));
}

bool MayReplace(const Graph& graph, ValueId from, ValueId to) {
  if (!graph.is_graph_output(from)) return true;
  return !graph.is_graph_output(to) && !graph.is_graph_input(to) && !graph.value(to).is_constant();
}

bool Bypass(Graph& graph, NodeId node, size_t slot) {
  const ValueId from = graph.node(node).output(0);
  const ValueId to = graph.node(node).input(slot);
  if (!MayReplace(graph, from, to)) return false;
  graph.RemoveNode(node);
  graph.ReplaceUses(from, to);
  return true;
}

void TakeOver(Graph& graph, NodeId node, NodeId next) {
  const ValueId output = graph.node(next).output(0);
  graph.RemoveNode(next);
  graph.SetOutput(node, 0, output);
}

NodeId Replace(Graph& graph, NodeId old, Node replacement) {
  const ValueId output = graph.node(old).output(0);
  replacement.outputs = {AddValueLike(graph, output, "_new")};
  const NodeId id = graph.InsertNodeBefore(old, std::move(replacement));
  graph.RemoveNode(old);
  graph.SetOutput(id, 0, output);
  return id;
}

bool InputTakesTranspose(const Graph& graph, NodeId node, size_t slot, int rank) {
  const ValueId id = graph.node(node).input(slot);
  if (id == kNone) return true;
  const Value& value = graph.value(id);
  if (value.is_constant()) {
    const int own = value.constant.shape().rank();
    return own <= rank && (!value.quant || value.quant->per_tensor());
  }
  if (value.quant && !value.quant->per_tensor()) return false;
  return RankOf(graph, id) == rank;
}

int RewriteEach(Graph& graph, std::initializer_list<std::string_view> ops,
                bool (*rewrite)(Graph& graph, NodeId node)) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (!graph.alive(id)) continue;
    const Node& node = graph.node(id);
    const auto is_named = [&](std::string_view op) { return node.is(op); };
    if (ops.size() > 0 && std::ranges::none_of(ops, is_named)) continue;
    if (rewrite(graph, id)) ++count;
  }
  return count;
}

void TransposeInput(Graph& graph, NodeId node, size_t slot, const Permutation& perm) {
  const ValueId id = graph.node(node).input(slot);
  if (id == kNone || IsIdentity(perm)) return;
  const Value value = graph.value(id);
  if (value.is_constant()) {
    if (value.constant.elements() == 1) return;
    Shape shape;
    const int missing = static_cast<int>(perm.size()) - value.constant.shape().rank();
    for (int i = 0; i < missing; ++i) shape.push_back(1);
    for (const int64_t extent : value.constant.shape()) shape.push_back(extent);
    Tensor moved = Permute(value.constant.Reshaped(shape), perm);
    graph.SetInput(node, slot, graph.AddConstant(value.name, std::move(moved), value.quant));
    return;
  }
  if (const NodeId producer = ProducerIf(graph, id, "Transpose"); producer != kNone) {
    const auto first = graph.node(producer).attributes.Ints("perm", {});
    if (first.ok() && first->size() == perm.size() && IsIdentity(Compose(*first, perm))) {
      graph.SetInput(node, slot, graph.node(producer).input(0));
      return;
    }
  }
  std::optional<Shape> shape;
  if (value.shape) shape = Permute(*value.shape, perm);
  const ValueId moved =
      AddValue(graph, Format("{}_t", value.name), value.dtype, shape, value.quant);
  Node transpose = MakeNode("Transpose", graph.node(node), {id}, {moved});
  transpose.attributes.Set("perm", perm);
  graph.InsertNodeBefore(node, std::move(transpose));
  graph.SetInput(node, slot, moved);
}

void TransposeOutput(Graph& graph, NodeId node, size_t slot, const Permutation& perm) {
  const ValueId output = graph.node(node).output(slot);
  if (output == kNone || IsIdentity(perm)) return;
  const ValueId inner = AddValueLike(graph, output, "_t");
  if (const auto& shape = graph.value(output).shape) {
    graph.mutable_value(inner).shape = Permute(*shape, Inverse(perm));
  }
  graph.SetOutput(node, slot, inner);
  Node transpose = MakeNode("Transpose", graph.node(node), {inner}, {output});
  transpose.attributes.Set("perm", perm);
  graph.InsertNodeAfter(node, std::move(transpose));
}

}  // namespace octet
