// pack_four_bits: weights that 4 bits hold stay so, behind what multiplies by reals.
//
//   A:f32 -> octet:MatMul(A, DequantizeLinear(c:i8 or u8 [K,N], s, z), bias) + post-ops
//     =>  A -> octet:FourBitMatMul(A, q:u8[N,K/2], s:f32[N,blocks], z:i8[N,blocks], bias) {K, block} + post-ops
//
// With scales per tensor, per column or in blocks along K: MatMulNBits, and what ONNX 21 has for INT4 and UINT4. The reals are the
// same. A product whose A stands for 8-bit integers multiplies integers instead (absorb_converts), unless its weights are in
// blocks, which no such kernel takes. Before a graph is cut into segments, what multiplies by weights in blocks is still ONNX's MatMul,
// and what follows it stays a node of its own.
#include "engine/passes/four_bit_weights.h"
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// Whether `value` is made of 8-bit integers by nothing but an octet:Convert, which may lie behind movements of elements.
bool StandsForIntegers(const Graph& graph, ValueId value) {
  while (const Node* node = ProducerOf(graph, value)) {
    if (node->is("Convert", kOctetDomain)) return IsTyped(graph.value(node->input(0)));
    if (!MovesElements(*node) || node->input(0) == kNone) return false;
    value = node->input(0);
  }
  return false;
}

bool IsInBlocks(const Graph& graph, ValueId reals) {
  const Node* node = ProducerOf(graph, reals);
  return node != nullptr && node->attributes.IntOr("block_size", 0) != 0;
}

bool Pack(Graph& graph, NodeId id, FourBitProducts products) {
  const Node node = graph.node(id);
  const bool plain = products == FourBitProducts::kPlain && node.is("MatMul");
  if ((!plain && !node.is("MatMul", kOctetDomain)) || node.in_bf16 ||
      node.attributes.IntOr("dynamic_quant", 0) != 0)
    return false;
  const ValueId a = node.input(0);
  const ValueId b = node.input(1);
  if (!IsPlainF32(graph, a) || !IsPlainF32(graph, node.output(0)) || RankOf(graph, a) < 2)
    return false;
  if (ProducerIf(graph, b, "DequantizeLinear") == kNone) return false;
  if (!IsInBlocks(graph, b) && (plain || StandsForIntegers(graph, a))) return false;
  for (size_t slot = 3; slot < node.inputs.size(); ++slot) {
    if (!IsPlainF32(graph, node.inputs[slot])) return false;
  }
  auto weights = ReadFourBitWeights(graph, b, node.attributes.IntOr("trans_b", 0) != 0);
  if (!weights) return false;
  const std::string name = graph.value(b).name;
  Node packed = MakeNode("FourBitMatMul", node, {a}, {}, kOctetDomain);
  packed.inputs.push_back(graph.AddConstant(name, std::move(weights->integers)));
  packed.inputs.push_back(graph.AddConstant(name, std::move(weights->scales)));
  packed.inputs.push_back(weights->zero_points.empty_handle()
                              ? kNone
                              : graph.AddConstant(name, std::move(weights->zero_points)));
  packed.inputs.push_back(node.input(2));
  for (size_t slot = 3; slot < node.inputs.size(); ++slot)
    packed.inputs.push_back(node.inputs[slot]);
  packed.attributes.Set("K", weights->k);
  packed.attributes.Set("block", weights->block);
  packed.post_ops = node.post_ops;
  // Two more inputs are the operator's own.
  for (PostOp& op : packed.post_ops) {
    if (op.operand != kNone) op.operand += 2;
  }
  Replace(graph, id, std::move(packed));
  return true;
}

}  // namespace

absl::StatusOr<int> PackFourBits(Graph& graph, const PassContext& context) {
  const FourBitProducts products = FourBitProductsOf(context);
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (Pack(graph, id, products)) ++count;
  }
  return count;
}

}  // namespace octet
