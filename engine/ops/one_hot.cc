// OneHot: indices to rows with one value on and the others off.
#include <algorithm>
#include <optional>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// The number of classes when it is constant: a scalar of any number type.
absl::StatusOr<std::optional<int64_t>> Depth(const InferContext& context) {
  const Tensor* tensor = context.constant(1);
  if (tensor == nullptr || context.input(1).quant) return std::nullopt;
  if (tensor->elements() != 1) return context.Error("'depth' must be a scalar");
  Tensor depth(DType::kF64, Shape{});
  ConvertTensor(tensor->view(), depth.mutable_view());
  const double value = depth.span<double>()[0];
  if (!(value >= 1 && value <= 0x1p31))
    return context.Error(Format("'depth' must be at least 1, got {}", value));
  return static_cast<int64_t>(value);
}

absl::Status InferOneHot(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kNumbers));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kNumbers));
  OCTET_RETURN_IF_ERROR(ExpectVector(context, 2, 2));
  OCTET_ASSIGN_OR_RETURN(const auto depth, Depth(context));
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(2), std::nullopt);
  const Shape& in = *context.shape(0);
  OCTET_ASSIGN_OR_RETURN(const int axis, AxisAttribute(context, "axis", -1, in.rank() + 1));
  Shape out;
  for (int i = 0; i < in.rank(); ++i) {
    if (i == axis) out.push_back(depth.value_or(kUnknownDim));
    out.push_back(in[i]);
  }
  if (axis == in.rank()) out.push_back(depth.value_or(kUnknownDim));
  return context.SetOutput(0, context.dtype(2), std::move(out));
}

/// y[.., c, ..] = values[1] where c is the index (negative ones count from the end), values[0] elsewhere; an index out of
/// range gives a row that is off.
absl::StatusOr<Kernel> MakeOneHot(const KernelContext& context) {
  const Shape& out = context.outputs[0].shape;
  OCTET_ASSIGN_OR_RETURN(const int64_t raw, context.node.attributes.Int("axis", -1));
  OCTET_ASSIGN_OR_RETURN(const int axis, NormalizeNodeAxis(context.node, raw, out.rank()));
  const int64_t depth = out[axis];
  const int64_t inner = out.elements(axis + 1, out.rank());
  const DType stored = StorageOf(context.outputs[0].dtype);
  return KernelFor(kStorageKernels, stored, context.node, [&]<typename T>() -> Kernel {
    return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      Tensor indices(DType::kF64, inputs[0].shape());
      ConvertTensor(inputs[0], indices.mutable_view());
      const T off = inputs[2].as<T>()[0];
      const T on = inputs[2].as<T>()[1];
      std::ranges::fill(outputs[0].span<T>(), off);
      for (int64_t i = 0; i < inputs[0].elements(); ++i) {
        double index = indices.span<double>()[static_cast<size_t>(i)];
        if (index < 0) index += static_cast<double>(depth);
        if (!(index >= 0 && index < static_cast<double>(depth))) continue;
        outputs[0].as<T>()[(i / inner * depth + static_cast<int64_t>(index)) * inner + i % inner] =
            on;
      }
      return absl::OkStatus();
    };
  });
}

}  // namespace

std::span<const OpDef> OneHotOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "OneHot", 9, INT_MAX, InferOneHot, MakeOneHot},
  };
  return kOps;
}

}  // namespace octet
