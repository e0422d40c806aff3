#include "engine/ops/post_ops.h"

#include <algorithm>

#include "engine/ops/activation_math.h"
#include "engine/tensor/cpu_clones.h"

namespace octet {
namespace {

template <typename Fn>
OCTET_INLINE void ForEach(float* y, int64_t count, const Fn& fn) {
  for (int64_t i = 0; i < count; ++i) y[i] = fn(y[i]);
}

}  // namespace

size_t OwnInputCount(const Node& node) {
  size_t count = node.inputs.size();
  for (const PostOp& op : node.post_ops) {
    if (HasOperand(op.kind)) count = std::min(count, static_cast<size_t>(op.operand));
  }
  return count;
}

OCTET_CPU_CLONES void ApplyUnaryPostOp(const PostOp& op, float* y, int64_t count) {
  using Kind = PostOp::Kind;
  const float a = op.alpha;
  const float b = op.beta;
  switch (op.kind) {
    case Kind::kRelu:
      return ForEach(y, count, [](float x) { return math::Relu(x); });
    case Kind::kLeakyRelu:
      return ForEach(y, count, [a](float x) { return math::LeakyRelu(x, a); });
    case Kind::kClip:
      return ForEach(y, count, [a, b](float x) { return math::Clip(x, a, b); });
    case Kind::kSigmoid:
      return ForEach(y, count, [](float x) { return math::Sigmoid(x); });
    case Kind::kHardSigmoid:
      return ForEach(y, count, [a, b](float x) { return math::HardSigmoid(x, a, b); });
    case Kind::kHardSwish:
      return ForEach(y, count, [](float x) { return math::HardSwish(x); });
    case Kind::kSwish:
      return ForEach(y, count, [a](float x) { return math::Swish(x, a); });
    case Kind::kTanh:
      return ForEach(y, count, [](float x) { return math::Tanh(x); });
    case Kind::kElu:
      return ForEach(y, count, [a](float x) { return math::Elu(x, a); });
    case Kind::kSoftplus:
      return ForEach(y, count, [](float x) { return math::Softplus(x); });
    case Kind::kGeluErf:
      return ForEach(y, count, [](float x) { return math::GeluErf(x); });
    case Kind::kGeluTanh:
      return ForEach(y, count, [](float x) { return math::GeluTanh(x); });
    case Kind::kAdd:
    case Kind::kMul:
      return;  // ApplyBinaryPostOp
  }
}

OCTET_CPU_CLONES void ApplyBinaryPostOp(PostOp::Kind kind, float* y, const float* b, int64_t stride,
                                        int64_t count) {
  const bool add = kind == PostOp::Kind::kAdd;
  if (stride == 0) {
    const float v = *b;
    return add ? ForEach(y, count, [v](float x) { return x + v; })
               : ForEach(y, count, [v](float x) { return x * v; });
  }
  if (add) {
    for (int64_t i = 0; i < count; ++i) y[i] += b[i];
  } else {
    for (int64_t i = 0; i < count; ++i) y[i] *= b[i];
  }
}

}  // namespace octet
