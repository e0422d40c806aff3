// import_dynamic_quant: chains that quantize an activation when it runs become one node that does so itself.
//
//   x:f32 -> DynamicQuantizeLinear -> q:u8, s:f32, z:u8
//   q, w:i8, z -> MatMulInteger:i32 -> Cast:f32 -> Mul(s * w_scale) -> y:f32
//     =>  octet:MatMul(x:f32, w:i8 with w_scale) {dynamic_quant=1} -> y          ConvInteger -> Conv alike
//
//   x:f32 -> DynamicQuantizeLinear -> DequantizeLinear:f32 -> Conv(.., DequantizeLinear(w:i8)) -> y
//     =>  Conv(x:f32, w:i8) {dynamic_quant=1} -> y                               octet:ConvTranspose, octet:MatMul, LSTM, GRU and
//                                                                                            RNN alike
//
// u8 weights become i8 (quantization.h), what is left of their zero points is for split_zero_points. What does not fit stays, on its
// reference kernels.
#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/product.h"
#include "engine/passes/quantization.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

// The DynamicQuantizeLinear that writes `value` as its output `slot`, else null.
const Node* DynamicQuantizer(const Graph& graph, ValueId value, size_t slot) {
  const Node* node = ProducerOf(graph, value);
  if (node == nullptr || !node->is("DynamicQuantizeLinear") || node->output(slot) != value)
    return nullptr;
  return node;
}

// The Mul that ends the chain behind an integer product, and the weights' scales.
struct Chain {
  NodeId last = kNone;
  std::vector<float> scales;  ///< One, or one per output channel.
};

// Matches i32 -> Cast -> Mul ... whose product is cast * x_scale * constants.
std::optional<Chain> MatchChain(const Graph& graph, ValueId sums, ValueId x_scale, int rank,
                                int axis, int64_t channels) {
  const NodeId cast = graph.SoleConsumer(sums);
  if (cast == kNone || !graph.node(cast).is("Cast")) return std::nullopt;
  const ValueId reals = graph.node(cast).output(0);
  if (!IsPlainF32(graph, reals)) return std::nullopt;
  Chain best;
  ValueId at = reals;
  for (NodeId next = graph.SoleConsumer(at); next != kNone; next = graph.SoleConsumer(at)) {
    const Node& mul = graph.node(next);
    if (!mul.is("Mul") || !mul.post_ops.empty()) break;
    at = mul.output(0);
    Product product = Factorize(graph, at);
    if (!product.Remove(reals) || !product.Remove(x_scale) || product.factors.size() > 1) continue;
    std::vector<float> scales = {product.constant};
    if (!product.factors.empty()) {
      const auto factors = PerChannel(graph, product.factors[0], rank, axis, channels);
      if (!factors) break;
      scales = *factors;
      for (float& s : scales) s *= product.constant;
    }
    if (SameRank(graph, at, reals)) best = {next, std::move(scales)};
  }
  if (best.last == kNone) return std::nullopt;
  return best;
}

bool RewriteInteger(Graph& graph, NodeId id) {
  const Node node = graph.node(id);
  const bool conv = node.is("ConvInteger");
  const Node* quantizer = DynamicQuantizer(graph, node.input(0), 0);
  const Tensor* weights = ConstantOf(graph, node.input(1));
  if (quantizer == nullptr || node.input(2) != quantizer->output(2) || weights == nullptr)
    return false;
  const int rank = RankOf(graph, node.output(0));
  const int weight_rank = weights->shape().rank();
  if (!IsInt8(weights->dtype()) || rank < 2 || (conv ? weight_rank < 3 : weight_rank != 2))
    return false;
  const int64_t channels = weights->shape()[conv ? 0 : 1];
  const auto chain =
      MatchChain(graph, node.output(0), quantizer->output(1), rank, conv ? 1 : rank - 1, channels);
  if (!chain) return false;
  // A factor behind the product may be anything; a scale is positive.
  const auto is_scale = [](float factor) { return std::isfinite(factor) && factor > 0; };
  if (!std::ranges::all_of(chain->scales, is_scale)) return false;

  QuantParams params;
  params.scales = chain->scales;
  params.axis = chain->scales.size() == 1 ? QuantParams::kPerTensor : (conv ? 0 : 1);
  params.zero_points.assign(params.scales.size(), 0);
  if (node.input(3) != kNone) {
    const auto zeros = IntsOf(graph, node.input(3));
    if (!zeros || (zeros->size() != 1 && std::ssize(*zeros) != channels)) return false;
    if (zeros->size() != 1 && params.per_tensor()) {
      params.scales.resize(zeros->size(), params.scales[0]);
      params.zero_points.resize(zeros->size());
      params.axis = conv ? 0 : 1;
    }
    for (size_t c = 0; c < params.scales.size(); ++c) {
      params.zero_points[c] = static_cast<int32_t>((*zeros)[zeros->size() == 1 ? 0 : c]);
    }
  }
  const ValueId x = quantizer->input(0);
  const ValueId typed = TypedWeights(graph, {node.input(1), std::move(params)}, conv ? 0 : 1);
  if (typed == kNone) return false;
  Node mac = conv ? MakeNode("Conv", node, {x, typed}, {})
                  : MakeNode("MatMul", node, {x, typed}, {}, kOctetDomain);
  mac.attributes = node.attributes;
  if (!conv) mac.attributes.Set("trans_b", int64_t{0});
  mac.attributes.Set("dynamic_quant", int64_t{1});
  Replace(graph, chain->last, std::move(mac));
  return true;
}

bool RewriteDequantized(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  const NodeId dequantize = ProducerIf(graph, node.input(0), "DequantizeLinear");
  if (dequantize == kNone) return false;
  const Node& dq = graph.node(dequantize);
  const Node* quantizer = DynamicQuantizer(graph, dq.input(0), 0);
  if (quantizer == nullptr || dq.input(1) != quantizer->output(1) ||
      dq.input(2) != quantizer->output(2)) {
    return false;
  }
  const ValueId x = quantizer->input(0);
  if (IsRecurrent(node)) {
    if (!TypeRecurrentWeights(graph, id)) return false;
    graph.SetInput(id, 0, x);
    graph.mutable_node(id).attributes.Set("dynamic_quant", int64_t{1});
    return true;
  }
  const auto weights = AsQuantizedConstant(graph, node.input(1));
  if (!weights || !TakesIntegers(node)) return false;
  if (!IsConvolution(node) && RankOf(graph, weights->value) != 2) return false;
  const ValueId typed = TypedWeights(graph, *weights, WeightAxis(graph, node));
  if (typed == kNone) return false;
  graph.SetInput(id, 0, x);
  graph.SetInput(id, 1, typed);
  graph.mutable_node(id).attributes.Set("dynamic_quant", int64_t{1});
  return true;
}

}  // namespace

absl::StatusOr<int> ImportDynamicQuant(Graph& graph, const PassContext& /*context*/) {
  int count = 0;
  for (const NodeId id : graph.OrderSnapshot()) {
    if (!graph.alive(id)) continue;
    const Node& node = graph.node(id);
    if (IsMac(node) || IsRecurrent(node)) {
      count += RewriteDequantized(graph, id) ? 1 : 0;
    } else if (node.is("ConvInteger") || node.is("MatMulInteger")) {
      count += RewriteInteger(graph, id) ? 1 : 0;
    }
  }
  return count;
}

}  // namespace octet
