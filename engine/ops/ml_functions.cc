// ai.onnx.ml's operators that are a few others: ArrayFeatureExtractor, Binarizer, FeatureVectorizer, Imputer, LinearClassifier,
// LinearRegressor, Normalizer, Scaler; and ONNX's LpNormalization, which is a Normalizer along any axis.
// Source: ONNX, Operators-ml.md, Operators.md.
#include <cmath>
#include <utility>

#include "engine/ops/class_scores.h"
#include "engine/ops/function.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr int64_t kOnnxDouble = 11;  // TensorProto.DOUBLE

ValueId AsFloat(FunctionBody& body, ValueId x) {
  return body.value(x).dtype == DType::kF32 ? x : body.Op("Cast", {x}, {{"to", kOnnxFloat}});
}

// x[.., y]: [n] becomes [1, count].
absl::Status ExpandArrayFeatureExtractor(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(2, 2));
  const int rank = body.rank(body.input(0));
  if (rank < 0) return body.Later(body.value(body.input(0)).dtype);
  const ValueId which = body.Op("Reshape", {body.input(1), body.Ints({-1})});
  ValueId y = body.Op("Gather", {body.input(0), which}, {{"axis", int64_t{-1}}});
  if (rank == 1) y = body.Op("Unsqueeze", {y, body.Ints({0})});
  body.Output(0, y);
  return absl::OkStatus();
}

// 1 above the threshold, else 0.
absl::Status ExpandBinarizer(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const float threshold, body.attributes().Float("threshold", 0));
  // A double holds the input's element and the threshold exactly.
  const ValueId x = body.Op("Cast", {body.input(0)}, {{"to", kOnnxDouble}});
  const ValueId above =
      body.Op("Greater", {x, body.Constant(Tensor::Scalar<double>(double{threshold}))});
  body.Output(0, body.Op("CastLike", {above, body.input(0)}));
  return absl::OkStatus();
}

// One float for each feature, or for all; absent when the attribute is.
absl::StatusOr<ValueId> FloatsAttribute(FunctionBody& body, std::string_view name) {
  OCTET_ASSIGN_OR_RETURN(const auto floats, body.attributes().Floats(name, {}));
  if (floats.empty()) return kNone;
  return body.Floats(Shape{std::ssize(floats)}, floats);
}

// x with as many features as the attribute has elements, unless there is one for all; kNone while the rank is not known. Arithmetic would
// repeat a single feature for each element: of an open extent a Reshape says how many there are, and refuses others in a plan.
// Errors: INVALID_ARGUMENT for another number of features.
absl::StatusOr<ValueId> OnePerElement(FunctionBody& body, ValueId x, std::string_view name,
                                      int64_t count) {
  const int rank = body.rank(x);
  const int64_t features = rank == 0 ? 1 : body.extent(x, -1);
  if (count == 1 || features == count) return x;
  if (features != kUnknownDim)
    return InvalidArgument("'{}' has {} elements for {} features", name, count, features);
  if (rank < 0) return kNone;
  std::vector<int64_t> extents(static_cast<size_t>(rank), 0);
  extents.back() = count;
  return body.Op("Reshape", {x, body.Ints(extents)});
}

// y = (x - offset) * scale.
absl::Status ExpandScaler(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const ValueId offset, FloatsAttribute(body, "offset"));
  OCTET_ASSIGN_OR_RETURN(const ValueId scale, FloatsAttribute(body, "scale"));
  ValueId y = AsFloat(body, body.input(0));
  for (const auto& [name, constant] : {std::pair("offset", offset), {"scale", scale}}) {
    if (constant == kNone) continue;
    OCTET_ASSIGN_OR_RETURN(y, OnePerElement(body, y, name, body.extent(constant, 0)));
    if (y == kNone) return body.Later(DType::kF32);
  }
  if (offset != kNone) y = body.Op("Sub", {y, offset});
  if (scale != kNone) y = body.Op("Mul", {y, scale});
  body.Output(0, y);
  return absl::OkStatus();
}

// x / norm, which the reduction takes along `axis`; where it is 0, x is, and stays.
ValueId Normalized(FunctionBody& body, ValueId x, std::string_view reduction, int64_t axis) {
  const auto constant = [&](float value) {
    const ValueId scalar = body.Scalar(value);
    return body.value(x).dtype == DType::kF32 ? scalar : body.Op("CastLike", {scalar, x});
  };
  const ValueId size = body.Op(reduction, {x}, {{"axes", std::vector<int64_t>{axis}}});
  const ValueId none = body.Op("Equal", {size, constant(0)});
  return body.Op("Div", {x, body.Op("Where", {none, constant(1), size})});
}

// y = x / norm of its row; rows of zeros stay.
absl::Status ExpandNormalizer(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const std::string norm, body.attributes().String("norm", "MAX"));
  if (norm != "MAX" && norm != "L1" && norm != "L2")
    return InvalidArgument("'norm' must be MAX, L1 or L2, not '{}'", norm);
  const std::string_view reduction = norm == "MAX"  ? "ReduceMax"
                                     : norm == "L1" ? "ReduceL1"
                                                    : "ReduceL2";
  body.Output(0, Normalized(body, AsFloat(body, body.input(0)), reduction, -1));
  return absl::OkStatus();
}

// y = x / (sum of |x|^p along `axis`)^(1/p).
absl::Status ExpandLpNormalization(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t axis, body.attributes().Int("axis", -1));
  OCTET_ASSIGN_OR_RETURN(const int64_t p, body.attributes().Int("p", 2));
  if (p != 1 && p != 2) return InvalidArgument("'p' must be 1 or 2, not {}", p);
  body.Output(0, Normalized(body, body.input(0), p == 1 ? "ReduceL1" : "ReduceL2", axis));
  return absl::OkStatus();
}

// One per feature, or for all, in place of what is missing; x becomes what has so many, or kNone (OnePerElement).
template <typename T>
absl::StatusOr<ValueId> ImputedValues(FunctionBody& body, std::string_view name,
                                      std::vector<T> values, ValueId& x) {
  const auto count = std::ssize(values);
  if (count == 0) return InvalidArgument("expected '{}' for elements of this type", name);
  OCTET_ASSIGN_OR_RETURN(x, OnePerElement(body, x, name, count));
  return body.Constant(Tensor::From<T>(Shape{count}, std::span<const T>(values)));
}

// y = x, but where it is the value that is replaced (or NaN, where that is).
absl::Status ExpandImputer(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  ValueId x = body.input(0);
  const DType dtype = body.value(x).dtype;
  ValueId imputed = kNone;
  ValueId missing = kNone;
  if (IsFloat(dtype)) {
    OCTET_ASSIGN_OR_RETURN(const float replaced,
                           body.attributes().Float("replaced_value_float", 0));
    OCTET_ASSIGN_OR_RETURN(const auto values, body.attributes().Floats("imputed_value_floats", {}));
    OCTET_ASSIGN_OR_RETURN(imputed, ImputedValues<float>(body, "imputed_value_floats", values, x));
    if (x == kNone) return body.Later(dtype);
    const ValueId same = body.Op("CastLike", {body.Scalar(replaced), x});
    missing = std::isnan(replaced) ? body.Op("IsNaN", {x}) : body.Op("Equal", {x, same});
  } else {
    OCTET_ASSIGN_OR_RETURN(const int64_t replaced,
                           body.attributes().Int("replaced_value_int64", 0));
    OCTET_ASSIGN_OR_RETURN(const auto values, body.attributes().Ints("imputed_value_int64s", {}));
    OCTET_ASSIGN_OR_RETURN(imputed,
                           ImputedValues<int64_t>(body, "imputed_value_int64s", values, x));
    if (x == kNone) return body.Later(dtype);
    const ValueId same = body.Op("CastLike", {body.Constant(Tensor::Scalar<int64_t>(replaced)), x});
    missing = body.Op("Equal", {x, same});
  }
  body.Output(0, body.Op("Where", {missing, body.Op("CastLike", {imputed, x}), x}));
  return absl::OkStatus();
}

// The inputs' rows side by side, as floats: of input i as many elements as inputdimensions[i] says, zeros behind a shorter row.
absl::Status ExpandFeatureVectorizer(FunctionBody& body) {
  OCTET_ASSIGN_OR_RETURN(const auto sizes, body.attributes().Ints("inputdimensions", {}));
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, std::max<size_t>(sizes.size(), 1)));
  const size_t count = body.node().inputs.size();
  if (sizes.size() != count)
    return InvalidArgument("'inputdimensions' has {} elements for {} inputs", sizes.size(), count);
  std::vector<ValueId> parts;
  for (size_t i = 0; i < count; ++i) {
    const int rank = body.rank(body.input(i));
    if (rank < 0) return body.Later(DType::kF32);
    if (sizes[i] < 0) return InvalidArgument("'inputdimensions' holds {}", sizes[i]);
    ValueId x = AsFloat(body, body.input(i));
    if (rank != 2) x = body.Op("Flatten", {x}, {{"axis", int64_t{rank < 2 ? 0 : 1}}});
    const int64_t columns = body.extent(x, 1);
    if (columns == kUnknownDim) return body.Later(DType::kF32);
    if (columns > sizes[i])
      x = body.Op("Slice", {x, body.Ints({0}), body.Ints({sizes[i]}), body.Ints({1})});
    if (columns < sizes[i]) x = body.Op("Pad", {x, body.Ints({0, 0, 0, sizes[i] - columns})});
    parts.push_back(x);
  }
  body.Output(0, body.Op("Concat", parts, {{"axis", int64_t{1}}}));
  return absl::OkStatus();
}

// x coefficients^T + intercepts, [N, targets], x [N, features] or one row.
absl::StatusOr<ValueId> LinearScores(FunctionBody& body, int64_t targets, ValueId intercepts,
                                     std::string_view what) {
  OCTET_ASSIGN_OR_RETURN(const auto coefficients, body.attributes().Floats("coefficients", {}));
  const auto count = std::ssize(coefficients);
  if (targets < 1 || count == 0 || count % targets != 0)
    return InvalidArgument("{} 'coefficients' are not for {} {}", count, targets, what);
  ValueId x = AsFloat(body, body.input(0));
  if (body.rank(x) == 1) x = body.Op("Unsqueeze", {x, body.Ints({0})});
  const ValueId weights = body.Floats(Shape{targets, count / targets}, coefficients);
  return body.Op("Gemm", {x, weights, intercepts}, {{"transB", int64_t{1}}});
}

// What the attribute 'post_transform' makes of rows of scores.
absl::StatusOr<ValueId> Transformed(FunctionBody& body, ValueId scores) {
  OCTET_ASSIGN_OR_RETURN(const PostTransform post, ReadPostTransform(body.attributes()));
  if (post == PostTransform::kKeep) return scores;
  return body.Op("octet:PostTransform", {scores}, body.Given({"post_transform"}));
}

absl::Status ExpandLinearRegressor(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t targets, body.attributes().Int("targets", 1));
  OCTET_ASSIGN_OR_RETURN(const ValueId intercepts, FloatsAttribute(body, "intercepts"));
  OCTET_ASSIGN_OR_RETURN(const ValueId scores,
                         LinearScores(body, targets, intercepts, "'targets'"));
  OCTET_ASSIGN_OR_RETURN(const ValueId y, Transformed(body, scores));
  body.Output(0, y);
  return absl::OkStatus();
}

// A class for each intercept, the largest score wins; or one intercept for two classes, of which the second one wins above 0 and
// the scores are 1 - s and s. Source: ONNX LinearClassifier-1; what it leaves open of two classes is as ONNX Runtime has it.
absl::Status ExpandLinearClassifier(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(
      Tensor labels, ReadClassLabels(body.attributes(), "classlabels_strings", "classlabels_ints"));
  OCTET_ASSIGN_OR_RETURN(const auto floats, body.attributes().Floats("intercepts", {}));
  OCTET_ASSIGN_OR_RETURN(const ValueId intercepts, FloatsAttribute(body, "intercepts"));
  const int64_t classes = labels.elements();
  const int64_t rows = floats.empty() ? classes : std::ssize(floats);
  if (rows != classes && (rows != 1 || classes != 2))
    return InvalidArgument("{} 'intercepts' are not for {} classes", rows, classes);
  OCTET_ASSIGN_OR_RETURN(const ValueId scores, LinearScores(body, rows, intercepts, "classes"));
  OCTET_ASSIGN_OR_RETURN(ValueId y, Transformed(body, scores));
  ValueId index = kNone;
  if (rows == 1) {
    const ValueId above = body.Op("Greater", {scores, body.Scalar(0)});
    const ValueId whole = body.Op("Cast", {above}, {{"to", kOnnxInt64}});
    index = body.Op("Reshape", {whole, body.Ints({-1})});
  } else {
    index = body.Op("ArgMax", {scores}, {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}});
  }
  if (rows == 1 && classes == 2) {
    const ValueId other = body.Op("Sub", {body.Scalar(1), y});
    y = body.Op("Concat", {other, y}, {{"axis", int64_t{1}}});
  }
  if (classes == 1) {
    if (labels.dtype() == DType::kString)
      return Unimplemented("one label in 'classlabels_strings', expected at least 2");
    labels = Tensor::From<int64_t>(Shape{2}, {0, 1});
  }
  body.Output(0, LabelsAt(body, std::move(labels), index));
  body.Output(1, y);
  return absl::OkStatus();
}

constexpr OpTraits kTexts = {.strings = true};

constexpr OpDef kMlFunctionOps[] = {
    Function(kMlDomain, "ArrayFeatureExtractor", ExpandArrayFeatureExtractor, kTexts),
    Function(kMlDomain, "Binarizer", ExpandBinarizer),
    Function(kMlDomain, "FeatureVectorizer", ExpandFeatureVectorizer),
    Function(kMlDomain, "Imputer", ExpandImputer),
    Function(kMlDomain, "LinearClassifier", ExpandLinearClassifier, kTexts),
    Function(kMlDomain, "LinearRegressor", ExpandLinearRegressor),
    Function(kMlDomain, "Normalizer", ExpandNormalizer),
    Function(kMlDomain, "Scaler", ExpandScaler),
    Function(kOnnxDomain, "LpNormalization", ExpandLpNormalization),
};

}  // namespace

std::span<const OpDef> MlFunctionOps() { return kMlFunctionOps; }

}  // namespace octet
