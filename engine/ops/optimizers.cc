// ai.onnx.preview.training: one step of Adagrad, Adam or Momentum for a list of tensors.
//   inputs: R (learning rate), T (how many steps there were), then all tensors X, all gradients G, and the states
//   outputs: all new X, then the new states
// Source: ONNX, Operators-preview.md; Duchi et al. 2011; Kingma and Ba 2014; Sutskever et al. 2013.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::string_view kTrainingDomain = "ai.onnx.preview.training";

// Values of one parameter: its element of the tensor, its gradient, and up to two states.
struct Parameter {
  double x = 0;
  double g = 0;
  std::array<double, 2> states{};
};

struct Rates {
  double rate = 0;
  int64_t steps = 0;
};

struct Coefficients {
  double alpha = 0, beta = 0, epsilon = 0, decay = 0, norm = 0, norm_post = 0;
  bool nesterov = false;
};

using UpdateFn = void (*)(const Coefficients&, const Rates&, Parameter&);

void Adagrad(const Coefficients& c, const Rates& at, Parameter& e) {
  const double rate = at.rate / (1 + static_cast<double>(at.steps) * c.decay);
  const double g = c.norm * e.x + e.g;
  e.states[0] += g * g;
  e.x -= rate * g / (std::sqrt(e.states[0]) + c.epsilon);
}

void Adam(const Coefficients& c, const Rates& at, Parameter& e) {
  const double g = c.norm * e.x + e.g;
  auto& [v, h] = e.states;
  v = c.alpha * v + (1 - c.alpha) * g;
  h = c.beta * h + (1 - c.beta) * g * g;
  double rate = at.rate;
  if (at.steps > 0) {
    const auto steps = static_cast<double>(at.steps);
    rate *= std::sqrt(1 - std::pow(c.beta, steps)) / (1 - std::pow(c.alpha, steps));
  }
  e.x = (1 - c.norm_post) * (e.x - rate * v / (std::sqrt(h) + c.epsilon));
}

void Momentum(const Coefficients& c, const Rates& at, Parameter& e) {
  const double g = c.norm * e.x + e.g;
  double& v = e.states[0];
  v = c.alpha * v + (at.steps > 0 ? c.beta : 1.0) * g;
  e.x -= at.rate * (c.nesterov ? g + c.alpha * v : v);
}

struct Optimizer {
  std::string_view name;
  size_t states;
  UpdateFn update;
  float alpha, beta;
};
constexpr std::array<Optimizer, 3> kOptimizers = {{
    {"Adagrad", 1, Adagrad, 0, 0},
    {"Adam", 2, Adam, 0.9F, 0.999F},
    {"Momentum", 1, Momentum, 0, 0},
}};

const Optimizer& OptimizerOf(const Node& node) {
  return *std::ranges::find(kOptimizers, std::string_view(node.op), &Optimizer::name);
}

absl::StatusOr<Coefficients> CoefficientsOf(const Node& node) {
  const Optimizer& optimizer = OptimizerOf(node);
  Coefficients c;
  OCTET_ASSIGN_OR_RETURN(c.alpha, node.attributes.Float("alpha", optimizer.alpha));
  OCTET_ASSIGN_OR_RETURN(c.beta, node.attributes.Float("beta", optimizer.beta));
  OCTET_ASSIGN_OR_RETURN(c.epsilon, node.attributes.Float("epsilon", 1e-6F));
  OCTET_ASSIGN_OR_RETURN(c.decay, node.attributes.Float("decay_factor", 0));
  OCTET_ASSIGN_OR_RETURN(c.norm, node.attributes.Float("norm_coefficient", 0));
  OCTET_ASSIGN_OR_RETURN(c.norm_post, node.attributes.Float("norm_coefficient_post", 0));
  OCTET_ASSIGN_OR_RETURN(const std::string mode, node.attributes.String("mode", "standard"));
  c.nesterov = mode == "nesterov";
  if (!c.nesterov && mode != "standard")
    return InvalidArgument("{}: 'mode' must be standard or nesterov, not '{}'", Describe(node),
                           mode);
  return c;
}

absl::Status InferOptimizer(InferContext& context) {
  const size_t states = OptimizerOf(context.node()).states;
  const size_t kinds = 2 + states;  // X, G and the states.
  const size_t count = context.input_count();
  if (count < 2 + kinds || (count - 2) % kinds != 0)
    return context.Error(Format("takes 2 inputs and {} for each tensor, got {}", kinds, count));
  OCTET_RETURN_IF_ERROR(ExpectInputCount(context, count, count));
  constexpr DTypeSet kReals = {DType::kF32, DType::kF64};
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kReals));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, {DType::kI64}));
  for (const size_t i : {0, 1}) OCTET_RETURN_IF_ERROR(ExpectScalar(context, i));
  OCTET_RETURN_IF_ERROR(CoefficientsOf(context.node()).status());
  const size_t tensors = (count - 2) / kinds;
  for (size_t i = 2; i < count; ++i) {
    const size_t x = 2 + (i - 2) % tensors;
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, kReals));
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, x, i));
    const bool known = context.shape(x) && context.shape(i) && context.shape(x)->is_static() &&
                       context.shape(i)->is_static();
    if (known && *context.shape(x) != *context.shape(i))
      return context.Error(Format("inputs {} and {} differ in shape", x, i));
  }
  for (size_t i = 0; i < tensors * (1 + states); ++i) {
    const size_t x = 2 + i % tensors;
    OCTET_RETURN_IF_ERROR(context.SetOutput(i, context.dtype(x), context.shape(x)));
  }
  return absl::OkStatus();
}

template <typename T>
void UpdateTensor(const Optimizer& optimizer, const Coefficients& c, const Rates& rates,
                  size_t tensor, size_t tensors, std::span<const ConstTensorView> inputs,
                  std::span<const TensorView> outputs) {
  const auto input = [&](size_t kind) { return inputs[2 + kind * tensors + tensor].as<T>(); };
  for (int64_t i = 0; i < inputs[2 + tensor].elements(); ++i) {
    Parameter e{static_cast<double>(input(0)[i]), static_cast<double>(input(1)[i]), {}};
    for (size_t s = 0; s < optimizer.states; ++s)
      e.states[s] = static_cast<double>(input(2 + s)[i]);
    optimizer.update(c, rates, e);
    for (size_t kind = 0; kind <= optimizer.states; ++kind) {
      const size_t slot = kind * tensors + tensor;
      if (slot >= outputs.size() || outputs[slot].data == nullptr) continue;
      outputs[slot].as<T>()[i] = static_cast<T>(kind == 0 ? e.x : e.states[kind - 1]);
    }
  }
}

absl::StatusOr<Kernel> MakeOptimizer(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const Coefficients c, CoefficientsOf(context.node));
  const Optimizer& optimizer = OptimizerOf(context.node);
  const size_t tensors = (context.inputs.size() - 2) / (2 + optimizer.states);
  return Kernel([=, &optimizer](std::span<const ConstTensorView> inputs,
                                std::span<const TensorView> outputs) {
    const bool wide = inputs[0].dtype() == DType::kF64;
    const Rates rates{wide ? *inputs[0].as<double>() : static_cast<double>(*inputs[0].as<float>()),
                      *inputs[1].as<int64_t>()};
    for (size_t t = 0; t < tensors; ++t) {
      if (inputs[2 + t].dtype() == DType::kF64) {
        UpdateTensor<double>(optimizer, c, rates, t, tensors, inputs, outputs);
      } else {
        UpdateTensor<float>(optimizer, c, rates, t, tensors, inputs, outputs);
      }
    }
    return absl::OkStatus();
  });
}

}  // namespace

std::span<const OpDef> OptimizerOps() {
  static constexpr OpDef kOps[] = {
      {kTrainingDomain, "Adagrad", 1, INT_MAX, InferOptimizer, MakeOptimizer},
      {kTrainingDomain, "Adam", 1, INT_MAX, InferOptimizer, MakeOptimizer},
      {kTrainingDomain, "Momentum", 1, INT_MAX, InferOptimizer, MakeOptimizer},
  };
  return kOps;
}

}  // namespace octet
