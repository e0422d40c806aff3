#include "engine/ops/int8_numbers.h"

#include <algorithm>
#include <cmath>

#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Moves the bounds to where an activation moves them: rounding keeps the order, so bounds may be rounded before it. Of bounds that lie
/// beside those of an earlier activation the later ones win.
absl::Status Narrow(const PostOp& op, float y_scale, const IntRange& range, Int8Numbers& numbers) {
  const auto step_of = [&](float real) {
    const double step = std::nearbyint(real / y_scale) + numbers.y_zero;
    return static_cast<int32_t>(std::clamp<double>(step, range.min, range.max));
  };
  const auto bound = [&](int32_t low, int32_t high) {
    numbers.low = std::clamp(numbers.low, low, high);
    numbers.high = std::clamp(numbers.high, low, high);
    return absl::OkStatus();
  };
  switch (op.kind) {
    case PostOp::Kind::kRelu:
      return bound(step_of(0), range.max);
    case PostOp::Kind::kClip:
      if (!(op.alpha <= op.beta)) return Unimplemented("a clip without values between its bounds");
      return bound(step_of(op.alpha), step_of(op.beta));
    default:
      return Unimplemented("post-op {}", PostOpName(op.kind));
  }
}

}  // namespace

absl::StatusOr<Int8Numbers> ResultNumbersOf(const Value& y, std::span<const PostOp> activations) {
  const IntRange range = RangeOf(y.dtype);
  Int8Numbers numbers;
  numbers.y_signed = y.dtype == DType::kI8;
  numbers.y_zero = y.quant->zero_points[0];
  numbers.low = range.min;
  numbers.high = range.max;
  for (const PostOp& op : activations)
    OCTET_RETURN_IF_ERROR(Narrow(op, y.quant->scales[0], range, numbers));
  return numbers;
}

Int8Numbers SourceNumbersOf(const LowerContext& context) {
  const Value& x = context.input(0);
  Int8Numbers numbers;
  numbers.x_signed = x.dtype == DType::kI8;
  numbers.x_zero = x.quant->zero_points[0];
  return numbers;
}

absl::StatusOr<Int8Numbers> NumbersOf(const LowerContext& context) {
  OCTET_ASSIGN_OR_RETURN(Int8Numbers numbers,
                         ResultNumbersOf(context.output(), context.node.post_ops));
  const Int8Numbers source = SourceNumbersOf(context);
  numbers.x_signed = source.x_signed;
  numbers.x_zero = source.x_zero;
  return numbers;
}

}  // namespace octet
