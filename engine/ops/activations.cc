// Activations: one input (and for PRelu a slope), one output of the same shape.
// Relu LeakyRelu PRelu Clip Sigmoid HardSigmoid HardSwish Tanh Elu Selu Celu ThresholdedRelu Softplus Softsign
// Mish Gelu Erf; octet:Swish.
#include <cmath>
#include <limits>
#include <type_traits>

#include "engine/ops/activation_math.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/elementwise_lowering.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

absl::Status InferFloat(InferContext& context) { return InferSameAsInput(context, kFloats); }

/// RealKernel with attributes `alpha` and `beta`, handed to fn(x, alpha, beta) in x's type.
template <typename Fn>
absl::StatusOr<Kernel> AlphaBetaKernel(const KernelContext& context, float alpha_default,
                                       float beta_default, Fn fn) {
  OCTET_ASSIGN_OR_RETURN(const float alpha, context.node.attributes.Float("alpha", alpha_default));
  OCTET_ASSIGN_OR_RETURN(const float beta, context.node.attributes.Float("beta", beta_default));
  const auto make = [&]<typename T>() -> Kernel {
    return UnaryKernel<T>([=](T x) { return fn(x, static_cast<T>(alpha), static_cast<T>(beta)); });
  };
  return KernelFor(kRealKernels, context.inputs[0].dtype(), context.node, make);
}

template <typename Fn>
absl::StatusOr<Kernel> AlphaKernel(const KernelContext& context, float alpha_default, Fn fn) {
  return AlphaBetaKernel(context, alpha_default, 0.0F,
                         [fn](auto x, auto alpha, auto) { return fn(x, alpha); });
}

absl::StatusOr<Kernel> MakeSigmoid(const KernelContext& c) {
  return RealKernel(c, [](auto x) { return math::Sigmoid(x); });
}
absl::StatusOr<Kernel> MakeTanh(const KernelContext& c) {
  return RealKernel(c, [](auto x) { return math::Tanh(x); });
}
/// ONNX defines Erf for integers, too: their results truncated.
absl::StatusOr<Kernel> MakeErf(const KernelContext& c) {
  const auto make = []<typename T>() -> Kernel {
    if constexpr (std::is_integral_v<T>)
      return UnaryKernel<T>([](T x) { return static_cast<T>(std::erf(static_cast<double>(x))); });
    else
      return UnaryKernel<T>([](T x) { return math::Erf(x); });
  };
  return KernelFor(kNumberKernels, c.inputs[0].dtype(), c.node, make);
}
absl::Status InferErf(InferContext& context) { return InferSameAsInput(context, kNumbers); }
absl::StatusOr<Kernel> MakeSoftplus(const KernelContext& c) {
  return RealKernel(c, [](auto x) { return math::Softplus(x); });
}
absl::StatusOr<Kernel> MakeSoftsign(const KernelContext& c) {
  return RealKernel(c, [](auto x) { return x / (1 + std::fabs(x)); });
}
absl::StatusOr<Kernel> MakeMish(const KernelContext& c) {
  return RealKernel(c, [](auto x) { return math::Mish(x); });
}
absl::StatusOr<Kernel> MakeHardSwish(const KernelContext& c) {
  return RealKernel(c, [](auto x) { return math::HardSwish(x); });
}
absl::StatusOr<Kernel> MakeLeakyRelu(const KernelContext& c) {
  return AlphaKernel(c, 0.01F, [](auto x, auto alpha) { return math::LeakyRelu(x, alpha); });
}
absl::StatusOr<Kernel> MakeElu(const KernelContext& c) {
  return AlphaKernel(c, 1.0F, [](auto x, auto alpha) { return math::Elu(x, alpha); });
}
/// max(0, x) + min(0, alpha * (e^(x / alpha) - 1))
absl::StatusOr<Kernel> MakeCelu(const KernelContext& c) {
  return AlphaKernel(c, 1.0F, [](auto x, auto alpha) {
    const auto negative = alpha * math::Expm1(x / alpha);
    return math::Relu(x) + (negative < 0 ? negative : decltype(x){0});
  });
}
absl::StatusOr<Kernel> MakeThresholdedRelu(const KernelContext& c) {
  return AlphaKernel(c, 1.0F, [](auto x, auto alpha) { return x <= alpha ? decltype(x){0} : x; });
}
absl::StatusOr<Kernel> MakeSwish(const KernelContext& c) {
  return AlphaKernel(c, 1.0F, [](auto x, auto alpha) { return math::Swish(x, alpha); });
}
absl::StatusOr<Kernel> MakeHardSigmoid(const KernelContext& c) {
  return AlphaBetaKernel(c, 0.2F, 0.5F, [](auto x, auto alpha, auto beta) {
    return math::HardSigmoid(x, alpha, beta);
  });
}

/// gamma * (alpha * e^x - alpha) for x <= 0, gamma * x for x > 0. Source: ONNX Selu-6.
absl::StatusOr<Kernel> MakeSelu(const KernelContext& c) {
  OCTET_ASSIGN_OR_RETURN(const float gamma, c.node.attributes.Float("gamma", 1.05070102F));
  return AlphaKernel(c, 1.67326319F, [gamma](auto x, auto alpha) {
    return static_cast<decltype(x)>(gamma) * math::Elu(x, alpha);
  });
}

/// x + bias below -lambd, x - bias above lambd, else 0. Source: ONNX Shrink-9.
absl::StatusOr<Kernel> MakeShrink(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const float bias, context.node.attributes.Float("bias", 0.0F));
  OCTET_ASSIGN_OR_RETURN(const float lambd, context.node.attributes.Float("lambd", 0.5F));
  const auto make = [&]<typename T>() -> Kernel {
    return UnaryKernel<T>([=](T x) -> T {
      const double real = static_cast<double>(x);
      if (real < -lambd) return static_cast<T>(real + bias);
      return real > lambd ? static_cast<T>(real - bias) : T{0};
    });
  };
  return KernelFor(kNumberKernels, context.inputs[0].dtype(), context.node, make);
}
absl::Status InferShrink(InferContext& context) { return InferSameAsInput(context, kNumbers); }

absl::Status InferGelu(InferContext& context) {
  OCTET_RETURN_IF_ERROR(InferFloat(context));
  OCTET_ASSIGN_OR_RETURN(const std::string kind,
                         context.attributes().String("approximate", "none"));
  if (kind == "none" || kind == "tanh") return absl::OkStatus();
  return context.Error(Format("attribute 'approximate' must be none or tanh, got '{}'", kind));
}

absl::StatusOr<Kernel> MakeGelu(const KernelContext& c) {
  OCTET_ASSIGN_OR_RETURN(const std::string kind, c.node.attributes.String("approximate", "none"));
  if (kind == "tanh") return RealKernel(c, [](auto x) { return math::GeluTanh(x); });
  return RealKernel(c, [](auto x) { return math::GeluErf(x); });
}

absl::Status InferRelu(InferContext& context) {
  return InferSameAsInput(context, context.node().version >= 14 ? kSignedNumbers : kFloats);
}

absl::StatusOr<Kernel> MakeRelu(const KernelContext& context) {
  const auto make = []<typename T>() -> Kernel {
    return UnaryKernel<T>([](T x) { return math::Relu(x); });
  };
  return KernelFor(kRealKernels + kSignedKernels, context.inputs[0].dtype(), context.node, make);
}

absl::Status InferPRelu(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 2));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kNumbers));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  const std::optional<Shape>& x = context.shape(0);
  const std::optional<Shape>& slope = context.shape(1);
  if (x && slope && x->is_static() && slope->is_static() && Broadcast(*x, *slope) != *x) {
    return context.Error(Format("slope of shape {} does not broadcast to the input's {}",
                                slope->ToString(), x->ToString()));
  }
  return context.SetOutput(0, context.dtype(0), x);
}

absl::StatusOr<Kernel> MakePRelu(const KernelContext& context) {
  const auto make = [&]<typename T>() -> Kernel {
    return BinaryKernel<T>(context,
                           [](T x, T slope) { return x < T{0} ? static_cast<T>(slope * x) : x; });
  };
  return KernelFor(kNumberKernels, context.inputs[0].dtype(), context.node, make);
}

/// Bounds as attributes. Source: ONNX Clip-6.
absl::StatusOr<Kernel> MakeClipAttributes(const KernelContext& context) {
  constexpr float kMax = std::numeric_limits<float>::max();
  OCTET_ASSIGN_OR_RETURN(const float low, context.node.attributes.Float("min", -kMax));
  OCTET_ASSIGN_OR_RETURN(const float high, context.node.attributes.Float("max", kMax));
  const auto make = [&]<typename T>() -> Kernel {
    return UnaryKernel<T>([=](T x) { return math::Clip<T>(x, low, high); });
  };
  return KernelFor(kRealKernels, context.inputs[0].dtype(), context.node, make);
}

/// Bounds as optional scalar inputs, which may be computed. Source: ONNX Clip-11, -12, -13.
absl::Status InferClip(InferContext& context) {
  const DTypeSet accepted = context.node().version >= 12 ? kNumbers : kFloats;
  OCTET_RETURN_IF_ERROR(InferSameAsInput(context, accepted, 1, 3));
  for (const size_t i : {1, 2}) {
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, i));
    OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  }
  return absl::OkStatus();
}

/// A run-time scalar input, or `absent` when the node has none.
template <typename T>
T ScalarInput(std::span<const ConstTensorView> inputs, size_t i, T absent) {
  return i < inputs.size() && inputs[i].data != nullptr ? *inputs[i].as<T>() : absent;
}

absl::StatusOr<Kernel> MakeClip(const KernelContext& context) {
  const auto make = []<typename T>() -> Kernel {
    return [](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
      using Limits = std::numeric_limits<T>;
      const T low =
          ScalarInput<T>(inputs, 1, Limits::has_infinity ? -Limits::infinity() : Limits::lowest());
      const T high =
          ScalarInput<T>(inputs, 2, Limits::has_infinity ? Limits::infinity() : Limits::max());
      return UnaryKernel<T>([=](T x) { return math::Clip(x, low, high); })(inputs, outputs);
    };
  };
  return KernelFor(kNumberKernels, context.inputs[0].dtype(), context.node, make);
}

constexpr OpTraits kUnary = {.elementwise_unary = true};

constexpr OpDef Activation(std::string_view name, int since, MakeKernelFn kernel) {
  return {.domain = kOnnxDomain,
          .name = name,
          .since = since,
          .infer = InferFloat,
          .kernel = kernel,
          .lower = LowerElementwiseUnary,
          .traits = kUnary};
}

constexpr OpDef kActivationOps[] = {
    Activation("Celu", 12, MakeCelu),
    Activation("Elu", 1, MakeElu),
    {.domain = kOnnxDomain,
     .name = "Erf",
     .since = 9,
     .infer = InferErf,
     .kernel = MakeErf,
     .lower = LowerElementwiseUnary,
     .traits = kUnary},
    Activation("HardSigmoid", 1, MakeHardSigmoid),
    Activation("HardSwish", 14, MakeHardSwish),
    Activation("LeakyRelu", 1, MakeLeakyRelu),
    Activation("Mish", 18, MakeMish),
    Activation("Selu", 6, MakeSelu),
    Activation("Sigmoid", 1, MakeSigmoid),
    Activation("Softplus", 1, MakeSoftplus),
    Activation("Softsign", 1, MakeSoftsign),
    Activation("Tanh", 1, MakeTanh),
    Activation("ThresholdedRelu", 10, MakeThresholdedRelu),
    {.domain = kOnnxDomain,
     .name = "Relu",
     .infer = InferRelu,
     .kernel = MakeRelu,
     .lower = LowerElementwiseUnary,
     .traits = kUnary},
    {.domain = kOnnxDomain,
     .name = "Shrink",
     .since = 9,
     .infer = InferShrink,
     .kernel = MakeShrink,
     .traits = kUnary},
    {.domain = kOnnxDomain,
     .name = "Gelu",
     .since = 20,
     .infer = InferGelu,
     .kernel = MakeGelu,
     .lower = LowerElementwiseUnary,
     .traits = kUnary},
    {.domain = kOctetDomain,
     .name = "Swish",
     .infer = InferFloat,
     .kernel = MakeSwish,
     .lower = LowerElementwiseUnary,
     .traits = kUnary},
    {.domain = kOnnxDomain,
     .name = "Clip",
     .until = 10,
     .infer = InferFloat,
     .kernel = MakeClipAttributes,
     .lower = LowerElementwiseUnary,
     .traits = kUnary},
    {.domain = kOnnxDomain,
     .name = "Clip",
     .since = 11,
     .infer = InferClip,
     .kernel = MakeClip,
     .lower = LowerElementwiseUnary,
     .traits = kUnary},
    {.domain = kOnnxDomain,
     .name = "PRelu",
     .since = 7,
     .infer = InferPRelu,
     .kernel = MakePRelu,
     .lower = LowerElementwiseBinary,
     .traits = {.elementwise_broadcast = true}},
};

}  // namespace

std::span<const OpDef> ActivationOps() { return kActivationOps; }

}  // namespace octet
