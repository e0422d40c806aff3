#include "engine/quantize/plain_products.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/ops/op.h"
#include "engine/passes/expand.h"
#include "engine/passes/match.h"
#include "engine/passes/permutation.h"
#include "engine/passes/rewrite.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

bool IsConstantFloat(const Graph& graph, ValueId id) {
  const Tensor* constant = ConstantOf(graph, id);
  return constant != nullptr && constant->dtype() == DType::kF32;
}

bool IsActivation(const Graph& graph, ValueId id) {
  return IsPlainF32(graph, id) && ConstantOf(graph, id) == nullptr;
}

// A constant matrix behind leading extents of 1, as [rows, columns]; nullopt of anything else.
std::optional<Tensor> AsMatrix(const Graph& graph, ValueId id) {
  if (!IsConstantFloat(graph, id)) return std::nullopt;
  const Tensor& constant = *ConstantOf(graph, id);
  const Shape& shape = constant.shape();
  const int rank = shape.rank();
  if (rank < 2 || shape.elements(0, rank - 2) != 1) return std::nullopt;
  return constant.Reshaped(Shape{shape[rank - 2], shape[rank - 1]});
}

Permutation SwapLastTwo(int rank) {
  Permutation perm(static_cast<size_t>(rank));
  std::iota(perm.begin(), perm.end(), 0);
  std::swap(perm[static_cast<size_t>(rank) - 1], perm[static_cast<size_t>(rank) - 2]);
  return perm;
}

// What a MatMul has of axes that one operand alone has, all of extent 1, in front of a product.
void AddLeadingAxes(Graph& graph, NodeId product, int missing) {
  if (missing <= 0) return;
  std::vector<int64_t> axes(static_cast<size_t>(missing));
  std::iota(axes.begin(), axes.end(), 0);
  const ValueId output = graph.node(product).output(0);
  const ValueId inner = AddValue(graph, graph.node(product).name + "_product", DType::kF32);
  graph.SetOutput(product, 0, inner);
  Node unsqueeze =
      MakeNode("Unsqueeze", graph.node(product), {inner, AddInts(graph, "axes", axes)}, {output});
  graph.InsertNodeAfter(product, std::move(unsqueeze));
}

bool RewriteMatMul(Graph& graph, NodeId id) {
  const ValueId left = graph.node(id).input(0);
  const ValueId right = graph.node(id).input(1);
  const bool reversed = IsConstantFloat(graph, left);
  const ValueId x = reversed ? right : left;
  const ValueId constant = reversed ? left : right;
  const int rank = RankOf(graph, x);
  if (rank < 1 || !IsActivation(graph, x)) return false;
  auto matrix = AsMatrix(graph, constant);
  const int constant_rank = RankOf(graph, constant);
  if (!matrix || (!reversed && constant_rank == 2)) return false;
  if (reversed) matrix = Permute(*matrix, {1, 0});
  const ValueId weights = graph.AddConstant(graph.value(constant).name, *std::move(matrix));
  graph.SetInput(id, 0, x);
  graph.SetInput(id, 1, weights);
  AddLeadingAxes(graph, id, constant_rank - std::max(rank, 2));
  if (!reversed || rank == 1) return true;
  TransposeInput(graph, id, 0, SwapLastTwo(rank));
  TransposeOutput(graph, id, 0, SwapLastTwo(rank));
  return true;
}

// The constant times a factor, where all of it is as finite as before.
std::optional<ValueId> Scaled(Graph& graph, ValueId constant, float factor) {
  if (factor == 1.0F) return constant;
  std::vector<float> floats = *FloatsOf(graph, constant);
  for (float& f : floats) {
    const bool finite = std::isfinite(f);
    f *= factor;
    if (finite && !std::isfinite(f)) return std::nullopt;
  }
  const Shape shape = graph.value(constant).constant.shape();
  return AddFloats(graph, graph.value(constant).name, shape, std::move(floats));
}

// The node is a Gemm whose C is an Add behind it.
void MoveAddendOut(Graph& graph, NodeId id, ValueId addend, float beta) {
  const Node gemm = graph.node(id);
  const ValueId output = gemm.output(0);
  const ValueId product = AddValueLike(graph, output, "_product");
  graph.SetOutput(id, 0, product);
  graph.SetInput(id, 2, kNone);
  NodeId last = id;
  if (beta != 1.0F) {
    const ValueId scaled = AddValueLike(graph, addend, "_scaled");
    const ValueId factor = AddFloats(graph, "beta", Shape{}, {beta});
    last = graph.InsertNodeAfter(id, MakeNode("Mul", gemm, {addend, factor}, {scaled}));
    addend = scaled;
  }
  graph.InsertNodeAfter(last, MakeNode("Add", gemm, {product, addend}, {output}));
}

// Gemm(A, x, C) of a constant A is the transpose of a Gemm of x and A. A C with one element for each row of A is its bias then, any other
// an Add behind it.
absl::StatusOr<bool> TurnGemm(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  const ValueId a = node.input(0);
  const ValueId c = node.input(2);
  if (!IsConstantFloat(graph, a) || RankOf(graph, a) != 2 || !IsActivation(graph, node.input(1)) ||
      RankOf(graph, node.input(1)) != 2)
    return false;
  if (c != kNone && !IsPlainF32(graph, c)) return false;
  OCTET_ASSIGN_OR_RETURN(const float alpha, node.attributes.Float("alpha", 1.0F));
  OCTET_ASSIGN_OR_RETURN(const float beta, node.attributes.Float("beta", 1.0F));
  const bool transposed_a = node.attributes.IntOr("transA", 0) != 0;
  const bool transposed_x = node.attributes.IntOr("transB", 0) != 0;
  const int64_t rows = (*graph.value(a).shape)[transposed_a ? 1 : 0];
  const std::optional<std::vector<float>> bias = PerChannel(graph, c, 2, 0, rows);
  const std::optional<ValueId> weights = Scaled(graph, a, alpha);
  std::optional<ValueId> addend = c;
  if (bias) addend = Scaled(graph, AddFloats(graph, graph.value(c).name, Shape{rows}, *bias), beta);
  if (!weights || !addend) return false;
  graph.SetInput(id, 0, node.input(1));
  graph.SetInput(id, 1, *weights);
  if (bias) graph.SetInput(id, 2, *addend);
  if (c != kNone && !bias) MoveAddendOut(graph, id, c, beta);
  Attributes& attributes = graph.mutable_node(id).attributes;
  for (const std::string_view name : {"alpha", "beta", "transA"}) attributes.Erase(name);
  attributes.Set("transB", int64_t{transposed_a ? 0 : 1});
  if (!transposed_x) TransposeInput(graph, id, 0, {1, 0});
  TransposeOutput(graph, id, 0, {1, 0});
  return true;
}

absl::StatusOr<bool> RewriteGemm(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  if (IsConstantFloat(graph, node.input(0))) return TurnGemm(graph, id);
  const ValueId b = node.input(1);
  const ValueId c = node.input(2);
  if (!IsActivation(graph, node.input(0)) || RankOf(graph, node.input(0)) != 2 ||
      !IsConstantFloat(graph, b) || RankOf(graph, b) != 2)
    return false;
  OCTET_ASSIGN_OR_RETURN(const float alpha, node.attributes.Float("alpha", 1.0F));
  OCTET_ASSIGN_OR_RETURN(const float beta, node.attributes.Float("beta", 1.0F));
  const bool transposed = node.attributes.IntOr("transA", 0) != 0;
  const int64_t columns = (*graph.value(b).shape)[node.attributes.IntOr("transB", 0) != 0 ? 0 : 1];
  const auto bias = PerChannel(graph, c, 2, 1, columns);
  const bool whole = c == kNone || (bias && ConstantOf(graph, c)->elements() == columns);
  if (alpha == 1.0F && beta == 1.0F && !transposed && whole) return false;
  if (c != kNone && !bias && !IsPlainF32(graph, c)) return false;
  const std::optional<ValueId> weights = Scaled(graph, b, alpha);
  std::optional<ValueId> addend = c;
  if (bias) {
    addend = Scaled(graph, AddFloats(graph, graph.value(c).name, Shape{columns}, *bias), beta);
  }
  if (!weights || !addend) return false;
  graph.SetInput(id, 1, *weights);
  for (const std::string_view name : {"alpha", "beta", "transA"})
    graph.mutable_node(id).attributes.Erase(name);
  if (bias) graph.SetInput(id, 2, *addend);
  if (c != kNone && !bias) MoveAddendOut(graph, id, c, beta);
  if (transposed) TransposeInput(graph, id, 0, {1, 0});
  return true;
}

// How FusedMatMul turns an operand: first axis 0 behind the batch, then the last two swapped.
Permutation Turn(int rank, bool batch, bool matrix) {
  Permutation perm(static_cast<size_t>(rank));
  std::iota(perm.begin(), perm.end(), 0);
  if (rank < 2) return perm;
  if (batch) std::rotate(perm.begin(), perm.begin() + 1, perm.end() - 1);
  if (matrix) std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
  return perm;
}

// The MatMul of what FusedMatMul multiplies once it has turned and scaled it.
absl::StatusOr<bool> RewriteFused(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  if (node.inputs.size() != 2) return false;
  const size_t slot = IsConstantFloat(graph, node.input(0)) ? 0 : 1;
  const ValueId constant = node.input(slot);
  const int rank = RankOf(graph, node.input(1 - slot));
  if (!IsConstantFloat(graph, constant) || rank < 1 || !IsActivation(graph, node.input(1 - slot)))
    return false;
  OCTET_ASSIGN_OR_RETURN(const float alpha, node.attributes.Float("alpha", 1.0F));
  std::array<Permutation, 2> turns;
  for (size_t i = 0; i < turns.size(); ++i) {
    const bool batch = node.attributes.IntOr(i == 0 ? "transBatchA" : "transBatchB", 0) != 0;
    const bool matrix = node.attributes.IntOr(i == 0 ? "transA" : "transB", 0) != 0;
    turns[i] = Turn(RankOf(graph, node.input(i)), batch, matrix);
  }
  const std::optional<ValueId> scaled = Scaled(graph, constant, alpha);
  if (!scaled) return false;
  const ValueId turned = graph.AddConstant(graph.value(constant).name,
                                           Permute(graph.value(*scaled).constant, turns[slot]));
  if (!AsMatrix(graph, turned)) return false;
  std::vector<ValueId> operands = node.inputs;
  operands[slot] = turned;
  const NodeId product = Replace(graph, id, MakeNode("MatMul", node, operands, {}));
  TransposeInput(graph, product, 1 - slot, turns[1 - slot]);
  RewriteMatMul(graph, product);  // Or it is as plain as can be.
  return true;
}

// Whether the value follows from constants alone, by what only moves their elements.
bool FollowsFromConstants(const Graph& graph, ValueId id) {
  if (id == kNone) return false;
  if (graph.value(id).is_constant()) return true;
  const NodeId producer = graph.producer(id);
  if (producer == kNone || !MovesElements(graph.node(producer))) return false;
  return FollowsFromConstants(graph, graph.node(producer).input(0));
}

// Where the equation is one product with a matrix, its MatMul; all else stays an Einsum, which engines expand themselves.
absl::StatusOr<bool> RewriteEinsum(Graph& graph, NodeId id) {
  const Node& einsum = graph.node(id);
  const auto constants = std::ranges::count_if(
      einsum.inputs, [&](ValueId input) { return IsConstantFloat(graph, input); });
  if (einsum.inputs.size() != 2 || constants != 1) return false;
  Graph trial = graph;
  const std::vector<NodeId> before = trial.OrderSnapshot();
  OCTET_ASSIGN_OR_RETURN(const bool expanded, ExpandFunction(trial, id));
  if (!expanded) return false;
  OCTET_RETURN_IF_ERROR(InferShapes(trial));
  int products = 0;
  for (const NodeId part : trial.order()) {
    if (std::ranges::contains(before, part) || MovesElements(trial.node(part))) continue;
    const Node& node = trial.node(part);
    const bool plain = node.is("MatMul") && RankOf(trial, node.input(1)) == 2 &&
                       FollowsFromConstants(trial, node.input(1));
    if (!plain) return false;
    ++products;
  }
  if (products != 1) return false;
  graph = std::move(trial);
  return true;
}

}  // namespace

absl::StatusOr<int> WritePlainProducts(Graph& graph) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    absl::StatusOr<bool> rewritten = false;
    if (graph.node(id).is("MatMul")) rewritten = RewriteMatMul(graph, id);
    if (graph.node(id).is("Gemm")) rewritten = RewriteGemm(graph, id);
    if (graph.node(id).is("FusedMatMul", kMicrosoftDomain) ||
        graph.node(id).is("TransposeMatMul", kMicrosoftDomain))
      rewritten = RewriteFused(graph, id);
    if (graph.node(id).is("Einsum")) rewritten = RewriteEinsum(graph, id);
    OCTET_RETURN_IF_ERROR(rewritten.status());
    count += *rewritten ? 1 : 0;
  }
  return count;
}

}  // namespace octet
