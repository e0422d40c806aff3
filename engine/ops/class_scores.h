// What ai.onnx.ml's classifiers and regressors do to their scores before they answer them, and the classes' labels.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/graph/attributes.h"
#include "engine/ops/function.h"

namespace octet {

/// NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO, PROBIT: in the order of TreeEnsemble-5's numbers.
enum class PostTransform : uint8_t { kKeep, kSoftmax, kLogistic, kSoftmaxZero, kProbit };

/// The attribute 'post_transform', NONE when absent. INVALID_ARGUMENT when it is none of the five names.
absl::StatusOr<PostTransform> ReadPostTransform(const Attributes& attributes);

/// 1 / (1 + e^-x).
float Logistic(float x);

/// The quantile of the normal distribution at p, by Winitzki's approximation of the inverse error function (a = 0.147), whose
/// relative error is below 2e-3: what ONNX Runtime answers. NaN outside [0, 1]. Source: S. Winitzki, "A handy
/// approximation for the error function and its inverse", 2008.
float Probit(float p);

/// Transforms the scores of one row in place:
///   SOFTMAX       e^x / sum of e^x
///   SOFTMAX_ZERO  the same over the scores that are not 0 (|x| > 1e-7); those stay 0
///   LOGISTIC      each by itself
///   PROBIT        each by itself
/// Of a row of one score only PROBIT changes anything, as in ONNX Runtime: the operators have rules of their own for it.
void TransformScores(PostTransform post, std::span<float> scores);

/// The classes' labels, INT64 [K] or BYTES [K]: whichever of the two attributes is there and not empty.
/// INVALID_ARGUMENT unless one is.
absl::StatusOr<Tensor> ReadClassLabels(const Attributes& attributes, std::string_view strings,
                                       std::string_view integers);

/// labels[index], element by element: what classifiers answer, whose kernels find an index. Strings so stay out of them.
ValueId LabelsAt(FunctionBody& body, Tensor labels, ValueId index);

}  // namespace octet
