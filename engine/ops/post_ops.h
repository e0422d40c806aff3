// Node::post_ops in plain float: what every lowering must agree with.
#pragma once

#include <cstdint>

#include "engine/graph/graph.h"

namespace octet {

/// y[i] = op(y[i]) for a post-op without operand. Source: ONNX definitions of the operators of the same name.
void ApplyUnaryPostOp(const PostOp& op, float* y, int64_t count);
/// y[i] = y[i] + b[i * stride] or y[i] * b[i * stride] for kAdd and kMul; stride is 0 or 1.
void ApplyBinaryPostOp(PostOp::Kind kind, float* y, const float* b, int64_t stride, int64_t count);
/// True for kAdd and kMul.
constexpr bool HasOperand(PostOp::Kind kind) {
  return kind == PostOp::Kind::kAdd || kind == PostOp::Kind::kMul;
}
/// How many of the node's inputs are the operator's own; the others are post-op operands.
size_t OwnInputCount(const Node& node);

}  // namespace octet
