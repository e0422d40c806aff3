// Operators that give the same elements another shape: Reshape, Flatten, Squeeze, Unsqueeze.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/str_join.h"

#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/movement_step.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Output extents of Reshape. 0 copies the input's extent unless allow_zero; -1 takes what remains.
///   Shapes: in may have unknown extents, or be unknown altogether.
///   Source: ONNX Reshape-21.
absl::StatusOr<Shape> ReshapeTarget(const InferContext& context, const std::vector<int64_t>& target,
                                    const std::optional<Shape>& in, bool allow_zero) {
  Shape out;
  std::vector<bool> copied(in ? in->rank() : 0, false);
  int free_axis = -1;
  for (int i = 0; i < static_cast<int>(target.size()); ++i) {
    int64_t extent = target[i];
    if (extent < -1) return context.Error(Format("shape has a negative extent: {}", extent));
    if (extent == -1) {
      if (free_axis >= 0) return context.Error("shape has more than one extent -1");
      free_axis = i;
    } else if (extent == 0 && !allow_zero) {
      if (in && i >= in->rank())
        return context.Error(Format("shape copies extent {}, input has {}", i, in->rank()));
      extent = in ? (*in)[i] : kUnknownDim;
      if (in) copied[i] = true;
    }
    out.push_back(extent);
  }
  if (!in) return out;
  // Extents that are copied cancel on both sides, even while unknown.
  std::vector<int64_t> from;
  for (int i = 0; i < in->rank(); ++i) {
    if (!copied[i]) from.push_back((*in)[i]);
  }
  std::vector<int64_t> to;
  for (int i = 0; i < out.rank(); ++i) {
    if (i != free_axis && !(i < in->rank() && copied[i])) to.push_back(out[i]);
  }
  const bool left_known = !std::ranges::contains(from, kUnknownDim);
  const int64_t left = left_known ? CheckedElements(from).value_or(-1) : kUnknownDim;
  const std::optional<int64_t> product = CheckedElements(to);
  if (!product) return context.Error(Format("impossible shape: {}", out.ToString()));
  const int64_t right = *product;
  const auto mismatch = [&] {
    return context.Error(
        Format("cannot reshape {} to [{}]", in->ToString(), absl::StrJoin(target, ",")));
  };
  if (!left_known) return out;
  if (free_axis < 0)
    // A copied extent of 0 leaves no elements on either side, whatever the other extents are.
    return left == right || (std::ranges::contains(out, 0) && std::ranges::contains(*in, 0))
               ? absl::StatusOr<Shape>(out)
               : mismatch();
  if (right == 0) {
    if (left != 0 || allow_zero) return mismatch();
    out[free_axis] = 0;
    return out;
  }
  if (left % right != 0) return mismatch();
  out[free_axis] = left / right;
  return out;
}

absl::Status InferReshape(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, 1, 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t allow_zero, context.attributes().Int("allowzero", 0));
  if (const auto target = context.ConstantInts(1)) {
    OCTET_ASSIGN_OR_RETURN(Shape out,
                           ReshapeTarget(context, *target, context.shape(0), allow_zero != 0));
    return context.SetOutput(0, context.dtype(0), std::move(out));
  }
  std::optional<Shape> out;
  if (context.shape(1) && context.shape(1)->is_static()) out = UnknownShape((*context.shape(1))[0]);
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// Product of extents [from, to); unknown when one of them is, unless one is 0.
int64_t ProductOf(const Shape& shape, int from, int to) {
  int64_t product = 1;
  bool known = true;
  for (int i = from; i < to; ++i) {
    if (shape[i] == kUnknownDim)
      known = false;
    else
      product *= shape[i];
  }
  return known || product == 0 ? product : kUnknownDim;
}

absl::Status InferFlatten(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_ASSIGN_OR_RETURN(int64_t axis, context.attributes().Int("axis", 1));
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), UnknownShape(2));
  const Shape& in = *context.shape(0);
  if (axis < -in.rank() || axis > in.rank())
    return context.Error(Format("axis is outside [-{0}, {0}]: {1}", in.rank(), axis));
  const int split = static_cast<int>(axis < 0 ? axis + in.rank() : axis);
  return context.SetOutput(0, context.dtype(0),
                           Shape{ProductOf(in, 0, split), ProductOf(in, split, in.rank())});
}

absl::Status InferSqueeze(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, context.node().version < 13 ? 1 : 2));
  OCTET_ASSIGN_OR_RETURN(const IntsOperand axes, ReadInts(context, "axes", 1, 13));
  if (!context.shape(0) || (axes.given && !axes.values))
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& in = *context.shape(0);
  Shape out;
  if (!axes.given) {
    if (!in.is_static()) return context.SetOutput(0, context.dtype(0), std::nullopt);
    for (const int64_t extent : in) {
      if (extent != 1) out.push_back(extent);
    }
    return context.SetOutput(0, context.dtype(0), std::move(out));
  }
  OCTET_ASSIGN_OR_RETURN(const auto dropped,
                         NormalizeNodeAxes(context.node(), *axes.values, in.rank()));
  for (int i = 0; i < in.rank(); ++i) {
    if (!std::ranges::contains(dropped, i)) {
      out.push_back(in[i]);
    } else if (in[i] != 1 && in[i] != kUnknownDim) {
      return context.Error(Format("cannot squeeze axis {} of {}", i, in.ToString()));
    }
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

absl::Status InferUnsqueeze(InferContext& context) {
  const size_t inputs = context.node().version < 13 ? 1 : 2;
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, inputs, inputs));
  OCTET_ASSIGN_OR_RETURN(const IntsOperand axes, ReadInts(context, "axes", 1, 13));
  if (!axes.given) return context.Error("lacks its attribute 'axes'");
  if (!context.shape(0) || !axes.values)
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& in = *context.shape(0);
  if (axes.values->size() > kMaxRank) return context.Error("has more axes than any tensor");
  const int rank = in.rank() + static_cast<int>(axes.values->size());
  OCTET_ASSIGN_OR_RETURN(const auto added, NormalizeNodeAxes(context.node(), *axes.values, rank));
  Shape out;
  for (int i = 0, from = 0; i < rank; ++i) {
    out.push_back(std::ranges::contains(added, i) ? 1 : in[from++]);
  }
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// Same elements, same order. The shape that inference found is the output's.
absl::StatusOr<Kernel> MakeViewKernel(const KernelContext& context) {
  const TensorSpec& in = context.inputs[0].spec;
  const TensorSpec& out = context.outputs[0];
  if (in.shape.elements() != out.shape.elements()) {
    return InvalidArgument("{}: cannot view {} as {}", Describe(context.node), in.shape.ToString(),
                           out.shape.ToString());
  }
  return [](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    if (inputs[0].bytes() != 0) std::memcpy(outputs[0].data, inputs[0].data, inputs[0].bytes());
    return absl::OkStatus();
  };
}

constexpr OpTraits kViewTraits = {.view = true, .data_movement = true, .strings = true};

}  // namespace

std::span<const OpDef> ReshapeOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Reshape", 5, INT_MAX, InferReshape, MakeViewKernel, LowerMovement,
       kViewTraits},
      {kOnnxDomain, "Flatten", 1, INT_MAX, InferFlatten, MakeViewKernel, LowerMovement,
       kViewTraits},
      {kOnnxDomain, "Squeeze", 1, INT_MAX, InferSqueeze, MakeViewKernel, LowerMovement,
       kViewTraits},
      {kOnnxDomain, "Unsqueeze", 1, INT_MAX, InferUnsqueeze, MakeViewKernel, LowerMovement,
       kViewTraits},
  };
  return kOps;
}

}  // namespace octet
