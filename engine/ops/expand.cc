// Repetition: Expand, Tile.
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/op_list.h"
#include "engine/ops/strided_copy.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::Status InferExpand(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 1, 1));
  const auto target = context.ConstantInts(1);
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  if (!target) {
    const auto& length = context.shape(1);
    if (!length || !length->is_static())
      return context.SetOutput(0, context.dtype(0), std::nullopt);
    const int64_t rank = std::max<int64_t>(context.shape(0)->rank(), (*length)[0]);
    return context.SetOutput(0, context.dtype(0), UnknownShape(rank));
  }
  for (const int64_t extent : *target) {
    if (extent < 0) return context.Error(Format("shape has a negative extent: {}", extent));
  }
  std::optional<Shape> out = Broadcast(*context.shape(0), Shape(*target));
  if (!out) {
    return context.Error(
        Format("cannot expand {} to {}", context.shape(0)->ToString(), Shape(*target).ToString()));
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

absl::StatusOr<Kernel> MakeExpand(const KernelContext& context) {
  const Shape& in = context.inputs[0].shape();
  const Shape& out = context.outputs[0].shape;
  if (in.rank() > out.rank()) {
    return InvalidArgument("{}: cannot expand {} to {}", Describe(context.node), in.ToString(),
                           out.ToString());
  }
  const auto strides = in.strides();
  const int added = out.rank() - in.rank();
  std::vector<int64_t> src_strides(static_cast<size_t>(out.rank()), 0);
  for (int i = 0; i < in.rank(); ++i) {
    if (in[i] != 1 && in[i] != out[i + added]) {
      return InvalidArgument("{}: cannot expand {} to {}", Describe(context.node), in.ToString(),
                             out.ToString());
    }
    if (in[i] != 1) src_strides[i + added] = strides[i];
  }
  return CopyKernel(
      StridedCopy(DenseDestination(out, src_strides), SizeOf(context.outputs[0].dtype)));
}

absl::Status InferTile(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 1, 1));
  const auto repeats = context.ConstantInts(1);
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  Shape out = *context.shape(0);
  if (!repeats) return context.SetOutput(0, context.dtype(0), UnknownShape(out.rank()));
  if (static_cast<int>(repeats->size()) != out.rank()) {
    return context.Error(Format("has {} repeats for {} extents", repeats->size(), out.rank()));
  }
  for (int i = 0; i < out.rank(); ++i) {
    if ((*repeats)[i] < 0) return context.Error(Format("a repeat is negative: {}", (*repeats)[i]));
    if (out[i] == kUnknownDim) continue;
    // Too large a product is refused like any impossible extent.
    if (__builtin_mul_overflow(out[i], (*repeats)[i], &out[i])) out[i] = kMaxElements + 1;
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// The repeats are what the extents of output and input say.
absl::StatusOr<Kernel> MakeTile(const KernelContext& context) {
  const Shape& in = context.inputs[0].shape();
  const Shape& out = context.outputs[0].shape;
  const auto src_strides = in.strides();
  const auto dst_strides = out.strides();
  std::vector<CopyLoop> loops;
  for (int i = 0; i < in.rank(); ++i) {
    const int64_t repeats = in[i] == 0 ? 0 : out[i] / in[i];
    if (repeats * in[i] != out[i]) {
      return InvalidArgument("{}: cannot tile {} to {}", Describe(context.node), in.ToString(),
                             out.ToString());
    }
    loops.push_back({repeats, 0, dst_strides[i] * in[i]});
    loops.push_back({in[i], src_strides[i], dst_strides[i]});
  }
  return CopyKernel(StridedCopy(loops, SizeOf(context.outputs[0].dtype)));
}

}  // namespace

std::span<const OpDef> ExpandOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Expand", 8, INT_MAX, InferExpand, MakeExpand, LowerMovement, kMovement},
      {kOnnxDomain, "Tile", 6, INT_MAX, InferTile, MakeTile, LowerMovement, kMovement},
  };
  return kOps;
}

}  // namespace octet
