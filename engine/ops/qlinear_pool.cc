// com.microsoft's quantized pools: QLinearAveragePool, QLinearGlobalAveragePool.
// Inputs: X, x_scale, x_zero, y_scale, y_zero. Source: ONNX Runtime, docs/ContribOperators.md.
#include <optional>

#include "engine/ops/dispatch.h"
#include "engine/ops/op_list.h"
#include "engine/ops/pool_loops.h"
#include "engine/ops/qlinear_operand.h"

namespace octet {
namespace {

using Inputs = std::span<const ConstTensorView>;
using Outputs = std::span<const TensorView>;

absl::Status InferAverage(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectQuantizedUnary(context));
  OCTET_ASSIGN_OR_RETURN(const auto out, InferPoolOutput(context));
  return context.SetOutput(0, context.dtype(0), out);
}

absl::Status InferGlobalAverage(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectQuantizedUnary(context));
  OCTET_ASSIGN_OR_RETURN(const auto out, InferGlobalPoolOutput(context));
  return context.SetOutput(0, context.dtype(0), out);
}

/// Sum of a window's integers, and how many there were.
struct Sum {
  explicit Sum(int64_t) {}
  int32_t total = 0;
  int32_t taps = 0;
};
constexpr auto kAddTap = [](Sum& sum, int32_t q, int64_t, int64_t, int64_t) {
  sum.total += q;
  ++sum.taps;
};

/// y = quantize(mean of the reals of a window); taps in the padding count as 0 with count_include_pad.
absl::StatusOr<Kernel> MakeAverage(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const PoolGeometry g,
                         WindowGeometry(context.node, context.inputs[0].shape()));
  OCTET_ASSIGN_OR_RETURN(const int64_t include_pad,
                         context.node.attributes.Int("count_include_pad", 0));
  const DType dtype = context.outputs[0].dtype;
  return KernelFor(kByteKernels, dtype, context.node, [&]<typename T>() -> Kernel {
    return [=](Inputs inputs, Outputs outputs) {
      const RunQuant x = RunQuant::At(inputs, 1);
      const RunQuant y = RunQuant::At(inputs, 3);
      T* out = outputs[0].as<T>();
      ForEachWindow<Sum>(
          g, inputs[0].as<T>(), kAddTap,
          [&](const Sum& sum, int64_t o, const std::array<int64_t, 3>&) {
            const auto count = static_cast<float>(include_pad != 0 ? g.kernel() : sum.taps);
            const float total = x.scale * static_cast<float>(sum.total - sum.taps * x.zero_point);
            const float mean = count == 0 ? 0.0f : total / count;
            out[o] = static_cast<T>(QuantizeOne(mean, y.scale, y.zero_point, RangeOf(dtype)));
          });
      return absl::OkStatus();
    };
  });
}

/// y = requantize(sum of (x - x_zero)) by x_scale / (y_scale * count): exact in integers up to that factor.
absl::StatusOr<Kernel> MakeGlobalAverage(const KernelContext& context) {
  const PoolGeometry g = GlobalGeometry(context.node, context.inputs[0].shape());
  const DType dtype = context.outputs[0].dtype;
  return KernelFor(kByteKernels, dtype, context.node, [&]<typename T>() -> Kernel {
    return [=](Inputs inputs, Outputs outputs) {
      const RunQuant x = RunQuant::At(inputs, 1);
      const RunQuant y = RunQuant::At(inputs, 3);
      const float multiplier = x.scale / (y.scale * static_cast<float>(g.in_plane()));
      T* out = outputs[0].as<T>();
      ForEachWindow<Sum>(
          g, inputs[0].as<T>(), kAddTap,
          [&](const Sum& sum, int64_t o, const std::array<int64_t, 3>&) {
            const int32_t total = sum.total - sum.taps * x.zero_point;
            out[o] = static_cast<T>(Requantize(total, multiplier, y.zero_point, RangeOf(dtype)));
          });
      return absl::OkStatus();
    };
  });
}

}  // namespace

std::span<const OpDef> QLinearPoolOps() {
  static constexpr OpDef kOps[] = {
      {kMicrosoftDomain, "QLinearAveragePool", 1, INT_MAX, InferAverage, MakeAverage},
      {kMicrosoftDomain, "QLinearGlobalAveragePool", 1, INT_MAX, InferGlobalAverage,
       MakeGlobalAverage},
  };
  return kOps;
}

}  // namespace octet
