// MaxUnpool: puts what MaxPool chose back to where it came from.
//   Source: ONNX MaxUnpool-9, -11, -22.
#include <algorithm>
#include <optional>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/ops/window.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// The shape that the pool had before it: (in - 1) * stride + kernel - pads along every spatial axis.
absl::StatusOr<Shape> ShapeBeforePool(const Node& node, const Shape& x) {
  OCTET_ASSIGN_OR_RETURN(const WindowAttributes window, ReadWindow(node, x.rank() - 2));
  Shape out{x[0], x[1]};
  const auto rank = static_cast<size_t>(window.rank());
  for (size_t i = 0; i < rank; ++i) {
    const int64_t in = x[static_cast<int>(i) + 2];
    const int64_t extent = in == kUnknownDim ? kUnknownDim
                                             : (in - 1) * window.strides[i] + window.kernel[i] -
                                                   window.pads[i] - window.pads[i + rank];
    if (in != kUnknownDim && extent < 0)
      return InvalidArgument("{}: the pads take more than there is along axis {}", Describe(node),
                             i);
    out.push_back(extent);
  }
  return out;
}

absl::Status InferMaxUnpool(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 2, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 3, 5));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 2, 1, 1));
  const auto wanted = context.ConstantInts(2);
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::nullopt);
  const Shape& x = *context.shape(0);
  if (context.shape(1) && context.shape(1)->is_static() && x.is_static() && *context.shape(1) != x)
    return context.Error(
        Format("indices {} do not fit {}", context.shape(1)->ToString(), x.ToString()));
  OCTET_ASSIGN_OR_RETURN(Shape out, ShapeBeforePool(context.node(), x));
  if (!context.has_input(2)) return context.SetOutput(0, context.dtype(0), std::move(out));
  if (!wanted) return context.SetOutput(0, context.dtype(0), UnknownShape(x.rank()));
  bool larger = wanted->size() == static_cast<size_t>(out.rank());
  for (int i = 0; larger && i < out.rank(); ++i)
    larger = out[i] == kUnknownDim || (*wanted)[static_cast<size_t>(i)] >= out[i];
  if (!larger)
    return context.Error(
        Format("'output_shape' {} is smaller than {}", Shape(*wanted).ToString(), out.ToString()));
  return context.SetOutput(0, context.dtype(0), Shape(*wanted));
}

/// y[index[i]] = x[i], zeros elsewhere. Indices count in the shape before the pool; a larger output has it in its corner.
absl::StatusOr<Kernel> MakeMaxUnpool(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Shape inner,
                         ShapeBeforePool(context.node, context.inputs[0].shape()));
  const Shape out = context.outputs[0].shape;
  for (int i = 0; i < out.rank(); ++i) {
    if (out[i] < inner[i])
      return InvalidArgument("{}: cannot put {} into {}", Describe(context.node), inner.ToString(),
                             out.ToString());
  }
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=, name = Describe(context.node)](
                   std::span<const ConstTensorView> inputs,
                   std::span<const TensorView> outputs) -> absl::Status {
          const auto strides = out.strides();
          const int64_t count = inner.elements();
          std::ranges::fill(outputs[0].span<T>(), T{0});
          for (int64_t i = 0; i < inputs[0].elements(); ++i) {
            int64_t index = inputs[1].as<int64_t>()[i];
            if (index < 0 || index >= count)
              return InvalidArgument("{}: index {} is outside [0, {}): {}", name, i, count, index);
            int64_t to = 0;
            for (int d = inner.rank(); d-- > 0; index /= inner[d])
              to += index % inner[d] * strides[d];
            outputs[0].as<T>()[to] = inputs[0].as<T>()[i];
          }
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> MaxUnpoolOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "MaxUnpool", 9, INT_MAX, InferMaxUnpool, MakeMaxUnpool},
  };
  return kOps;
}

}  // namespace octet
