// ai.onnx.ml's operators on numbers that are a few others: ArrayFeatureExtractor, Binarizer, LinearRegressor, Normalizer,
// Scaler; and ONNX's LpNormalization, which is a Normalizer along any axis. Source: ONNX, Operators-ml.md, Operators.md.
#include <utility>

#include "engine/ops/function.h"
#include "engine/ops/onnx_dtype.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

constexpr std::string_view kMlDomain = "ai.onnx.ml";
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

// y = (x - offset) * scale.
absl::Status ExpandScaler(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const ValueId offset, FloatsAttribute(body, "offset"));
  OCTET_ASSIGN_OR_RETURN(const ValueId scale, FloatsAttribute(body, "scale"));
  ValueId y = AsFloat(body, body.input(0));
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

// y = x coefficients^T + intercepts, [N, targets].
absl::Status ExpandLinearRegressor(FunctionBody& body) {
  OCTET_RETURN_IF_ERROR(body.ExpectInputs(1, 1));
  OCTET_ASSIGN_OR_RETURN(const int64_t targets, body.attributes().Int("targets", 1));
  OCTET_ASSIGN_OR_RETURN(const auto coefficients, body.attributes().Floats("coefficients", {}));
  OCTET_ASSIGN_OR_RETURN(const ValueId intercepts, FloatsAttribute(body, "intercepts"));
  OCTET_ASSIGN_OR_RETURN(const std::string post,
                         body.attributes().String("post_transform", "NONE"));
  if (post != "NONE") return Unimplemented("unsupported attribute 'post_transform' = '{}'", post);
  const auto count = std::ssize(coefficients);
  if (targets < 1 || count == 0 || count % targets != 0)
    return InvalidArgument("{} 'coefficients' are not for {} 'targets'", count, targets);
  ValueId x = AsFloat(body, body.input(0));
  if (body.rank(x) == 1) x = body.Op("Unsqueeze", {x, body.Ints({0})});
  const ValueId weights = body.Floats(Shape{targets, count / targets}, coefficients);
  body.Output(0, body.Op("Gemm", {x, weights, intercepts}, {{"transB", int64_t{1}}}));
  return absl::OkStatus();
}

constexpr OpDef kMlFunctionOps[] = {
    Function(kMlDomain, "ArrayFeatureExtractor", ExpandArrayFeatureExtractor),
    Function(kMlDomain, "Binarizer", ExpandBinarizer),
    Function(kMlDomain, "LinearRegressor", ExpandLinearRegressor),
    Function(kMlDomain, "Normalizer", ExpandNormalizer),
    Function(kMlDomain, "Scaler", ExpandScaler),
    Function(kOnnxDomain, "LpNormalization", ExpandLpNormalization),
};

}  // namespace

std::span<const OpDef> MlFunctionOps() { return kMlFunctionOps; }

}  // namespace octet
