#include "engine/passes/activation.h"

#include <limits>

#include "engine/passes/match.h"

namespace octet {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Kind = PostOp::Kind;

// An attribute of an operator whose attributes inference has checked.
float FloatOr(const Node& node, std::string_view name, float fallback) {
  const auto value = node.attributes.Float(name, fallback);
  return value.ok() ? *value : fallback;
}

std::optional<PostOp> ClipAsPostOp(const Graph& graph, const Node& node) {
  PostOp op{Kind::kClip, -kInfinity, kInfinity};
  if (node.version < 11) {
    op.alpha = FloatOr(node, "min", op.alpha);
    op.beta = FloatOr(node, "max", op.beta);
    return op;
  }
  if (node.input(1) != kNone) {
    const auto low = ScalarOf(graph, node.input(1));
    if (!low) return std::nullopt;
    op.alpha = *low;
  }
  if (node.input(2) != kNone) {
    const auto high = ScalarOf(graph, node.input(2));
    if (!high) return std::nullopt;
    op.beta = *high;
  }
  // Crossed bounds: ONNX lets the upper one win, post-ops leave it open.
  if (op.alpha > op.beta) return std::nullopt;
  return op;
}

std::optional<PostOp> GeluAsPostOp(const Node& node) {
  const auto form = node.attributes.String("approximate", "none");
  if (!form.ok()) return std::nullopt;
  return PostOp{*form == "tanh" ? Kind::kGeluTanh : Kind::kGeluErf};
}

}  // namespace

std::optional<PostOp> AsPostOp(const Graph& graph, const Node& node) {
  if (node.domain != kOnnxDomain) return std::nullopt;
  if (node.op == "Relu") return PostOp{Kind::kRelu};
  if (node.op == "LeakyRelu") return PostOp{Kind::kLeakyRelu, FloatOr(node, "alpha", 0.01F)};
  if (node.op == "Clip") return ClipAsPostOp(graph, node);
  if (node.op == "Sigmoid") return PostOp{Kind::kSigmoid};
  if (node.op == "HardSigmoid") {
    return PostOp{Kind::kHardSigmoid, FloatOr(node, "alpha", 0.2F), FloatOr(node, "beta", 0.5F)};
  }
  if (node.op == "HardSwish") return PostOp{Kind::kHardSwish};
  if (node.op == "Tanh") return PostOp{Kind::kTanh};
  if (node.op == "Elu") return PostOp{Kind::kElu, FloatOr(node, "alpha", 1.0F)};
  if (node.op == "Softplus") return PostOp{Kind::kSoftplus};
  if (node.op == "Gelu") return GeluAsPostOp(node);
  if (node.op == "PRelu") {
    if (const auto slope = ScalarOf(graph, node.input(1))) return PostOp{Kind::kLeakyRelu, *slope};
  }
  return std::nullopt;
}

bool ImpliedByStorage(const PostOp& op, const Value& value) {
  if (!IsTyped(value) || !value.quant->per_tensor()) return false;
  float low = -kInfinity;
  float high = kInfinity;
  if (op.kind == Kind::kRelu) {
    low = 0;
  } else if (op.kind == Kind::kClip) {
    low = op.alpha;
    high = op.beta;
  } else {
    return false;
  }
  // What lies beyond a bound is stored as the bound is, and that is the end of the type's range already.
  const IntRange range = RangeOf(value.dtype);
  const float scale = value.quant->scales[0];
  const int32_t zero_point = value.quant->zero_points[0];
  const bool low_implied =
      low == -kInfinity || QuantizeOne(low, scale, zero_point, range) == range.min;
  const bool high_implied =
      high == kInfinity || QuantizeOne(high, scale, zero_point, range) == range.max;
  return low_implied && high_implied;
}

}  // namespace octet
