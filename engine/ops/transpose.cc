// Permutations of axes: Transpose, DepthToSpace, SpaceToDepth.
#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/op_list.h"
#include "engine/ops/strided_copy.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Copies a dense tensor of shape `in` so that output axis i is input axis perm[i].
StridedCopy Permutation(const Shape& in, std::span<const int64_t> perm, size_t element_size) {
  const auto strides = in.strides();
  Shape out;
  std::vector<int64_t> src_strides;
  for (const int64_t axis : perm) {
    out.push_back(in[static_cast<int>(axis)]);
    src_strides.push_back(strides[axis]);
  }
  return StridedCopy(DenseDestination(out, src_strides), element_size);
}

/// The attribute, or the reversal of all axes. INVALID_ARGUMENT when it is no permutation.
absl::StatusOr<std::vector<int64_t>> PermOf(const Node& node, int rank) {
  std::vector<int64_t> perm(rank);
  std::iota(perm.rbegin(), perm.rend(), 0);
  OCTET_ASSIGN_OR_RETURN(perm, node.attributes.Ints("perm", perm));
  std::vector<int64_t> sorted = perm;
  std::ranges::sort(sorted);
  bool valid = static_cast<int>(perm.size()) == rank;
  for (int i = 0; valid && i < rank; ++i) valid = sorted[i] == i;
  if (valid) return perm;
  return InvalidArgument("{}: 'perm' is no permutation of {} axes: {}", Describe(node), rank,
                         Shape(perm).ToString());
}

absl::Status InferTranspose(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  if (!context.shape(0)) {
    OCTET_ASSIGN_OR_RETURN(const auto perm, context.attributes().Ints("perm", {}));
    if (perm.empty()) return context.SetOutput(0, context.dtype(0), std::nullopt);
    // Passes compose and invert what inference has accepted.
    OCTET_RETURN_IF_ERROR(PermOf(context.node(), static_cast<int>(perm.size())).status());
    return context.SetOutput(0, context.dtype(0), UnknownShape(std::ssize(perm)));
  }
  OCTET_ASSIGN_OR_RETURN(const auto perm, PermOf(context.node(), context.shape(0)->rank()));
  Shape out;
  for (const int64_t axis : perm) out.push_back((*context.shape(0))[static_cast<int>(axis)]);
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

absl::StatusOr<Kernel> MakeTranspose(const KernelContext& context) {
  const TensorSpec& in = context.inputs[0].spec;
  OCTET_ASSIGN_OR_RETURN(const auto perm, PermOf(context.node, in.shape.rank()));
  return CopyKernel(Permutation(in.shape, perm, SizeOf(in.dtype)));
}

absl::StatusOr<int64_t> BlockSizeOf(const Node& node) {
  constexpr int64_t kMost = int64_t{1} << 16;  // Its square times an extent must not overflow.
  OCTET_ASSIGN_OR_RETURN(const int64_t block, node.attributes.Int("blocksize", 0));
  if (block >= 1 && block <= kMost) return block;
  return InvalidArgument("{}: 'blocksize' must be in [1, {}], got {}", Describe(node), kMost,
                         block);
}

/// How DepthToSpace numbers the blocks of its channels.
absl::StatusOr<std::string> ModeOf(const Node& node) {
  OCTET_ASSIGN_OR_RETURN(std::string mode, node.attributes.String("mode", "DCR"));
  if (mode == "DCR" || mode == "CRD") return mode;
  return InvalidArgument("{}: 'mode' must be DCR or CRD, got '{}'", Describe(node), mode);
}

/// [N, C, H, W] -> [N, C / b^2, H * b, W * b], or the inverse.
absl::Status InferBlocks(InferContext& context, bool to_space) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 4, 4));
  OCTET_ASSIGN_OR_RETURN(const int64_t block, BlockSizeOf(context.node()));
  OCTET_RETURN_IF_ERROR(ModeOf(context.node()).status());
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), UnknownShape(4));
  const Shape& in = *context.shape(0);
  Shape out = in;
  for (int i = 1; i < 4; ++i) {
    const int64_t factor = i == 1 ? block * block : block;
    if (in[i] == kUnknownDim) continue;
    const bool divide = (i == 1) == to_space;
    if (divide && in[i] % factor != 0) {
      return context.Error(
          Format("extent {} of {} is no multiple of {}", i, in.ToString(), factor));
    }
    if (divide) {
      out[i] = in[i] / factor;
    } else if (__builtin_mul_overflow(in[i], factor, &out[i])) {
      return context.Error(Format("{} in blocks of {} is too large", in.ToString(), block));
    }
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}
absl::Status InferDepthToSpace(InferContext& context) { return InferBlocks(context, true); }
absl::Status InferSpaceToDepth(InferContext& context) { return InferBlocks(context, false); }

/// y[n, c, h * b + i, w * b + j] = x[n, (i * b + j) * C' + c, h, w] in mode DCR,
///                                x[n, c * b^2 + i * b + j, h, w] in mode CRD.
absl::StatusOr<Kernel> MakeDepthToSpace(const KernelContext& context) {
  const TensorSpec& in = context.inputs[0].spec;
  OCTET_ASSIGN_OR_RETURN(const int64_t b, BlockSizeOf(context.node));
  OCTET_ASSIGN_OR_RETURN(const std::string mode, ModeOf(context.node));
  const int64_t depth = in.shape[1] / (b * b);
  const int64_t perm_dcr[] = {0, 3, 4, 1, 5, 2};
  const int64_t perm_crd[] = {0, 1, 4, 2, 5, 3};
  if (mode == "DCR") {
    return CopyKernel(Permutation({in.shape[0], b, b, depth, in.shape[2], in.shape[3]}, perm_dcr,
                                  SizeOf(in.dtype)));
  }
  return CopyKernel(Permutation({in.shape[0], depth, b, b, in.shape[2], in.shape[3]}, perm_crd,
                                SizeOf(in.dtype)));
}

/// y[n, (i * b + j) * C + c, h, w] = x[n, c, h * b + i, w * b + j].
absl::StatusOr<Kernel> MakeSpaceToDepth(const KernelContext& context) {
  const TensorSpec& in = context.inputs[0].spec;
  OCTET_ASSIGN_OR_RETURN(const int64_t b, BlockSizeOf(context.node));
  const int64_t perm[] = {0, 3, 5, 1, 2, 4};
  return CopyKernel(Permutation({in.shape[0], in.shape[1], in.shape[2] / b, b, in.shape[3] / b, b},
                                perm, SizeOf(in.dtype)));
}

}  // namespace

std::span<const OpDef> TransposeOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Transpose", 1, INT_MAX, InferTranspose, MakeTranspose, LowerMovement,
       kMovement},
      {kOnnxDomain, "DepthToSpace", 1, INT_MAX, InferDepthToSpace, MakeDepthToSpace, LowerMovement,
       kMovement},
      {kOnnxDomain, "SpaceToDepth", 1, INT_MAX, InferSpaceToDepth, MakeSpaceToDepth, LowerMovement,
       kMovement},
  };
  return kOps;
}

}  // namespace octet
