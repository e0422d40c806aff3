#include "engine/passes/activation.h"

#include <limits>

#include "engine/passes/match.h"

namespace octet {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Clip's bounds where the model gives none.
constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr float kLargest = std::numeric_limits<float>::max();

using Kind = PostOp::Kind;

// An attribute of an operator whose attributes inference has checked.
float FloatOr(const Node& node, std::string_view name, float fallback) {
  const auto value = node.attributes.Float(name, fallback);
  return value.ok() ? *value : fallback;
}

// A bound of Clip from opset 11 on: `fallback` when it is absent, nullopt when it is not constant.
std::optional<float> Bound(const Graph& graph, ValueId value, float fallback) {
  return value == kNone ? fallback : ScalarOf(graph, value);
}

std::optional<PostOp> ClipAsPostOp(const Graph& graph, const Node& node) {
  PostOp op{Kind::kClip, FloatOr(node, "min", kLowest), FloatOr(node, "max", kLargest)};
  if (node.version >= 11) {
    const auto low = Bound(graph, node.input(1), kLowest);
    const auto high = Bound(graph, node.input(2), kLargest);
    if (!low || !high) return std::nullopt;
    op.alpha = *low;
    op.beta = *high;
  }
  // Crossed bounds: ONNX lets the upper one win, post-ops leave it open. A bound that is no number is none of theirs.
  if (!(op.alpha <= op.beta)) return std::nullopt;
  if (op.alpha == 0 && op.beta == kLargest) return PostOp{Kind::kRelu};
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
