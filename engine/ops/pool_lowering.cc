// Channels-last pools on oneDNN; on kernels of our own averages of 8-bit values, which it rounds without their scales,
// what it is slow at, maxima of 8-bit values and means of whole planes, and whatever it has no kernel for.
#include <algorithm>

#include "engine/onednn/isa.h"
#include "engine/onednn/memory_desc.h"
#include "engine/onednn/runtime.h"
#include "engine/ops/byte_max_pool.h"
#include "engine/ops/integer_average.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/plane_mean.h"
#include "engine/ops/pool_rows.h"
#include "engine/ops/primitive_step.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

using onednn::ExecArg;
using Dims = dnnl::memory::dims;

constexpr std::array<int, 5> kOrder = {0, 4, 1, 2, 3};

dnnl::memory::desc Volume(DType dtype, const PoolGeometry& g, bool out) {
  const auto extent = [&](int i) { return out ? g.axes[i].out : g.axes[i].in; };
  const std::array<int64_t, 5> dims = {g.batch, extent(0), extent(1), extent(2), g.channels};
  return onednn::PermutedDesc(dtype, dims, kOrder);
}

absl::StatusOr<PoolGeometry> Geometry(const LowerContext& context) {
  const Shape& x = *context.input(0).shape;
  if (context.node.op.starts_with("Global")) return GlobalGeometry(context.node, x);
  return WindowGeometry(context.node, x);
}

/// Padding behind the last input that the windows reach into.
int64_t EndReach(const AxisWindow& axis) {
  return std::max<int64_t>(0,
                           (axis.out - 1) * axis.stride + axis.reach() - axis.in - axis.pad_begin);
}

/// The average of a window that lies in the padding alone is 0 / 0: oneDNN takes no padding that could hold one.
bool HoldsWholeWindow(const AxisWindow& axis) {
  return axis.pad_begin >= axis.reach() || EndReach(axis) >= axis.reach() ||
         axis.dilation - 1 >= axis.in;
}

absl::StatusOr<dnnl::algorithm> Algorithm(const Node& node, const PoolGeometry& g) {
  if (node.op.ends_with("MaxPool")) return dnnl::algorithm::pooling_max;
  const bool pads = std::ranges::any_of(
      g.axes, [](const AxisWindow& axis) { return axis.pad_begin > 0 || EndReach(axis) > 0; });
  const AverageCount count = AverageCountOf(node);
  if (count == AverageCount::kInside || !pads) {
    if (std::ranges::any_of(g.axes, HoldsWholeWindow))
      return Unimplemented("padding as wide as the window");
    return dnnl::algorithm::pooling_avg_exclude_padding;
  }
  // oneDNN divides by the whole kernel.
  const bool beyond = std::ranges::any_of(
      g.axes, [](const AxisWindow& axis) { return EndReach(axis) > axis.pad_end; });
  if (count == AverageCount::kPadded && beyond)
    return Unimplemented("a window that reaches beyond the padding, which counts");
  return dnnl::algorithm::pooling_avg_include_padding;
}

absl::StatusOr<std::unique_ptr<Step>> LowerToOneDnn(const LowerContext& context,
                                                    const PoolGeometry& g) {
  const Value& x = context.input(0);
  const Value& y = context.output();
  if (x.dtype != y.dtype || x.quant != y.quant)
    return Unimplemented("input and output differ in type or scale");
  Dims strides, kernel, dilations, begin, end;
  for (const AxisWindow& axis : g.axes) {
    strides.push_back(axis.stride);
    kernel.push_back(axis.kernel);
    dilations.push_back(axis.dilation - 1);
    begin.push_back(axis.pad_begin);
    // With ceil_mode the last window may reach beyond the padding: oneDNN takes that as padding.
    end.push_back(EndReach(axis));
  }
  OCTET_ASSIGN_OR_RETURN(const dnnl::algorithm algorithm, Algorithm(context.node, g));
  const auto src = Volume(x.dtype, g, false);
  const auto dst = Volume(y.dtype, g, true);
  OCTET_ASSIGN_OR_RETURN(const auto pd, onednn::Catch([&] {
                           return dnnl::pooling_forward::primitive_desc(
                               onednn::CpuEngine(), dnnl::prop_kind::forward_inference, algorithm,
                               src, dst, strides, kernel, dilations, begin, end,
                               onednn::UserScratchpad());
                         }));
  const std::string impl = pd.impl_info_str();
  if (impl.starts_with("ref")) return Unimplemented("oneDNN has only {} for this pool", impl);
  auto step = std::make_unique<PrimitiveStep>();
  std::vector<ExecArg> args = {ExecArg::Input(DNNL_ARG_SRC, src, 0),
                               ExecArg::Output(DNNL_ARG_DST, dst, 0)};
  OCTET_RETURN_IF_ERROR(step->Add(pd, std::move(args)));
  context.layer.runs = x.quant ? "int8" : x.dtype == DType::kBF16 ? "bf16" : "f32";
  context.layer.impl = impl;
  context.layer.isa = onednn::IsaOf(impl);
  return step;
}

absl::StatusOr<std::unique_ptr<Step>> LowerChannelsLast(const LowerContext& context,
                                                        const PoolGeometry& g) {
  const Node& node = context.node;
  const Value& x = context.input(0);
  if (x.dtype == DType::kF64 || node.output(1) != kNone || node.op.ends_with("LpPool"))
    return Unimplemented("indices, FP64, or powers");
  const bool max = node.op.ends_with("MaxPool");
  if (x.quant && !max) return LowerIntegerAverage(context, g, AverageCountOf(node));
  if (max && IsInt8(x.dtype)) {
    auto step = LowerByteMaxPool(context, g);
    if (step.ok() || !absl::IsUnimplemented(step.status())) return step;
  }
  if (node.op == "GlobalAveragePool") {
    auto step = LowerPlaneMean(context, g);
    if (step.ok() || !absl::IsUnimplemented(step.status())) return step;
  }
  return LowerToOneDnn(context, g);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerPool(const LowerContext& context) {
  const Node& node = context.node;
  if (!node.post_ops.empty()) return Unimplemented("post-ops");
  if (context.input(0).shape->elements() == 0) return Unimplemented("empty input");
  OCTET_ASSIGN_OR_RETURN(const PoolGeometry g, Geometry(context));
  if (PoolsChannelsLast(node)) {
    auto step = LowerChannelsLast(context, g);
    if (step.ok() || !absl::IsUnimplemented(step.status())) return step;
  }
  return LowerPoolRows(context, g);
}

}  // namespace octet
