// Losses of classifiers: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

enum class Reduction { kNone, kSum, kMean };

absl::StatusOr<Reduction> ReductionOf(const Node& node) {
  OCTET_ASSIGN_OR_RETURN(const std::string name, node.attributes.String("reduction", "mean"));
  if (name == "none") return Reduction::kNone;
  if (name == "sum") return Reduction::kSum;
  if (name == "mean") return Reduction::kMean;
  return InvalidArgument("{}: unknown 'reduction': '{}'", Describe(node), name);
}

/// Scores [N, C, d...], targets [N, d...], weights [C]; the loss is a scalar, or [N, d...] without reduction.
absl::Status InferLoss(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 1, kIndexTypes));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, INT_MAX));
  OCTET_ASSIGN_OR_RETURN(const Reduction reduction, ReductionOf(context.node()));
  const auto& scores = context.shape(0);
  std::optional<Shape> losses = context.shape(1);
  if (scores) {
    OCTET_RETURN_IF_ERROR(ExpectVector(context, 2, (*scores)[1]));
    Shape expected{(*scores)[0]};
    for (int i = 2; i < scores->rank(); ++i) expected.push_back((*scores)[i]);
    const bool known = losses && losses->is_static() && expected.is_static();
    if ((losses && losses->rank() != expected.rank()) || (known && *losses != expected)) {
      return context.Error(
          Format("targets {} do not fit scores {}", losses->ToString(), scores->ToString()));
    }
    losses = expected;
  }
  if (reduction != Reduction::kNone) losses = Shape{};
  return context.SetOutput(0, context.dtype(0), std::move(losses));
}

absl::Status InferCrossEntropy(InferContext& context) {
  OCTET_RETURN_IF_ERROR(InferLoss(context));
  return context.SetOutput(1, context.dtype(0), context.shape(0));
}

/// How the scores of one sample lie: `classes` of them, `inner` apart.
struct LossForm {
  Reduction reduction = Reduction::kMean;
  int64_t classes = 1;
  int64_t inner = 1;
  int64_t samples = 1;
  std::optional<int64_t> ignored;
  bool softmax = false;

  int64_t First(int64_t sample) const { return sample / inner * classes * inner + sample % inner; }
};

/// log(softmax) of one sample at class c, with the logarithm of its sum.
template <typename T>
double LogSum(const LossForm& form, const T* x) {
  double largest = static_cast<double>(x[0]);
  for (int64_t c = 1; c < form.classes; ++c)
    largest = std::max(largest, static_cast<double>(x[c * form.inner]));
  double sum = 0;
  for (int64_t c = 0; c < form.classes; ++c)
    sum += std::exp(static_cast<double>(x[c * form.inner]) - largest);
  return largest + std::log(sum);
}

/// loss = -weight[target] * x[target] (of the log-softmax for cross entropy), 0 for the ignored class; `mean` divides the
/// sum by the sum of the weights.
template <typename T>
absl::Status RunLoss(const LossForm& form, const std::string& name,
                     std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
  const T* weights = inputs.size() > 2 ? inputs[2].as<T>() : nullptr;
  T* log_probabilities = form.softmax && outputs.size() > 1 ? outputs[1].as<T>() : nullptr;
  double total = 0;
  double total_weight = 0;
  for (int64_t s = 0; s < form.samples; ++s) {
    const T* x = inputs[0].as<T>() + form.First(s);
    const double shift = form.softmax && form.classes > 0 ? LogSum(form, x) : 0;
    for (int64_t c = 0; log_probabilities != nullptr && c < form.classes; ++c) {
      log_probabilities[form.First(s) + c * form.inner] =
          static_cast<T>(static_cast<double>(x[c * form.inner]) - shift);
    }
    const int64_t target =
        inputs[1].dtype() == DType::kI32 ? inputs[1].as<int32_t>()[s] : inputs[1].as<int64_t>()[s];
    const bool counts = target != form.ignored;
    if (counts && (target < 0 || target >= form.classes)) {
      return InvalidArgument("{}: target {} is outside [0, {}): {}", name, s, form.classes, target);
    }
    const double weight = !counts              ? 0
                          : weights != nullptr ? static_cast<double>(weights[target])
                                               : 1;
    const double loss =
        counts ? -weight * (static_cast<double>(x[target * form.inner]) - shift) : 0;
    if (form.reduction == Reduction::kNone) outputs[0].as<T>()[s] = static_cast<T>(loss);
    total += loss;
    total_weight += weight;
  }
  if (form.reduction == Reduction::kSum) *outputs[0].as<T>() = static_cast<T>(total);
  if (form.reduction == Reduction::kMean)
    *outputs[0].as<T>() = static_cast<T>(total / total_weight);
  return absl::OkStatus();
}

absl::StatusOr<Kernel> MakeLoss(const KernelContext& context) {
  const Shape& scores = context.inputs[0].shape();
  LossForm form;
  OCTET_ASSIGN_OR_RETURN(form.reduction, ReductionOf(context.node));
  form.classes = scores[1];
  form.inner = scores.elements(2, scores.rank());
  form.samples = scores[0] * form.inner;
  form.softmax = context.node.op == "SoftmaxCrossEntropyLoss";
  if (context.node.attributes.has("ignore_index")) {
    OCTET_ASSIGN_OR_RETURN(form.ignored, context.node.attributes.Int("ignore_index", 0));
  }
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [form, name = Describe(context.node)](std::span<const ConstTensorView> inputs,
                                                     std::span<const TensorView> outputs) {
          return RunLoss<T>(form, name, inputs, outputs);
        };
      });
}

}  // namespace

std::span<const OpDef> LossOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "NegativeLogLikelihoodLoss", 12, INT_MAX, InferLoss, MakeLoss},
      {kOnnxDomain, "SoftmaxCrossEntropyLoss", 12, INT_MAX, InferCrossEntropy, MakeLoss},
  };
  return kOps;
}

}  // namespace octet
