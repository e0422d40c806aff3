// Comparisons and selection: Equal Less Greater LessOrEqual GreaterOrEqual Where IsNaN IsInf.
#include <cmath>

#include "engine/ops/dispatch.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/elementwise_lowering.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::Status InferComparison(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  const bool equality = context.node().op == "Equal";
  return InferBroadcast(context, 0, 2, equality ? kAnyTypes | kStrings : kNumbers, DType::kBool);
}

template <typename Fn>
absl::StatusOr<Kernel> MakeComparison(const KernelContext& context) {
  const auto make = [&]<typename T>() -> Kernel { return BinaryKernel<T, bool>(context, Fn{}); };
  if constexpr (std::is_same_v<Fn, std::equal_to<>>) {
    if (context.inputs[0].dtype() == DType::kString)
      return make.template operator()<std::string_view>();
  }
  return KernelFor(kNumberAndBoolKernels, context.inputs[0].dtype(), context.node, make);
}

absl::Status InferWhere(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kBools));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 1, 2));
  std::optional<Shape> shape = Shape{};
  for (size_t i = 0; i < 3; ++i) {
    if (shape && context.shape(i)) {
      std::optional<Shape> merged = Broadcast(*shape, *context.shape(i));
      if (!merged) return context.Error("condition and choices do not broadcast");
      shape = std::move(merged);
    } else {
      shape = std::nullopt;
    }
  }
  return context.SetOutput(0, context.dtype(1), std::move(shape));
}

absl::StatusOr<Kernel> MakeWhere(const KernelContext& context) {
  const auto make = [&]<typename T>() -> Kernel {
    const Shape shapes[] = {context.inputs[0].shape(), context.inputs[1].shape(),
                            context.inputs[2].shape()};
    return [plan = BroadcastPlan(context.outputs[0].shape, shapes)](
               std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      const auto row = [&](int64_t out, std::span<const int64_t> in, int64_t n) {
        const bool* condition = inputs[0].as<bool>() + in[0];
        const T* x = inputs[1].as<T>() + in[1];
        const T* y = inputs[2].as<T>() + in[2];
        T* result = outputs[0].as<T>() + out;
        for (int64_t i = 0; i < n; ++i) {
          const T chosen_x = x[i * plan.stride(1)];
          const T chosen_y = y[i * plan.stride(2)];
          result[i] = condition[i * plan.stride(0)] ? chosen_x : chosen_y;
        }
      };
      ParallelFor(plan.elements(), kElementwiseGrain,
                  [&](int64_t begin, int64_t end) { plan.ForEachRow(begin, end, row); });
      return absl::OkStatus();
    };
  };
  const DType dtype = context.inputs[1].dtype();
  if (dtype == DType::kString) return make.template operator()<std::string_view>();
  return KernelFor(kStorageKernels, StorageOf(dtype), context.node, make);
}

absl::Status InferFloatTest(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, 1));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  return context.SetOutput(0, DType::kBool, context.shape(0));
}

absl::StatusOr<Kernel> MakeIsNaN(const KernelContext& context) {
  const auto make = []<typename T>() -> Kernel {
    return UnaryKernel<T, bool>([](T x) { return x != x; });
  };
  return KernelFor(kRealKernels, context.inputs[0].dtype(), context.node, make);
}

absl::StatusOr<Kernel> MakeIsInf(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t negative, context.node.attributes.Int("detect_negative", 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t positive, context.node.attributes.Int("detect_positive", 1));
  const auto make = [=]<typename T>() -> Kernel {
    return UnaryKernel<T, bool>(
        [=](T x) { return std::isinf(x) && (x < 0 ? negative != 0 : positive != 0); });
  };
  return KernelFor(kRealKernels, context.inputs[0].dtype(), context.node, make);
}

constexpr OpDef Comparison(std::string_view name, int since, MakeKernelFn kernel,
                           bool strings = false) {
  return {.domain = kOnnxDomain,
          .name = name,
          .since = since,
          .infer = InferComparison,
          .kernel = kernel,
          .lower = LowerElementwiseKernel,
          .traits = {.elementwise_broadcast = true, .strings = strings}};
}

constexpr OpDef FloatTest(std::string_view name, int since, MakeKernelFn kernel) {
  return {.domain = kOnnxDomain,
          .name = name,
          .since = since,
          .infer = InferFloatTest,
          .kernel = kernel,
          .lower = LowerElementwiseKernel,
          .traits = {.elementwise_unary = true}};
}

constexpr OpDef kComparisonOps[] = {
    Comparison("Equal", 7, MakeComparison<std::equal_to<>>, true),
    Comparison("Less", 7, MakeComparison<std::less<>>),
    Comparison("Greater", 7, MakeComparison<std::greater<>>),
    Comparison("LessOrEqual", 12, MakeComparison<std::less_equal<>>),
    Comparison("GreaterOrEqual", 12, MakeComparison<std::greater_equal<>>),
    {.domain = kOnnxDomain,
     .name = "Where",
     .since = 9,
     .infer = InferWhere,
     .kernel = MakeWhere,
     .lower = LowerElementwiseKernel,
     .traits = {.elementwise_broadcast = true, .strings = true}},
    FloatTest("IsNaN", 9, MakeIsNaN),
    FloatTest("IsInf", 10, MakeIsInf),
};

}  // namespace

std::span<const OpDef> ComparisonOps() { return kComparisonOps; }

}  // namespace octet
