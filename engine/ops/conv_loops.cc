#include "engine/ops/conv_loops.h"

#include <algorithm>

#include "engine/ops/infer_rules.h"
#include "engine/ops/strided_copy.h"
#include "engine/tensor/status.h"

namespace octet {

void ToChannelsFirst(ConstTensorView x, void* planar) {
  const Shape& shape = x.shape();
  const int64_t n = shape[0];
  const int64_t c = shape.back();
  const int64_t plane = shape.elements(1, shape.rank() - 1);
  const CopyLoop loops[] = {{n, c * plane, c * plane}, {c, 1, plane}, {plane, c, 1}};
  StridedCopy(loops, SizeOf(x.dtype())).Run(x.data, planar);
}

void ToChannelsLast(const void* planar, TensorView y) {
  const Shape& shape = y.shape();
  const int64_t n = shape[0];
  const int64_t c = shape.back();
  const int64_t plane = shape.elements(1, shape.rank() - 1);
  const CopyLoop loops[] = {{n, c * plane, c * plane}, {plane, 1, c}, {c, plane, 1}};
  StridedCopy(loops, SizeOf(y.dtype())).Run(planar, y.data);
}

absl::StatusOr<ConvGeometry> MakeConvGeometry(const Node& node, const Shape& x, const Shape& w,
                                              bool channels_last) {
  OCTET_ASSIGN_OR_RETURN(const WindowAttributes window,
                         ReadWindow(node, x.rank() - 2, w.dims().subspan(2)));
  OCTET_ASSIGN_OR_RETURN(const int64_t group, node.attributes.Int("group", 1));
  ConvGeometry geometry{x[0], group, w[1], w[0] / group, {}};
  OCTET_ASSIGN_OR_RETURN(geometry.axes,
                         ResolveWindow(node, window, SpatialExtents(x, channels_last)));
  return geometry;
}

absl::StatusOr<std::optional<Shape>> InferConvOutput(const InferContext& context, size_t x_slot,
                                                     size_t w_slot) {
  const std::optional<Shape>& x = context.shape(x_slot);
  const std::optional<Shape>& w = context.shape(w_slot);
  if (!x && !w) return std::nullopt;
  OCTET_ASSIGN_OR_RETURN(const int64_t last, context.attributes().Int("channels_last", 0));
  OCTET_ASSIGN_OR_RETURN(const int64_t group, context.attributes().Int("group", 1));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, x_slot, 3, 5));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, w_slot, x ? x->rank() : 3, x ? x->rank() : 5));
  const int rank = x ? x->rank() : w->rank();
  if (group < 1) return context.Error(Format("'group' must be at least 1, got {}", group));
  const int64_t channels = x ? (*x)[last != 0 ? rank - 1 : 1] : kUnknownDim;
  if (w) {
    const int64_t per_group = (*w)[1];
    const bool known = channels != kUnknownDim && per_group != kUnknownDim;
    if (known && (channels % group != 0 || channels / group != per_group)) {
      return context.Error(
          Format("input has {} channels, the weights {} take {} in each of {} groups", channels,
                 w->ToString(), per_group, group));
    }
    if ((*w)[0] != kUnknownDim && (*w)[0] % group != 0) {
      return context.Error(
          Format("{} output channels do not divide into {} groups", (*w)[0], group));
    }
  }
  std::vector<int64_t> kernel;
  if (w) kernel.assign(w->begin() + 2, w->end());
  const bool kernel_known = context.attributes().has("kernel_shape") ||
                            (w && !std::ranges::contains(kernel, kUnknownDim));
  std::vector<int64_t> spatial(static_cast<size_t>(rank) - 2, kUnknownDim);
  if (x && kernel_known) {
    OCTET_ASSIGN_OR_RETURN(const WindowAttributes window,
                           ReadWindow(context.node(), rank - 2, kernel));
    OCTET_ASSIGN_OR_RETURN(spatial,
                           WindowOutputs(context.node(), window, SpatialExtents(*x, last != 0)));
  }
  return JoinShape(x ? (*x)[0] : kUnknownDim, w ? (*w)[0] : kUnknownDim, spatial, last != 0);
}

absl::Status ExpectPerChannel(const InferContext& context, size_t i, size_t w,
                              bool scalar_allowed) {
  if (!context.has_input(i) || !context.shape(i) || !context.shape(w)) return absl::OkStatus();
  const Shape& shape = *context.shape(i);
  if (scalar_allowed && shape.is_static() && shape.elements() == 1) return absl::OkStatus();
  if (context.shape(w)->rank() == 0) return context.Error("weights are a scalar");
  const int64_t channels = (*context.shape(w))[0];
  if (shape.rank() == 1 &&
      (shape[0] == channels || shape[0] == kUnknownDim || channels == kUnknownDim)) {
    return absl::OkStatus();
  }
  return context.Error(Format("input {} '{}' must have shape [{}], got {}", i,
                              context.input(i).name, channels, shape.ToString()));
}

}  // namespace octet
