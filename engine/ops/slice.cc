// Slice: every step-th element between start and end, per axis.
#include <algorithm>
#include <format>
#include <vector>

#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/op_list.h"
#include "engine/ops/strided_copy.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Operands of a Slice, as far as they are known. `axes` and `steps` are filled in when absent.
struct SliceOperands {
  bool known = false;
  std::vector<int64_t> starts, ends, axes, steps;
};

/// From attributes (opset 1) or inputs 1 to 4 (opset 10). Context is an InferContext, or a node with views.
template <typename... Context>
absl::StatusOr<SliceOperands> ReadOperands(const Node& node, const Context&... context) {
  constexpr int kInputsSince = 10;
  const char* const names[] = {"starts", "ends", "axes", "steps"};
  IntsOperand read[4];
  for (int i = 0; i < 4; ++i) {
    OCTET_ASSIGN_OR_RETURN(
        read[i], ReadInts(context..., names[i], static_cast<size_t>(i) + 1, kInputsSince));
  }
  for (const IntsOperand& operand : read) {
    if (operand.given && !operand.values) return SliceOperands{};
  }
  if (!read[0].values || !read[1].values)
    return InvalidArgument("{}: lacks 'starts' or 'ends'", Describe(node));
  SliceOperands operands{true, *read[0].values, *read[1].values, {}, {}};
  const size_t count = operands.starts.size();
  for (size_t i = 0; i < count; ++i) operands.axes.push_back(static_cast<int64_t>(i));
  operands.steps.assign(count, 1);
  if (read[2].given) operands.axes = *read[2].values;
  if (read[3].given) operands.steps = *read[3].values;
  if (operands.ends.size() != count || operands.axes.size() != count ||
      operands.steps.size() != count) {
    return InvalidArgument("{}: starts, ends, axes and steps differ in length", Describe(node));
  }
  if (std::ranges::contains(operands.steps, 0))
    return InvalidArgument("{}: a step is 0", Describe(node));
  return operands;
}

/// One axis of a slice: `count` elements from `start`, `step` apart.
struct Range {
  int64_t start = 0;
  int64_t step = 1;
  int64_t count = 0;
};

/// Clamps as ONNX Slice-13 does: negative positions count from the end; a negative step may end before 0.
Range ClampRange(int64_t start, int64_t end, int64_t step, int64_t extent) {
  if (start < 0) start += extent;
  if (end < 0) end += extent;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, extent);
    end = std::clamp<int64_t>(end, 0, extent);
    const int64_t length = end - start;
    return {start, step, length <= 0 ? 0 : 1 + (length - 1) / step};
  }
  start = std::clamp<int64_t>(start, 0, std::max<int64_t>(extent - 1, 0));
  end = std::clamp<int64_t>(end, -1, extent - 1);
  const int64_t length = start - end;
  return {start, step, length <= 0 || extent == 0 ? 0 : 1 + (length - 1) / -step};
}

/// All axes of a slice; ranges of extents that are not known yet mean nothing.
absl::StatusOr<std::vector<Range>> RangesOf(const Node& node, const SliceOperands& operands,
                                            const Shape& in) {
  std::vector<Range> ranges;
  for (const int64_t extent : in) ranges.push_back({0, 1, extent});
  OCTET_ASSIGN_OR_RETURN(const auto axes, NormalizeNodeAxes(node, operands.axes, in.rank()));
  for (size_t i = 0; i < axes.size(); ++i) {
    if (in[axes[i]] == kUnknownDim) continue;
    // The smallest integer has no negative.
    const int64_t step = std::clamp<int64_t>(operands.steps[i], -INT64_MAX, INT64_MAX);
    ranges[axes[i]] = ClampRange(operands.starts[i], operands.ends[i], step, in[axes[i]]);
  }
  return ranges;
}

absl::Status InferSlice(InferContext& context) {
  const bool attributes = context.node().version < 10;
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, attributes ? 1 : 3, attributes ? 1 : 5));
  OCTET_ASSIGN_OR_RETURN(const SliceOperands operands, ReadOperands(context.node(), context));
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& in = *context.shape(0);
  if (!operands.known) return context.SetOutput(0, context.dtype(0), UnknownShape(in.rank()));
  OCTET_ASSIGN_OR_RETURN(const auto ranges, RangesOf(context.node(), operands, in));
  Shape out;
  for (int i = 0; i < in.rank(); ++i)
    out.push_back(in[i] == kUnknownDim ? kUnknownDim : ranges[i].count);
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

struct SlicePlan {
  StridedCopy copy;
  int64_t first = 0;  ///< Byte offset of the first source element.
};

absl::StatusOr<SlicePlan> PlanSlice(const Node& node, const SliceOperands& operands,
                                    const TensorSpec& in, const TensorSpec& out) {
  OCTET_ASSIGN_OR_RETURN(const auto ranges, RangesOf(node, operands, in.shape));
  const auto strides = in.shape.strides();
  SlicePlan plan;
  std::vector<int64_t> src_strides;
  for (int i = 0; i < in.shape.rank(); ++i) {
    if (ranges[i].count != out.shape[i]) {
      return InvalidArgument("{}: the slice has {} elements along axis {}, expected {}",
                             Describe(node), ranges[i].count, i, out.shape[i]);
    }
    plan.first += ranges[i].start * strides[i];
    src_strides.push_back(ranges[i].count > 1 ? strides[i] * ranges[i].step : 0);
  }
  plan.first *= static_cast<int64_t>(SizeOf(in.dtype));
  plan.copy = StridedCopy(DenseDestination(out.shape, src_strides), SizeOf(in.dtype));
  return plan;
}

absl::StatusOr<Kernel> MakeSlice(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const SliceOperands operands,
                         ReadOperands(context.node, context.node, context.inputs));
  if (operands.known) {
    OCTET_ASSIGN_OR_RETURN(SlicePlan plan, PlanSlice(context.node, operands, context.inputs[0].spec,
                                                     context.outputs[0]));
    return [plan = std::move(plan)](std::span<const ConstTensorView> inputs,
                                    std::span<const TensorView> outputs) {
      plan.copy.Run(inputs[0].as<std::byte>() + plan.first, outputs[0].data);
      return absl::OkStatus();
    };
  }
  // Positions that arrive with the data: the output's declared shape must be what they give.
  return [node = context.node](std::span<const ConstTensorView> inputs,
                               std::span<const TensorView> outputs) -> absl::Status {
    OCTET_ASSIGN_OR_RETURN(const SliceOperands late, ReadOperands(node, node, inputs));
    OCTET_ASSIGN_OR_RETURN(const SlicePlan plan,
                           PlanSlice(node, late, inputs[0].spec, outputs[0].spec));
    plan.copy.Run(inputs[0].as<std::byte>() + plan.first, outputs[0].data);
    return absl::OkStatus();
  };
}

}  // namespace

std::span<const OpDef> SliceOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Slice", 1, INT_MAX, InferSlice, MakeSlice, LowerMovement, kMovement},
  };
  return kOps;
}

}  // namespace octet
