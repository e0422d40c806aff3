// fuse_hard_swish: MobileNetV3's activation, written out.
//
//   x:f32, x * clip(x + 3, 0, 6) / 6      =>  HardSwish(x)
//   x:f32, x * HardSigmoid(x; 1/6, 1/2)   =>  HardSwish(x)
//   x:f32, clip(x + 3, 0, 6) / 6          =>  HardSigmoid(x; 1/6, 1/2)
//
// Source: Howard et al. 2019; ONNX HardSwish (opset 14).
#include <limits>
#include <utility>

#include "engine/passes/match.h"
#include "engine/passes/passes.h"
#include "engine/passes/product.h"
#include "engine/passes/rewrite.h"

namespace octet {
namespace {

constexpr int kHardSwishOpset = 14;

struct Bounds {
  float low = 0;
  float high = 0;
};

std::optional<Bounds> ClipBounds(const Graph& graph, const Node& clip) {
  if (clip.version < 11) {
    const auto low = clip.attributes.Float("min", std::numeric_limits<float>::lowest());
    const auto high = clip.attributes.Float("max", std::numeric_limits<float>::max());
    if (!low.ok() || !high.ok()) return std::nullopt;
    return Bounds{*low, *high};
  }
  const auto low = ScalarOf(graph, clip.input(1));
  const auto high = ScalarOf(graph, clip.input(2));
  if (!low || !high) return std::nullopt;
  return Bounds{*low, *high};
}

// x of clip(x + 3, 0, 6), else kNone.
ValueId ClipArgument(const Graph& graph, ValueId value) {
  const Node* clip = ProducerOf(graph, value);
  if (clip == nullptr || !clip->is("Clip") || !clip->post_ops.empty()) return kNone;
  const auto bounds = ClipBounds(graph, *clip);
  if (!bounds || bounds->low != 0.0F || bounds->high != 6.0F) return kNone;
  const Shifted sum = AsShifted(graph, clip->input(0));
  return sum.constant == 3.0F ? sum.other : kNone;
}

// x of HardSigmoid(x; 1/6, 1/2), else kNone.
ValueId HardSigmoidArgument(const Graph& graph, ValueId value) {
  const Node* node = ProducerOf(graph, value);
  if (node == nullptr || !node->is("HardSigmoid") || !node->post_ops.empty()) return kNone;
  const auto alpha = node->attributes.Float("alpha", 0.2F);
  const auto beta = node->attributes.Float("beta", 0.5F);
  if (!alpha.ok() || !beta.ok() || !Near(*alpha, 1.0F / 6) || !Near(*beta, 0.5F)) return kNone;
  return node->input(0);
}

bool FuseHardSwishAt(Graph& graph, NodeId id) {
  const Node& node = graph.node(id);
  if (!node.post_ops.empty() || !IsPlainF32(graph, node.output(0))) return false;
  const Product product = Factorize(graph, node.output(0));
  if (product.factors.size() == 1 && Near(product.constant, 1.0F / 6)) {
    const ValueId x = ClipArgument(graph, product.factors[0]);
    if (x == kNone || !SameRank(graph, x, node.output(0))) return false;
    Node sigmoid = MakeNode("HardSigmoid", node, {x}, {});
    sigmoid.attributes.Set("alpha", 1.0F / 6);
    sigmoid.attributes.Set("beta", 0.5F);
    Replace(graph, id, std::move(sigmoid));
    return true;
  }
  if (product.factors.size() != 2) return false;
  for (const size_t i : {0, 1}) {
    const ValueId x = product.factors[1 - i];
    const bool clipped =
        Near(product.constant, 1.0F / 6) && ClipArgument(graph, product.factors[i]) == x;
    const bool hard =
        Near(product.constant, 1.0F) && HardSigmoidArgument(graph, product.factors[i]) == x;
    if ((!clipped && !hard) || !SameRank(graph, x, node.output(0))) continue;
    Node swish = MakeNode("HardSwish", node, {x}, {});
    swish.version = kHardSwishOpset;
    Replace(graph, id, std::move(swish));
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<int> FuseHardSwish(Graph& graph, const PassContext& /*context*/) {
  return RewriteEach(graph, {"Mul", "Div"}, FuseHardSwishAt);
}

}  // namespace octet
