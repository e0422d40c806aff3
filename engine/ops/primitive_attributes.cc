#include "engine/ops/primitive_attributes.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/onednn/memory_desc.h"
#include "engine/ops/post_ops.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::ExecArg;

std::optional<dnnl::algorithm> Eltwise(PostOp::Kind kind) {
  using A = dnnl::algorithm;
  switch (kind) {
    case PostOp::Kind::kRelu:
    case PostOp::Kind::kLeakyRelu:
      return A::eltwise_relu;
    case PostOp::Kind::kClip:
      return A::eltwise_clip;
    case PostOp::Kind::kSigmoid:
      return A::eltwise_logistic;
    case PostOp::Kind::kHardSigmoid:
      return A::eltwise_hardsigmoid;
    case PostOp::Kind::kSwish:
      return A::eltwise_swish;
    case PostOp::Kind::kTanh:
      return A::eltwise_tanh;
    case PostOp::Kind::kElu:
      return A::eltwise_elu;
    case PostOp::Kind::kSoftplus:
      return A::eltwise_soft_relu;
    case PostOp::Kind::kGeluErf:
      return A::eltwise_gelu_erf;
    case PostOp::Kind::kGeluTanh:
      return A::eltwise_gelu_tanh;
    default:
      return std::nullopt;
  }
}

// An argument whose elements are known when the primitive is made.
template <typename T>
ExecArg Known(int arg, std::span<const T> values) {
  auto buffer = AllocateAligned(values.size_bytes());
  std::memcpy(buffer.get(), values.data(), values.size_bytes());
  return ExecArg::Constant(arg, onednn::VectorDesc(DTypeOf<T>, static_cast<int64_t>(values.size())),
                           std::move(buffer));
}

}  // namespace

bool ScalesWithItsInput(const PostOp& op) {
  return op.kind == PostOp::Kind::kRelu || op.kind == PostOp::Kind::kLeakyRelu ||
         op.kind == PostOp::Kind::kClip;
}

bool AddsStored(const LowerContext& context, const PostOp& op) {
  if (op.kind != PostOp::Kind::kAdd) return false;
  const Value& operand = context.input(static_cast<size_t>(op.operand));
  return operand.quant && operand.quant->per_tensor() && IsInt8(operand.dtype);
}

void PrimitiveAttributes::AddScales(int arg, int mask, std::span<const float> scales) {
  attr_.set_scales_mask(arg, mask);
  args_.push_back(Known(DNNL_ARG_ATTR_SCALES | arg, scales));
}

void PrimitiveAttributes::AddZeroPoint(int arg, std::span<const int32_t> zero_point) {
  if (zero_point[0] == 0) return;
  attr_.set_zero_points_mask(arg, 0);
  args_.push_back(Known(DNNL_ARG_ATTR_ZERO_POINTS | arg, zero_point.first(1)));
}

void PrimitiveAttributes::AddScratchScale(int arg, size_t offset) {
  attr_.set_scales_mask(arg, 0);
  args_.push_back(
      ExecArg::Scratch(DNNL_ARG_ATTR_SCALES | arg, onednn::VectorDesc(DType::kF32, 1), offset));
}

void PrimitiveAttributes::AddScratchZeroPoint(int arg, size_t offset) {
  attr_.set_zero_points_mask(arg, 0);
  args_.push_back(ExecArg::Scratch(DNNL_ARG_ATTR_ZERO_POINTS | arg,
                                   onednn::VectorDesc(DType::kI32, 1), offset));
}

int PrimitiveAttributes::NextPostOpArg() const {
  return DNNL_ARG_ATTR_MULTIPLE_POST_OP(post_ops_.len()) | DNNL_ARG_SRC_1;
}

void PrimitiveAttributes::AddScratchSum(const dnnl::memory::desc& desc, size_t offset) {
  args_.push_back(ExecArg::Scratch(NextPostOpArg(), desc, offset));
  post_ops_.append_binary(dnnl::algorithm::binary_add, desc);
}

void PrimitiveAttributes::AddLinear(float factor, float addend) {
  if (factor == 1 && addend == 0) return;
  post_ops_.append_eltwise(dnnl::algorithm::eltwise_linear, factor, addend);
}

absl::Status PrimitiveAttributes::AddBinary(const PostOp& op, const OperandDescFn& operand_desc,
                                            float& unit, float result_unit) {
  const auto slot = static_cast<size_t>(op.operand);
  const Value& operand = context_.input(slot);
  const bool add = op.kind == PostOp::Kind::kAdd;
  const bool stored = AddsStored(context_, op);
  const bool real =
      !operand.quant && (operand.dtype == DType::kF32 || operand.dtype == DType::kBF16);
  if ((!stored && !real) || operand.shape->elements() == 0) {
    return Unimplemented("post-op {} reads '{}', {}{}", PostOpName(op.kind), operand.name,
                         DTypeName(operand.dtype), operand.quant ? " with scales" : "");
  }
  OCTET_ASSIGN_OR_RETURN(const dnnl::memory::desc desc,
                         operand_desc(operand.dtype, *operand.shape));
  const float scale = stored ? operand.quant->scales[0] : unit;
  AddLinear(unit / scale, 0);
  args_.push_back(ExecArg::Input(NextPostOpArg(), desc, slot));
  post_ops_.append_binary(add ? dnnl::algorithm::binary_add : dnnl::algorithm::binary_mul, desc);
  if (stored) {
    unit = result_unit;
    const float zero = static_cast<float>(operand.quant->zero_points[0]);
    AddLinear(scale / unit, -zero * (scale / unit));
  }
  return absl::OkStatus();
}

void PrimitiveAttributes::AddFactors(const dnnl::memory::desc& desc,
                                     std::span<const float> factors) {
  ExecArg known = Known(NextPostOpArg(), factors);
  known.desc = desc;
  args_.push_back(std::move(known));
  post_ops_.append_binary(dnnl::algorithm::binary_mul, desc);
}

void PrimitiveAttributes::AddRound() {
  post_ops_.append_eltwise(dnnl::algorithm::eltwise_round, 0.0f, 0.0f);
}

absl::Status PrimitiveAttributes::AddPostOps(const OperandDescFn& operand_desc, Units units) {
  float unit = units.sums;
  for (PostOp op : context_.node.post_ops) {
    if (op.kind == PostOp::Kind::kClip) {
      op.alpha /= unit;
      op.beta /= unit;
    }
    if (HasOperand(op.kind)) {
      OCTET_RETURN_IF_ERROR(AddBinary(op, operand_desc, unit, units.result));
      continue;
    }
    if (op.kind == PostOp::Kind::kHardSwish) {
      post_ops_.append_eltwise(dnnl::algorithm::eltwise_hardswish, 1.0f / 6, 0.5f);
      continue;
    }
    const auto algorithm = Eltwise(op.kind);
    if (!algorithm) return Unimplemented("post-op {}", PostOpName(op.kind));
    if (op.kind == PostOp::Kind::kRelu) op.alpha = 0;
    if (op.kind == PostOp::Kind::kSoftplus) op.alpha = 1;  // ln(1 + e^(alpha x)) / alpha
    post_ops_.append_eltwise(*algorithm, op.alpha, op.beta);
  }
  return absl::OkStatus();
}

dnnl::primitive_attr PrimitiveAttributes::TakeAttributes() {
  attr_.set_post_ops(post_ops_);
  return std::move(attr_);
}

}  // namespace octet
