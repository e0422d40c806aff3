// MatMulInteger on oneDNN's matmul: 8-bit operands, their zero points, 32-bit sums.
#include <optional>

#include "engine/onednn/isa.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"
#include "engine/onednn/weight_cache.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/primitive_attributes.h"
#include "engine/ops/primitive_step.h"
#include "engine/ops/reference_step.h"
#include "engine/ops/weight_layout.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::ExecArg;

constexpr size_t kA = 0, kB = 1, kZeroA = 2, kZeroB = 3;

/// The zero point of constant B; nullopt where there is none that oneDNN can take.
std::optional<int32_t> ConstantZero(const LowerContext& context, size_t slot) {
  if (!context.has_input(slot)) return 0;
  const Value& zero = context.input(slot);
  if (!zero.is_constant() || zero.shape->elements() != 1) return std::nullopt;
  const void* byte = zero.constant.data();
  return zero.dtype == DType::kU8 ? int32_t{*static_cast<const uint8_t*>(byte)}
                                  : int32_t{*static_cast<const int8_t*>(byte)};
}

absl::Status Check(const LowerContext& context) {
  const Value& a = context.input(kA);
  const Value& b = context.input(kB);
  if (!context.target.int8_exact) return Unimplemented("8-bit products without VNNI");
  if (!b.is_constant() || b.shape->rank() != 2)
    return Unimplemented("right-hand side is computed, or no matrix");
  if (a.shape->rank() < 2 || a.shape->elements() == 0 || b.shape->elements() == 0)
    return Unimplemented("a vector, or an empty operand");
  if (!ConstantZero(context, kZeroB)) return Unimplemented("zero points per column, or computed");
  if (context.has_input(kZeroA) && context.input(kZeroA).shape->elements() != 1)
    return Unimplemented("zero points per row");
  return absl::OkStatus();
}

// B as oneDNN wants it: signed, so that unsigned elements and their zero point are 128 less.
Tensor SignedWeights(const Tensor& b) {
  if (b.dtype() == DType::kI8) return b;
  Tensor result(DType::kI8, b.shape());
  const auto from = b.span<uint8_t>();
  const auto to = result.mutable_span<int8_t>();
  for (size_t i = 0; i < from.size(); ++i) to[i] = static_cast<int8_t>(from[i] - kUnsignedZero);
  return result;
}

// The zero point of A: known now, or widened into scratch before the product.
absl::Status AddZeroOfA(const LowerContext& context, PrimitiveStep& step,
                        PrimitiveAttributes& attributes) {
  if (const auto known = ConstantZero(context, kZeroA)) {
    attributes.AddZeroPoint(DNNL_ARG_SRC, {&*known, 1});
    return absl::OkStatus();
  }
  const auto from = onednn::VectorDesc(context.input(kZeroA).dtype, 1);
  const auto to = onednn::VectorDesc(DType::kI32, 1);
  const size_t offset = step.ReserveScratch(sizeof(int32_t));
  OCTET_ASSIGN_OR_RETURN(const auto widen, onednn::Catch([&] {
                           return dnnl::reorder::primitive_desc(onednn::CpuEngine(), from,
                                                                onednn::CpuEngine(), to,
                                                                onednn::UserScratchpad());
                         }));
  attributes.AddScratchZeroPoint(DNNL_ARG_SRC, offset);
  return step.Add(widen, {ExecArg::Input(DNNL_ARG_FROM, from, kZeroA),
                          ExecArg::Scratch(DNNL_ARG_TO, to, offset)});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerMatMulInteger(const LowerContext& context) {
  OCTET_RETURN_IF_ERROR(Check(context));
  const Shape& shape = *context.input(kA).shape;
  const Tensor weights = SignedWeights(context.input(kB).constant);
  const Shape rows{shape.elements(0, shape.rank() - 1), shape.back()};
  const Shape sums{rows[0], weights.shape()[1]};
  auto step = std::make_unique<PrimitiveStep>();
  PrimitiveAttributes attributes(context);
  OCTET_RETURN_IF_ERROR(AddZeroOfA(context, *step, attributes));
  const int32_t zero_b =
      *ConstantZero(context, kZeroB) - (context.input(kB).dtype == DType::kU8 ? kUnsignedZero : 0);
  attributes.AddZeroPoint(DNNL_ARG_WEIGHTS, {&zero_b, 1});
  std::vector<ExecArg> args = attributes.TakeArgs();
  const dnnl::primitive_attr attr = attributes.TakeAttributes();
  const auto a = onednn::DenseDesc(context.input(kA).dtype, rows.dims());
  const auto y = onednn::DenseDesc(DType::kI32, sums.dims());
  const auto describe = [&](const dnnl::memory::desc& b) {
    return onednn::Catch(
        [&] { return dnnl::matmul::primitive_desc(onednn::CpuEngine(), a, b, y, attr); });
  };
  OCTET_ASSIGN_OR_RETURN(
      const auto pd, DescribeSharing(context.weights, weights, weights.shape().dims(), describe));
  OCTET_ASSIGN_OR_RETURN(
      auto packed,
      context.weights.Reordered(weights, onednn::DenseDesc(weights.spec()), pd.weights_desc()));
  args.push_back(ExecArg::Input(DNNL_ARG_SRC, a, kA));
  args.push_back(ExecArg::Constant(DNNL_ARG_WEIGHTS, pd.weights_desc(), std::move(packed)));
  args.push_back(ExecArg::Output(DNNL_ARG_DST, y, 0));
  OCTET_RETURN_IF_ERROR(step->Add(pd, std::move(args)));
  context.layer.runs = "int8";
  context.layer.impl = pd.impl_info_str();
  context.layer.isa = onednn::IsaOf(context.layer.impl);
  context.layer.macs = MultiplyAdds(context.graph, context.node);
  return step;
}

}  // namespace octet
