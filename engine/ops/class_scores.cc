#include "engine/ops/class_scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <utility>

#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::array<std::string_view, 5> kPostTransforms = {"NONE", "SOFTMAX", "LOGISTIC",
                                                             "SOFTMAX_ZERO", "PROBIT"};
constexpr float kZeroScore = 1e-7F;  // Up to which SOFTMAX_ZERO takes a score for none.

void SoftmaxRow(std::span<float> scores, bool leaves_zeros) {
  const auto counts = [&](float x) { return !leaves_zeros || std::fabs(x) > kZeroScore; };
  const float largest = *std::ranges::max_element(scores);
  float sum = 0;
  for (float& x : scores) {
    if (counts(x))
      sum += x = std::exp(x - largest);
    else
      x = 0;
  }
  if (sum == 0) return;  // None counts.
  for (float& x : scores) x /= sum;
}

}  // namespace

absl::StatusOr<PostTransform> ReadPostTransform(const Attributes& attributes) {
  OCTET_ASSIGN_OR_RETURN(const std::string name, attributes.String("post_transform", "NONE"));
  const auto at = std::ranges::find(kPostTransforms, std::string_view(name));
  if (at == kPostTransforms.end()) {
    return InvalidArgument(
        "'post_transform' must be NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT, not '{}'", name);
  }
  return static_cast<PostTransform>(at - kPostTransforms.begin());
}

float Logistic(float x) {
  const float y = 1.0F / (1.0F + std::exp(-std::fabs(x)));
  return x < 0 ? 1.0F - y : y;
}

float Probit(float p) {
  constexpr float kA = 0.147F;
  constexpr float kPi = 3.14159F;
  const float x = 2.0F * p - 1.0F;
  const float log = std::log((1.0F - x) * (1.0F + x));
  const float half = 2.0F / (kPi * kA) + 0.5F * log;
  const float inverse = std::sqrt(std::sqrt(half * half - log / kA) - half);
  return 1.41421356F * (x < 0 ? -inverse : inverse);
}

void TransformScores(PostTransform post, std::span<float> scores) {
  if (scores.size() < 2 && post != PostTransform::kProbit) return;
  switch (post) {
    case PostTransform::kKeep:
      return;
    case PostTransform::kSoftmax:
      return SoftmaxRow(scores, false);
    case PostTransform::kSoftmaxZero:
      return SoftmaxRow(scores, true);
    case PostTransform::kLogistic:
      for (float& x : scores) x = Logistic(x);
      return;
    case PostTransform::kProbit:
      for (float& x : scores) x = Probit(x);
      return;
  }
}

absl::StatusOr<Tensor> ReadClassLabels(const Attributes& attributes, std::string_view strings,
                                       std::string_view integers) {
  OCTET_ASSIGN_OR_RETURN(const auto words, attributes.Strings(strings, {}));
  OCTET_ASSIGN_OR_RETURN(const auto numbers, attributes.Ints(integers, {}));
  if (words.empty() == numbers.empty()) {
    return InvalidArgument("expected labels in one of '{}' and '{}', got {} and {}", strings,
                           integers, words.size(), numbers.size());
  }
  if (words.empty())
    return Tensor::From<int64_t>(Shape{std::ssize(numbers)}, std::span<const int64_t>(numbers));
  const std::vector<std::string_view> texts(words.begin(), words.end());
  return Tensor::Strings(Shape{std::ssize(texts)}, texts);
}

ValueId LabelsAt(FunctionBody& body, Tensor labels, ValueId index) {
  return body.Op("Gather", {body.Constant(std::move(labels)), index}, {{"axis", int64_t{0}}});
}

namespace {

absl::Status InferPostTransform(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ReadPostTransform(context.attributes()).status());
  return InferSameAsInput(context, {DType::kF16, DType::kBF16, DType::kF32});
}

absl::StatusOr<Kernel> MakePostTransform(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(const PostTransform post, ReadPostTransform(context.node.attributes));
  return Kernel(
      [post](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
        const Shape& shape = inputs[0].shape();
        const int64_t columns = shape[shape.rank() - 1];
        const int64_t rows = shape.elements(0, shape.rank() - 1);
        ParallelFor(rows, 1024, [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            const float* x = inputs[0].as<float>() + row * columns;
            float* y = outputs[0].as<float>() + row * columns;
            std::copy_n(x, columns, y);
            TransformScores(post, {y, static_cast<size_t>(columns)});
          }
        });
        return absl::OkStatus();
      });
}

}  // namespace

std::span<const OpDef> ClassScoreOps() {
  static constexpr OpDef kOps[] = {
      {.domain = kOctetDomain,
       .name = "PostTransform",
       .infer = InferPostTransform,
       .kernel = MakePostTransform},
  };
  return kOps;
}

}  // namespace octet
