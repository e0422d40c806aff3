// octet:FourBitMatMul: shapes and the reference kernel. See four_bit_product.h.
#include "engine/ops/four_bit_product.h"

#include <algorithm>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::Status CheckConstant(const Node& node, size_t slot, const Shape& got, const Shape& expected) {
  if (got == expected) return absl::OkStatus();
  return InvalidArgument("{}: input {} must have shape {}, got {}", Describe(node), slot,
                         expected.ToString(), got.ToString());
}

absl::Status InferFourBitMatMul(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, kFourBitInputs));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, kFourBitA, {DType::kF32, DType::kF16, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, kFourBitIntegers, {DType::kU8}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, kFourBitScales, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, kFourBitZeroPoints, {DType::kI8}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, kFourBitBias, {DType::kF32}));
  for (size_t slot = kFourBitIntegers; slot < kFourBitInputs; ++slot) {
    if (context.has_input(slot) && context.constant(slot) == nullptr)
      return context.Error(Format("input {} is no constant", slot));
  }
  const Node& node = context.node();
  const Shape scales = context.constant(kFourBitScales)->shape();
  OCTET_ASSIGN_OR_RETURN(const FourBitLayout layout, FourBitLayoutOf(node, scales));
  OCTET_RETURN_IF_ERROR(CheckConstant(node, kFourBitIntegers,
                                      context.constant(kFourBitIntegers)->shape(),
                                      {layout.n, (layout.k + 1) / 2}));
  if (const Tensor* zeros = context.constant(kFourBitZeroPoints)) {
    OCTET_RETURN_IF_ERROR(CheckConstant(node, kFourBitZeroPoints, zeros->shape(), scales));
  }
  if (const Tensor* bias = context.constant(kFourBitBias)) {
    OCTET_RETURN_IF_ERROR(CheckConstant(node, kFourBitBias, bias->shape(), {layout.n}));
  }
  if (!context.shape(kFourBitA)) return context.SetOutput(0, DType::kF32, std::nullopt);
  Shape y = *context.shape(kFourBitA);
  if (y.rank() < 2 || (y.back() != layout.k && y.back() != kUnknownDim)) {
    return context.Error(
        Format("rows of {} elements are expected, got shape {}", layout.k, y.ToString()));
  }
  y[y.rank() - 1] = layout.n;
  return context.SetOutput(0, DType::kF32, y);
}

// The reals of column n.
void ReadColumn(const FourBitLayout& layout, std::span<const ConstTensorView> inputs, int64_t n,
                std::vector<float>& reals) {
  const int64_t blocks = layout.blocks();
  const uint8_t* integers = inputs[kFourBitIntegers].as<uint8_t>() + n * ((layout.k + 1) / 2);
  for (int64_t k = 0; k < layout.k; ++k) {
    const int64_t block = n * blocks + k / layout.block;
    const int bits = integers[k / 2] >> (4 * (k % 2)) & 15;
    const int q = bits < 8 ? bits : bits - 16;
    const int zero = layout.zero_points ? inputs[kFourBitZeroPoints].as<int8_t>()[block] : 0;
    reals[static_cast<size_t>(k)] =
        inputs[kFourBitScales].as<float>()[block] * static_cast<float>(q - zero);
  }
}

absl::StatusOr<Kernel> MakeFourBitMatMul(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(FourBitLayout layout,
                         FourBitLayoutOf(context.node, context.inputs[kFourBitScales].shape()));
  layout.zero_points = context.node.input(kFourBitZeroPoints) != kNone;
  const bool has_bias = context.node.input(kFourBitBias) != kNone;
  const int64_t rows = context.outputs[0].shape.elements() / std::max<int64_t>(layout.n, 1);
  return Kernel([layout, has_bias, rows](std::span<const ConstTensorView> inputs,
                                         std::span<const TensorView> outputs) {
    const float* x = inputs[kFourBitA].as<float>();
    auto* y = outputs[0].as<float>();
    ParallelFor(layout.n, 1 + 65536 / layout.k, [&](int64_t first, int64_t last) {
      std::vector<float> reals(static_cast<size_t>(layout.k));
      for (int64_t n = first; n < last; ++n) {
        ReadColumn(layout, inputs, n, reals);
        for (int64_t r = 0; r < rows; ++r) {
          float sum = has_bias ? inputs[kFourBitBias].as<float>()[n] : 0;
          for (int64_t k = 0; k < layout.k; ++k)
            sum += x[r * layout.k + k] * reals[static_cast<size_t>(k)];
          y[r * layout.n + n] = sum;
        }
      }
    });
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<FourBitLayout> FourBitLayoutOf(const Node& node, const Shape& scales) {
  constexpr int64_t kMost = int64_t{1} << 31;  // Of K: products of it fit.
  FourBitLayout layout;
  OCTET_ASSIGN_OR_RETURN(layout.k, node.attributes.Int("K", 0));
  OCTET_ASSIGN_OR_RETURN(layout.block, node.attributes.Int("block", 0));
  const bool sane = layout.k > 0 && layout.k <= kMost && layout.block > 0 &&
                    layout.block <= kMost && layout.block % FourBitLayout::kPerWord == 0;
  if (!sane || scales.rank() != 2 || scales[0] <= 0 || scales[1] != layout.blocks()) {
    return InvalidArgument("{}: 'K' = {}, 'block' = {} and scales of {} describe no weights",
                           Describe(node), layout.k, layout.block, scales.ToString());
  }
  layout.n = scales[0];
  return layout;
}

std::span<const OpDef> FourBitProductOps() {
  static constexpr OpDef kOps[] = {
      {kOctetDomain, "FourBitMatMul", 1, INT_MAX, InferFourBitMatMul, MakeFourBitMatMul,
       LowerFourBitMatMul},
  };
  return kOps;
}

}  // namespace octet
