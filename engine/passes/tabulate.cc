// tabulate: what an elementwise node, or several behind each other, make of one 8-bit value has 256 results.
//
//   x:u8{s} -> Sigmoid -> a:u8{t} --> Mul -> y:u8{v}     =>  x -> octet:Table(256 bytes) -> y
//         \--------------------------/
//
// Exact: the table is what the nodes' reference kernels answer, with every rounding in between.
#include <cstring>
#include <numeric>

#include "engine/graph/stored_value.h"
#include "engine/ops/op.h"
#include "engine/ops/reference_step.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kBytes = 256;

bool IsTable(const Graph& graph, NodeId node) {
  return node != kNone && graph.node(node).is("Table", kOctetDomain);
}

/// The value that `input` is a function of: the source of its table, or itself.
ValueId SourceOf(const Graph& graph, ValueId input) {
  const NodeId producer = graph.producer(input);
  return IsTable(graph, producer) ? graph.node(producer).input(0) : input;
}

bool IsElementwise(const Node& node) {
  const OpDef* def = FindOp(node);
  if (def == nullptr || def->traits.no_fold || def->kernel == nullptr) return false;
  return def->traits.elementwise_unary || def->traits.elementwise_broadcast;
}

/// The one typed 8-bit value that the node's output is a function of, element by element; kNone.
ValueId OnlySource(const Graph& graph, const Node& node) {
  if (!IsElementwise(node) || node.outputs.size() != 1 || node.is("Table", kOctetDomain))
    return kNone;
  if (!IsTypedInt8(graph.value(node.output(0)))) return kNone;
  ValueId source = kNone;
  for (const ValueId input : node.inputs) {
    if (input == kNone || graph.value(input).is_constant()) continue;
    const ValueId of = SourceOf(graph, input);
    if (!IsTypedInt8(graph.value(of)) || (source != kNone && source != of)) return kNone;
    source = of;
  }
  if (source == kNone || RankOf(graph, source) < 0) return kNone;
  for (const ValueId input : node.inputs) {
    if (input == kNone || !graph.value(input).is_constant()) continue;
    if (graph.value(input).constant.elements() != 1 || RankOf(graph, input) > RankOf(graph, source))
      return kNone;
  }
  return source;
}

/// What the node answers to each byte of `source`.
absl::StatusOr<Tensor> Tabulated(const Graph& graph, Node node, ValueId source) {
  Graph alone;
  std::vector<Tensor> bytes;
  for (ValueId& input : node.inputs) {
    if (input == kNone) continue;
    Value value = graph.value(input);
    if (!value.is_constant()) {
      value.shape = Shape{kBytes};
      if (input == source) {
        value.constant = Tensor(value.dtype, *value.shape);
        auto* byte = static_cast<uint8_t*>(value.constant.mutable_data());
        std::iota(byte, byte + kBytes, uint8_t{0});
      } else {
        // The table has bytes without a sign; the value says how they are read.
        const Tensor& table = graph.value(graph.node(graph.producer(input)).input(1)).constant;
        value.constant = Tensor(value.dtype, *value.shape);
        std::memcpy(value.constant.mutable_data(), table.data(), kBytes);
      }
    } else {
      // One element, of as many axes as the source has; the row of bytes has one.
      value.shape = Shape{1};
      value.constant = value.constant.Reshaped(*value.shape);
    }
    input = alone.AddValue(std::move(value));
  }
  Value result = graph.value(node.output(0));
  result.shape = Shape{kBytes};
  node.outputs = {alone.AddValue(std::move(result))};
  alone.outputs = node.outputs;
  alone.AddNode(std::move(node));
  OCTET_ASSIGN_OR_RETURN(const std::vector<Tensor> results, Evaluate(alone, {}));
  Tensor table(DType::kU8, Shape{kBytes});
  std::memcpy(table.mutable_data(), results[0].data(), kBytes);
  return table;
}

}  // namespace

absl::StatusOr<int> Tabulate(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    const ValueId source = OnlySource(graph, graph.node(id));
    if (source == kNone) continue;
    const Node& node = graph.node(id);
    OCTET_ASSIGN_OR_RETURN(Tensor table, Tabulated(graph, node, source));
    const ValueId bytes = graph.AddConstant(node.name + "_table", std::move(table));
    Replace(graph, id, MakeNode("Table", node, {source, bytes}, {}, kOctetDomain));
    ++count;
  }
  return count;
}

}  // namespace octet
