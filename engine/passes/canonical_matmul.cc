// canonical_matmul: one operator for every matrix product, with the bias and the transposition that kernels know.
//
//   A:f32[M,K], B:f32[N,K] -> Gemm {transB, alpha, beta} + C:f32[N]
//     =>  octet:MatMul(A, alpha * B, beta * C) {trans_b=1}
//   A:f32[..,M,K], Transpose(B:f32[..,N,K]) -> MatMul
//     =>  octet:MatMul(A, B) {trans_b=1}
//   a:f32[K], B:f32[..,K,N] -> MatMul
//     =>  Squeeze(octet:MatMul(a as [1,K], B))
//   A:f32[..,M,K], b:f32[K] -> MatMul
//     =>  Squeeze(octet:MatMul(A, b as [1,K]) {trans_b=1})
//
// What no constant takes in stays an operator: transA a Transpose, alpha a Mul, a C that is no [N] constant an Add.
#include <utility>
#include <vector>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

// The perm that swaps the last two of `rank` axes.
Permutation SwapLastTwo(int rank) {
  Permutation perm;
  for (int i = 0; i < rank; ++i) perm.push_back(i);
  std::swap(perm[rank - 1], perm[rank - 2]);
  return perm;
}

// The value whose matrices are transposed to `b` by a Transpose that does nothing else, else kNone.
ValueId Untransposed(const Graph& graph, ValueId b, int rank) {
  const NodeId transpose = ProducerIf(graph, b, "Transpose");
  if (transpose == kNone) return kNone;
  const auto perm = graph.node(transpose).attributes.Ints("perm", {});
  if (!perm.ok() || *perm != SwapLastTwo(rank)) return kNone;
  return graph.node(transpose).input(0);
}

// [K] as [1, K]: the same elements.
ValueId AsRow(Graph& graph, NodeId position, ValueId vector) {
  if (const Tensor* constant = ConstantOf(graph, vector))
    return graph.AddConstant(graph.value(vector).name,
                             constant->Reshaped(Shape{1, constant->elements()}));
  const ValueId row = AddValue(graph, graph.value(vector).name + "_row", DType::kF32);
  const ValueId axes = AddInts(graph, "axes", std::vector<int64_t>{0});
  graph.InsertNodeBefore(position,
                         MakeNode("Unsqueeze", graph.node(position), {vector, axes}, {row}));
  return row;
}

// A vector is a matrix of one row, or of one column, and the result lacks the axis.
bool RewriteVectorProduct(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  std::vector<int64_t> lacks;
  ValueId a = node.input(0);
  ValueId b = node.input(1);
  const bool row = RankOf(graph, a) == 1;
  const bool column = RankOf(graph, b) == 1;
  if (row) lacks.push_back(-2);
  if (column) lacks.push_back(-1);
  if (row) a = AsRow(graph, id, a);
  if (column) b = AsRow(graph, id, b);
  const ValueId y = AddValue(graph, node.name + "_product", DType::kF32);
  Node product = MakeNode("MatMul", node, {a, b}, {y}, kOctetDomain);
  product.in_bf16 = node.in_bf16;
  product.attributes.Set("trans_b", int64_t{column ? 1 : 0});
  graph.InsertNodeBefore(id, std::move(product));
  Replace(graph, id, MakeNode("Squeeze", node, {y, AddInts(graph, "axes", lacks)}, {}));
  return true;
}

bool RewriteMatMul(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  const ValueId a = node.input(0);
  const ValueId b = node.input(1);
  const int rank = RankOf(graph, b);
  if (!IsPlainF32(graph, a) || !IsPlainF32(graph, b) || RankOf(graph, a) < 1 || rank < 1)
    return false;
  if (RankOf(graph, a) == 1 || rank == 1) return RewriteVectorProduct(graph, id);
  const ValueId untransposed = Untransposed(graph, b, rank);
  const ValueId right = untransposed == kNone ? b : untransposed;
  Node product = MakeNode("MatMul", node, {a, right}, {}, kOctetDomain);
  product.in_bf16 = node.in_bf16;
  product.attributes.Set("trans_b", int64_t{untransposed == kNone ? 0 : 1});
  Replace(graph, id, std::move(product));
  return true;
}

ValueId ScaledConstant(Graph& graph, ValueId constant, float factor) {
  if (factor == 1.0F) return constant;
  const Tensor tensor = graph.value(constant).constant;
  std::vector<float> floats = *FloatsOf(graph, constant);
  for (float& f : floats) f *= factor;
  return AddFloats(graph, graph.value(constant).name, tensor.shape(), std::move(floats));
}

// Writes `factor * value` with a Mul before `position`; `value` itself when factor is 1.
ValueId Scaled(Graph& graph, NodeId position, ValueId value, float factor) {
  if (factor == 1.0F) return value;
  if (FloatsOf(graph, value)) return ScaledConstant(graph, value, factor);
  const ValueId scale = AddFloats(graph, "factor", Shape{}, {factor});
  const ValueId scaled = AddValueLike(graph, value, "_scaled");
  graph.InsertNodeBefore(position, MakeNode("Mul", graph.node(position), {value, scale}, {scaled}));
  return scaled;
}

// C as the bias of N elements that octet:MatMul takes, or kNone when it is something else.
ValueId BiasOf(Graph& graph, ValueId c, float beta, int64_t columns) {
  auto bias = PerChannel(graph, c, 2, 1, columns);
  if (!bias) return kNone;
  for (float& f : *bias) f *= beta;
  return AddFloats(graph, graph.value(c).name, Shape{columns}, *std::move(bias));
}

absl::StatusOr<bool> RewriteGemm(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  ValueId a = node.input(0);
  ValueId b = node.input(1);
  const ValueId c = node.input(2);
  if (!IsPlainF32(graph, a) || !IsPlainF32(graph, b) || RankOf(graph, a) != 2 ||
      RankOf(graph, b) != 2) {
    return false;
  }
  OCTET_ASSIGN_OR_RETURN(float alpha, node.attributes.Float("alpha", 1.0F));
  OCTET_ASSIGN_OR_RETURN(const float beta, node.attributes.Float("beta", 1.0F));
  const bool transposed = node.attributes.IntOr("transB", 0) != 0;
  if (alpha != 1.0F && FloatsOf(graph, b)) {
    b = ScaledConstant(graph, b, alpha);
    alpha = 1.0F;
  }
  const int64_t columns = (*graph.value(b).shape)[transposed ? 0 : 1];
  const ValueId bias = alpha == 1.0F && c != kNone ? BiasOf(graph, c, beta, columns) : kNone;
  Node product = MakeNode("MatMul", node, {a, b}, {}, kOctetDomain);
  product.in_bf16 = node.in_bf16;
  if (bias != kNone) product.inputs.push_back(bias);
  product.attributes.Set("trans_b", int64_t{transposed ? 1 : 0});
  const bool adds = c != kNone && bias == kNone;
  NodeId made = kNone;
  if (adds) {
    const ValueId ab = AddValueLike(graph, node.output(0), "_product");
    product.outputs = {ab};
    made = graph.InsertNodeBefore(id, std::move(product));
    const ValueId scaled = Scaled(graph, id, ab, alpha);
    const ValueId addend = Scaled(graph, id, c, beta);
    Replace(graph, id, MakeNode("Add", node, {scaled, addend}, {}));
  } else if (alpha != 1.0F) {
    const ValueId ab = AddValueLike(graph, node.output(0), "_product");
    product.outputs = {ab};
    made = graph.InsertNodeBefore(id, std::move(product));
    const ValueId factor = AddFloats(graph, node.name + "_alpha", Shape{}, {alpha});
    Replace(graph, id, MakeNode("Mul", node, {ab, factor}, {}));
  } else {
    made = Replace(graph, id, std::move(product));
  }
  if (node.attributes.IntOr("transA", 0) != 0) TransposeInput(graph, made, 0, {1, 0});
  return true;
}

}  // namespace

absl::StatusOr<int> CanonicalMatMul(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (graph.node(id).is("MatMul") && RewriteMatMul(graph, id)) ++count;
    if (graph.node(id).is("Gemm")) {
      OCTET_ASSIGN_OR_RETURN(const bool made, RewriteGemm(graph, id));
      count += made ? 1 : 0;
    }
  }
  return count;
}

}  // namespace octet
