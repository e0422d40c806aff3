// Elementwise arithmetic and logic.
//   broadcast   Add Sub Mul Div Pow Mod, And Or Xor, BitShift BitwiseAnd BitwiseOr BitwiseXor
//   variadic    Min Max Sum Mean
//   unary       Neg Abs Sqrt Exp Log Reciprocal Floor Ceil Round Sign, trigonometric and hyperbolic, Not BitwiseNot
#include <bit>
#include <cmath>

#include "engine/ops/activation_math.h"
#include "engine/ops/binary_math.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/elementwise_lowering.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

template <typename T>
constexpr bool kIsReal = std::is_floating_point_v<T>;

// ---- Broadcast ----

absl::Status InferArithmetic(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  return InferBroadcast(context, 0, 2, kNumbers);
}

/// One functor for every element type of `types`.
template <typename TypeList, typename Fn>
absl::StatusOr<Kernel> BroadcastKernel(const KernelContext& context, TypeList types, Fn fn) {
  const auto make = [&]<typename T>() -> Kernel { return BinaryKernel<T>(context, fn); };
  return KernelFor(types, context.inputs[0].dtype(), context.node, make);
}

template <typename Fn>
absl::StatusOr<Kernel> MakeArithmetic(const KernelContext& context) {
  return BroadcastKernel(context, kNumberKernels, Fn{});
}

/// x86 divides no integer vectors, and the functor branches: the same kernel, scalar.
absl::StatusOr<Kernel> MakeMod(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const int64_t fmod, context.node.attributes.Int("fmod", 0));
  return fmod != 0 ? BroadcastKernel(context, kNumberKernels, math::TruncatedMod{})
                   : BroadcastKernel(context, kNumberKernels, math::FloorMod{});
}

absl::Status InferMod(InferContext& context) {
  OCTET_RETURN_IF_ERROR(InferArithmetic(context));
  OCTET_ASSIGN_OR_RETURN(const int64_t fmod, context.attributes().Int("fmod", 0));
  if (fmod == 0 && IsFloat(context.dtype(0))) {
    return context.Error("attribute 'fmod' must be 1 for floating-point inputs");
  }
  return absl::OkStatus();
}

/// Base and exponent may differ in type from opset 12 on; the result has the base's.
absl::Status InferPow(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats | DTypeSet{DType::kI32, DType::kI64}));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kNumbers));
  if (context.node().version < 12) OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  if (!context.shape(0) || !context.shape(1)) {
    return context.SetOutput(0, context.dtype(0), std::nullopt);
  }
  std::optional<Shape> shape = Broadcast(*context.shape(0), *context.shape(1));
  if (shape) return context.SetOutput(0, context.dtype(0), std::move(shape));
  return context.Error(Format("shapes {} and {} do not broadcast", context.shape(0)->ToString(),
                              context.shape(1)->ToString()));
}

template <typename T, typename E>
Kernel PowKernel(const KernelContext& context) {
  const Shape shapes[] = {context.inputs[0].shape(), context.inputs[1].shape()};
  return [plan = BroadcastPlan(context.outputs[0].shape, shapes)](
             std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
    const T* base = inputs[0].as<T>();
    const E* exponent = inputs[1].as<E>();
    T* y = outputs[0].as<T>();
    const auto row = [&](int64_t out, std::span<const int64_t> in, int64_t n) {
      const T* x = base + in[0];
      const E* e = exponent + in[1];
      if (plan.stride(0) == 1 && plan.stride(1) == 0 && *e == E{2}) {
        rows::Unary(x, y + out, n, [](T v) { return math::Mul{}(v, v); });
        return;
      }
      for (int64_t i = 0; i < n; ++i) {
        y[out + i] = math::Pow{}(x[i * plan.stride(0)], e[i * plan.stride(1)]);
      }
    };
    ParallelFor(plan.elements(), kElementwiseGrain / 8,
                [&](int64_t begin, int64_t end) { plan.ForEachRow(begin, end, row); });
    return absl::OkStatus();
  };
}

/// An exponent of a type other than float, double and int64 is converted to the nearest of them first.
template <typename T>
Kernel PowKernelForExponent(const KernelContext& context) {
  const DType exponent = context.inputs[1].dtype();
  if (exponent == DType::kF32) return PowKernel<T, float>(context);
  if (exponent == DType::kF64) return PowKernel<T, double>(context);
  if (exponent == DType::kI64) return PowKernel<T, int64_t>(context);
  return [kernel = PowKernel<T, int64_t>(context)](std::span<const ConstTensorView> inputs,
                                                   std::span<const TensorView> outputs) {
    Tensor converted(DType::kI64, inputs[1].shape());
    ConvertTensor(inputs[1], converted.mutable_view());
    const ConstTensorView operands[] = {inputs[0], converted.view()};
    return kernel(operands, outputs);
  };
}

absl::StatusOr<Kernel> MakePow(const KernelContext& context) {
  const auto make = [&]<typename T>() -> Kernel { return PowKernelForExponent<T>(context); };
  return KernelFor(Types<float, double, int32_t, int64_t>{}, context.inputs[0].dtype(),
                   context.node, make);
}

// ---- Logic and bits ----

absl::Status InferLogical(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  return InferBroadcast(context, 0, 2, kBools);
}

absl::Status InferBitwise(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  return InferBroadcast(context, 0, 2, kIntegers);
}

absl::Status InferNot(InferContext& context) { return InferSameAsInput(context, kBools); }
absl::Status InferBitwiseNot(InferContext& context) { return InferSameAsInput(context, kIntegers); }

struct BitAnd {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a & b);
  }
};
struct BitOr {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a | b);
  }
};
struct BitXor {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a ^ b);
  }
};

template <typename Fn>
absl::StatusOr<Kernel> MakeLogical(const KernelContext& context) {
  return BroadcastKernel(context, Types<bool>{}, Fn{});
}
template <typename Fn>
absl::StatusOr<Kernel> MakeBitwise(const KernelContext& context) {
  return BroadcastKernel(context, kIntegerKernels, Fn{});
}

absl::StatusOr<Kernel> MakeNot(const KernelContext&) {
  return UnaryKernel<bool>([](bool x) { return !x; });
}

absl::StatusOr<Kernel> MakeBitwiseNot(const KernelContext& context) {
  const auto make = []<typename T>() -> Kernel {
    return UnaryKernel<T>([](T x) { return static_cast<T>(~x); });
  };
  return KernelFor(kIntegerKernels, context.inputs[0].dtype(), context.node, make);
}

/// A shift by the width or more gives 0.
absl::StatusOr<Kernel> MakeBitShift(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const std::string direction,
                         context.node.attributes.String("direction", ""));
  const bool left = direction == "LEFT";
  const auto shift = [left](auto x, auto by) {
    using T = decltype(x);
    if (by >= sizeof(T) * 8) return T{0};
    return static_cast<T>(left ? static_cast<uint64_t>(x) << by : static_cast<uint64_t>(x) >> by);
  };
  return BroadcastKernel(context, kUnsignedKernels, shift);
}

absl::Status InferBitShift(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_ASSIGN_OR_RETURN(const std::string direction, context.attributes().String("direction", ""));
  if (direction != "LEFT" && direction != "RIGHT") {
    return context.Error(
        Format("attribute 'direction' must be LEFT or RIGHT, got '{}'", direction));
  }
  return InferBroadcast(context, 0, 2, kUnsignedInts);
}

// ---- Variadic ----

absl::Status InferVariadic(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 1, SIZE_MAX));
  const size_t count = context.input_count();
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, count, count));
  const bool reals_only = context.node().op == "Sum" || context.node().op == "Mean";
  return InferBroadcast(context, 0, count, reals_only ? kFloats : kNumbers);
}

/// y = fn(...fn(fn(in[0], in[1]), in[2])...), then finish(y): input 0 is copied, the others fold into it.
template <typename T, typename Fn, typename Finish>
Kernel VariadicKernel(const KernelContext& context, Fn fn, Finish finish) {
  std::vector<BroadcastPlan> plans;
  for (const ConstTensorView& input : context.inputs) {
    const Shape shapes[] = {context.outputs[0].shape, input.shape()};
    plans.emplace_back(context.outputs[0].shape, shapes);
  }
  return [plans, fn, finish](std::span<const ConstTensorView> inputs,
                             std::span<const TensorView> outputs) {
    T* y = outputs[0].as<T>();
    ParallelFor(outputs[0].elements(), kElementwiseGrain, [&](int64_t begin, int64_t end) {
      for (size_t i = 0; i < plans.size(); ++i) {
        const T* x = inputs[i].as<T>();
        plans[i].ForEachRow(begin, end, [&](int64_t out, std::span<const int64_t> in, int64_t n) {
          const T* row = x + in[1];
          const auto fold = [&](T a, T b) { return i == 0 ? b : fn(a, b); };
          rows::Binary(y + out, plans[i].stride(0), row, plans[i].stride(1), y + out, n, fold);
        });
      }
      rows::Unary(y + begin, y + begin, end - begin, finish);
    });
    return absl::OkStatus();
  };
}

template <typename Fn>
absl::StatusOr<Kernel> MakeVariadic(const KernelContext& context) {
  const auto make = [&]<typename T>() -> Kernel {
    if (context.inputs.size() == 2) return BinaryKernel<T>(context, Fn{});
    return VariadicKernel<T>(context, Fn{}, [](T x) { return x; });
  };
  return KernelFor(kNumberKernels, context.inputs[0].dtype(), context.node, make);
}

absl::StatusOr<Kernel> MakeMean(const KernelContext& context) {
  const auto make = [&]<typename T>() -> Kernel {
    const T count = static_cast<T>(context.inputs.size());
    return VariadicKernel<T>(context, math::Add{}, [count](T x) { return x / count; });
  };
  return KernelFor(kRealKernels, context.inputs[0].dtype(), context.node, make);
}

// ---- Unary ----

absl::Status InferReal(InferContext& context) { return InferSameAsInput(context, kFloats); }
absl::Status InferSigned(InferContext& context) {
  return InferSameAsInput(context, kSignedNumbers);
}
absl::Status InferNumber(InferContext& context) { return InferSameAsInput(context, kNumbers); }

absl::StatusOr<Kernel> MakeNeg(const KernelContext& context) {
  const auto make = []<typename T>() -> Kernel {
    if constexpr (kIsReal<T>) return UnaryKernel<T>([](T x) { return -x; });
    return UnaryKernel<T>([](T x) { return math::Sub{}(T{0}, x); });
  };
  return KernelFor(kRealKernels + kSignedKernels, context.inputs[0].dtype(), context.node, make);
}

absl::StatusOr<Kernel> MakeAbs(const KernelContext& context) {
  const auto make = []<typename T>() -> Kernel {
    if constexpr (kIsReal<T>) return UnaryKernel<T>([](T x) { return std::fabs(x); });
    return UnaryKernel<T>([](T x) { return x < T{0} ? math::Sub{}(T{0}, x) : x; });
  };
  return KernelFor(kNumberKernels, context.inputs[0].dtype(), context.node, make);
}

/// -1, 0 or 1; NaN stays NaN.
absl::StatusOr<Kernel> MakeSign(const KernelContext& context) {
  const auto make = []<typename T>() -> Kernel {
    return UnaryKernel<T>([](T x) {
      const T sign = static_cast<T>((x > T{0}) - (x < T{0}));
      return x != x ? x : sign;
    });
  };
  return KernelFor(kNumberKernels, context.inputs[0].dtype(), context.node, make);
}

#define OCTET_REAL_UNARY(Name, expression)                    \
  absl::StatusOr<Kernel> Make##Name(const KernelContext& c) { \
    return RealKernel(c, [](auto x) { return expression; });  \
  }
OCTET_REAL_UNARY(Acos, std::acos(x))
OCTET_REAL_UNARY(Acosh, std::acosh(x))
OCTET_REAL_UNARY(Asin, std::asin(x))
OCTET_REAL_UNARY(Asinh, std::asinh(x))
OCTET_REAL_UNARY(Atan, std::atan(x))
OCTET_REAL_UNARY(Atanh, std::atanh(x))
OCTET_REAL_UNARY(Ceil, std::ceil(x))
OCTET_REAL_UNARY(Cos, std::cos(x))
OCTET_REAL_UNARY(Cosh, std::cosh(x))
OCTET_REAL_UNARY(Exp, math::Exp(x))
OCTET_REAL_UNARY(Floor, std::floor(x))
OCTET_REAL_UNARY(Log, std::log(x))
OCTET_REAL_UNARY(Reciprocal, 1 / x)
OCTET_REAL_UNARY(Round, std::nearbyint(x))  // Half to even, the default rounding mode.
OCTET_REAL_UNARY(Sin, std::sin(x))
OCTET_REAL_UNARY(Sinh, std::sinh(x))
OCTET_REAL_UNARY(Sqrt, std::sqrt(x))
OCTET_REAL_UNARY(Tan, std::tan(x))
#undef OCTET_REAL_UNARY

// ---- The table ----

constexpr OpDef Broadcasting(std::string_view name, int since, InferFn infer, MakeKernelFn kernel) {
  return {.domain = kOnnxDomain,
          .name = name,
          .since = since,
          .infer = infer,
          .kernel = kernel,
          .lower = LowerElementwiseBinary,
          .traits = {.elementwise_broadcast = true}};
}

constexpr OpDef Unary(std::string_view name, int since, MakeKernelFn kernel,
                      InferFn infer = InferReal) {
  return {.domain = kOnnxDomain,
          .name = name,
          .since = since,
          .infer = infer,
          .kernel = kernel,
          .lower = LowerElementwiseUnary,
          .traits = {.elementwise_unary = true}};
}

constexpr OpDef kElementwiseMathOps[] = {
    Broadcasting("Add", 7, InferArithmetic, MakeArithmetic<math::Add>),
    Broadcasting("Sub", 7, InferArithmetic, MakeArithmetic<math::Sub>),
    Broadcasting("Mul", 7, InferArithmetic, MakeArithmetic<math::Mul>),
    Broadcasting("Div", 7, InferArithmetic, MakeArithmetic<math::Div>),
    Broadcasting("Pow", 7, InferPow, MakePow),
    Broadcasting("Mod", 10, InferMod, MakeMod),
    Broadcasting("And", 7, InferLogical, MakeLogical<BitAnd>),
    Broadcasting("Or", 7, InferLogical, MakeLogical<BitOr>),
    Broadcasting("Xor", 7, InferLogical, MakeLogical<BitXor>),
    Broadcasting("BitShift", 11, InferBitShift, MakeBitShift),
    Broadcasting("BitwiseAnd", 18, InferBitwise, MakeBitwise<BitAnd>),
    Broadcasting("BitwiseOr", 18, InferBitwise, MakeBitwise<BitOr>),
    Broadcasting("BitwiseXor", 18, InferBitwise, MakeBitwise<BitXor>),
    Broadcasting("Max", 1, InferVariadic, MakeVariadic<math::Max>),
    Broadcasting("Min", 1, InferVariadic, MakeVariadic<math::Min>),
    Broadcasting("Sum", 1, InferVariadic, MakeVariadic<math::Add>),
    Broadcasting("Mean", 1, InferVariadic, MakeMean),
    Unary("Abs", 1, MakeAbs, InferNumber),
    Unary("Acos", 7, MakeAcos),
    Unary("Acosh", 9, MakeAcosh),
    Unary("Asin", 7, MakeAsin),
    Unary("Asinh", 9, MakeAsinh),
    Unary("Atan", 7, MakeAtan),
    Unary("Atanh", 9, MakeAtanh),
    Unary("BitwiseNot", 18, MakeBitwiseNot, InferBitwiseNot),
    Unary("Ceil", 1, MakeCeil),
    Unary("Cos", 7, MakeCos),
    Unary("Cosh", 9, MakeCosh),
    Unary("Exp", 1, MakeExp),
    Unary("Floor", 1, MakeFloor),
    Unary("Log", 1, MakeLog),
    Unary("Neg", 1, MakeNeg, InferSigned),
    Unary("Not", 1, MakeNot, InferNot),
    Unary("Reciprocal", 1, MakeReciprocal),
    Unary("Round", 11, MakeRound),
    Unary("Sign", 9, MakeSign, InferNumber),
    Unary("Sin", 7, MakeSin),
    Unary("Sinh", 9, MakeSinh),
    Unary("Sqrt", 1, MakeSqrt),
    Unary("Tan", 7, MakeTan),
};

}  // namespace

std::span<const OpDef> ElementwiseMathOps() { return kElementwiseMathOps; }

}  // namespace octet
