// fuse_gelu: the Gaussian error linear unit, written out by its exporters in many orders.
//
//   x:f32, 0.5 * x * (1 + erf(x / sqrt(2)))                                     =>  Gelu(x)
//   x:f32, 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))      =>  Gelu(x) {approximate=tanh}
//
// Source: Hendrycks and Gimpel 2016; ONNX Gelu (opset 20).
#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/product.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

constexpr int kGeluOpset = 20;
constexpr float kInverseSqrt2 = 0.70710678F;
constexpr float kSqrt2OverPi = 0.79788456F;
constexpr float kCubic = 0.044715F;

// value = x / sqrt(2)?
bool IsErfArgument(const Graph& graph, ValueId value, ValueId x) {
  Product p = Factorize(graph, value);
  return Near(p.constant, kInverseSqrt2) && p.Remove(x) && p.factors.empty();
}

// value = 0.044715 x^power?
bool IsCubicTerm(const Graph& graph, ValueId value, ValueId x, int power) {
  Product p = Factorize(graph, value);
  if (!Near(p.constant, kCubic)) return false;
  for (int i = 0; i < power; ++i) {
    if (!p.Remove(x)) return false;
  }
  return p.factors.empty();
}

// value = sqrt(2/pi) (x + 0.044715 x^3), or sqrt(2/pi) x (1 + 0.044715 x^2)?
bool IsTanhArgument(const Graph& graph, ValueId value, ValueId x) {
  Product p = Factorize(graph, value);
  if (!Near(p.constant, kSqrt2OverPi)) return false;
  if (p.factors.size() == 2 && p.Remove(x)) {
    const Shifted inner = AsShifted(graph, p.factors[0]);
    return inner.constant == 1.0F && IsCubicTerm(graph, inner.other, x, 2);
  }
  if (p.factors.size() != 1) return false;
  const Node* sum = ProducerOf(graph, p.factors[0]);
  if (sum == nullptr || !sum->is("Add") || !sum->post_ops.empty()) return false;
  return (sum->input(0) == x && IsCubicTerm(graph, sum->input(1), x, 3)) ||
         (sum->input(1) == x && IsCubicTerm(graph, sum->input(0), x, 3));
}

bool FuseGeluAt(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!node.post_ops.empty() || !IsPlainF32(graph, node.output(0))) return false;
  const Product product = Factorize(graph, node.output(0));
  if (product.factors.size() != 2 || !Near(product.constant, 0.5F)) return false;
  for (const size_t i : {0, 1}) {
    const ValueId x = product.factors[1 - i];
    const Shifted sum = AsShifted(graph, product.factors[i]);
    const Node* inner = ProducerOf(graph, sum.other);
    if (sum.constant != 1.0F || inner == nullptr || !IsPlainF32(graph, x)) continue;
    if (!SameRank(graph, x, node.output(0))) continue;
    const bool erf = inner->is("Erf") && IsErfArgument(graph, inner->input(0), x);
    const bool tanh = inner->is("Tanh") && IsTanhArgument(graph, inner->input(0), x);
    if (!erf && !tanh) continue;
    Node gelu = MakeNode("Gelu", node, {x}, {});
    gelu.version = kGeluOpset;
    gelu.attributes.Set("approximate", std::string(erf ? "none" : "tanh"));
    Replace(graph, id, std::move(gelu));
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<int> FuseGelu(Graph& graph, const PassContext& /*context*/) {
  // The root is the last factor that is multiplied in: a Mul, or a Div by 2.
  return RewriteEach(graph, {"Mul", "Div"}, FuseGeluAt);
}

}  // namespace octet
