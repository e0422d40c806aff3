#include "engine/ops/pool_loops.h"

#include "engine/ops/infer_rules.h"
#include "engine/tensor/status.h"

namespace octet {

bool PoolsChannelsLast(const Node& node) { return node.attributes.IntOr("channels_last", 0) != 0; }

absl::StatusOr<std::optional<Shape>> InferPoolOutput(const InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 3, 5));
  const bool last = PoolsChannelsLast(context.node());
  if (!context.shape(0)) return std::nullopt;
  const Shape& x = *context.shape(0);
  OCTET_ASSIGN_OR_RETURN(const WindowAttributes window, ReadWindow(context.node(), x.rank() - 2));
  OCTET_ASSIGN_OR_RETURN(const auto spatial,
                         WindowOutputs(context.node(), window, SpatialExtents(x, last)));
  return JoinShape(x[0], x[last ? x.rank() - 1 : 1], spatial, last);
}

absl::StatusOr<std::optional<Shape>> InferGlobalPoolOutput(const InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, 5));
  std::optional<Shape> out = context.shape(0);
  const int first = PoolsChannelsLast(context.node()) ? 1 : 2;
  for (int i = 0; out && i < out->rank() - 2; ++i) (*out)[first + i] = 1;
  return out;
}

int64_t PoolGeometry::PaddedTaps(const std::array<int64_t, 3>& at) const {
  int64_t product = 1;
  for (size_t i = 0; i < 3; ++i) {
    // The padded input as an input without padding.
    AxisWindow padded = axes[i];
    padded.in += padded.pad_begin + padded.pad_end;
    padded.pad_begin = 0;
    const auto [begin, end] = padded.TapsOf(at[i]);
    product *= end - begin;
  }
  return product;
}

absl::StatusOr<PoolGeometry> WindowGeometry(const Node& node, const Shape& x) {
  const bool last = PoolsChannelsLast(node);
  PoolGeometry geometry{x[0], x[last ? x.rank() - 1 : 1], last, {}};
  OCTET_ASSIGN_OR_RETURN(const WindowAttributes window, ReadWindow(node, x.rank() - 2));
  OCTET_ASSIGN_OR_RETURN(geometry.axes, ResolveWindow(node, window, SpatialExtents(x, last)));
  return geometry;
}

PoolGeometry GlobalGeometry(const Node& node, const Shape& x) {
  const bool last = PoolsChannelsLast(node);
  const int64_t plane = last ? x.elements(1, x.rank() - 1) : x.elements(2, x.rank());
  PoolGeometry geometry{x[0], x[last ? x.rank() - 1 : 1], last, {}};
  geometry.axes[2] = {.in = plane, .out = 1, .kernel = plane};
  return geometry;
}

}  // namespace octet
