#include "engine/ops/infer_rules.h"

#include "engine/ops/post_ops.h"
#include "engine/tensor/status.h"

namespace octet {

std::string DTypeSet::ToString() const {
  std::string text;
  for (int i = 0; i <= static_cast<int>(DType::kString); ++i) {
    if (!contains(static_cast<DType>(i))) continue;
    if (!text.empty()) text += ", ";
    text += DTypeName(static_cast<DType>(i));
  }
  return text;
}

bool SameRealKind(DType a, DType b) {
  const auto small_real = [](DType d) {
    return d == DType::kF32 || d == DType::kF16 || d == DType::kBF16;
  };
  return a == b || (small_real(a) && small_real(b));
}

absl::Status ExpectInputCount(const InferContext& context, size_t min, size_t max) {
  const size_t count = OwnInputCount(context.node());
  if (count > max) {
    return context.Error(Format("too many inputs: expected at most {}, got {}", max, count));
  }
  for (size_t i = 0; i < min; ++i) {
    if (!context.has_input(i)) return context.Error(Format("input {} is missing", i));
  }
  return absl::OkStatus();
}

absl::Status ExpectInputs(const InferContext& context, size_t min, size_t max) {
  OCTET_RETURN_IF_ERROR(ExpectInputCount(context, min, max));
  return context.node().output(0) != kNone ? absl::OkStatus()
                                           : context.Error("output 0 is missing");
}

absl::Status ExpectScalar(const InferContext& context, size_t i) {
  if (!context.has_input(i) || !context.shape(i) || !context.shape(i)->is_static())
    return absl::OkStatus();
  if (context.shape(i)->elements() == 1) return absl::OkStatus();
  return context.Error(Format("input {} '{}' must be a scalar, got shape {}", i,
                              context.input(i).name, context.shape(i)->ToString()));
}

absl::Status ExpectVector(const InferContext& context, size_t i, int64_t extent) {
  if (!context.has_input(i) || !context.shape(i)) return absl::OkStatus();
  const Shape& shape = *context.shape(i);
  const bool open = extent == kUnknownDim || (shape.rank() == 1 && shape[0] == kUnknownDim);
  if (shape.rank() == 1 && (open || shape[0] == extent)) return absl::OkStatus();
  return context.Error(Format("input {} '{}' must have shape {}, got {}", i, context.input(i).name,
                              Shape{extent}.ToString(), shape.ToString()));
}

absl::Status ExpectDType(const InferContext& context, size_t i, DTypeSet accepted) {
  if (!context.has_input(i) || accepted.contains(context.dtype(i))) return absl::OkStatus();
  return context.Error(Format("input {} '{}' has element type {}, expected one of {}", i,
                              context.input(i).name, DTypeName(context.dtype(i)),
                              accepted.ToString()));
}

absl::Status ExpectSameDType(const InferContext& context, size_t i, size_t j) {
  if (!context.has_input(i) || !context.has_input(j) ||
      SameRealKind(context.dtype(i), context.dtype(j))) {
    return absl::OkStatus();
  }
  return context.Error(Format("inputs {} '{}' and {} '{}' differ in element type: {} and {}", i,
                              context.input(i).name, j, context.input(j).name,
                              DTypeName(context.dtype(i)), DTypeName(context.dtype(j))));
}

absl::Status ExpectRank(const InferContext& context, size_t i, int min, int max) {
  if (!context.has_input(i) || !context.shape(i)) return absl::OkStatus();
  const int rank = context.shape(i)->rank();
  if (min <= rank && rank <= max) return absl::OkStatus();
  const std::string expected =
      min == max ? Format("{}", min) : Format("between {} and {}", min, max);
  return context.Error(Format("input {} '{}' of shape {} has rank {}, expected {}", i,
                              context.input(i).name, context.shape(i)->ToString(), rank, expected));
}

absl::StatusOr<int> AxisAttribute(const InferContext& context, std::string_view name,
                                  int64_t fallback, int rank) {
  OCTET_ASSIGN_OR_RETURN(const int64_t axis, context.attributes().Int(name, fallback));
  const std::optional<int> normal = NormalizeAxis(axis, rank);
  if (normal) return *normal;
  return context.Error(Format("attribute '{}' is outside [-{}, {}): {}", name, rank, rank, axis));
}

absl::Status InferSameAsInput(InferContext& context, DTypeSet accepted, size_t min, size_t max) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, min, max));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, accepted));
  return context.SetOutput(0, context.dtype(0), context.shape(0));
}

absl::Status InferBroadcast(InferContext& context, size_t first, size_t count, DTypeSet accepted,
                            std::optional<DType> result) {
  std::optional<Shape> shape = Shape{};
  for (size_t i = first; i < first + count; ++i) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, accepted));
    OCTET_RETURN_IF_ERROR(ExpectSameDType(context, first, i));
    if (!shape || !context.shape(i)) {
      shape = std::nullopt;
      continue;
    }
    std::optional<Shape> merged = Broadcast(*shape, *context.shape(i));
    if (!merged) {
      return context.Error(Format("input {} '{}' of shape {} does not broadcast with {}", i,
                                  context.input(i).name, context.shape(i)->ToString(),
                                  shape->ToString()));
    }
    shape = std::move(merged);
  }
  return context.SetOutput(0, result.value_or(context.dtype(first)), std::move(shape));
}

}  // namespace octet
