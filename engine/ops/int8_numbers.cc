#include "engine/ops/int8_numbers.h"

#include <algorithm>
#include <cmath>

#include "engine/tensor/quantize.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Takes what an activation allows off the bounds: rounding keeps the order, so bounds may be rounded before it.
absl::Status Narrow(const PostOp& op, float y_scale, Int8Numbers& numbers) {
  const auto step_of = [&](float real) {
    const double step = std::nearbyint(real / y_scale) + numbers.y_zero;
    return static_cast<int32_t>(std::clamp<double>(step, numbers.low, numbers.high));
  };
  switch (op.kind) {
    case PostOp::Kind::kRelu:
      numbers.low = step_of(0);
      return absl::OkStatus();
    case PostOp::Kind::kClip:
      if (!(op.alpha <= op.beta)) return Unimplemented("a clip without values between its bounds");
      numbers.low = step_of(op.alpha);
      numbers.high = step_of(op.beta);
      return absl::OkStatus();
    default:
      return Unimplemented("post-op {}", PostOpName(op.kind));
  }
}

}  // namespace

Int8Numbers SourceNumbersOf(const LowerContext& context) {
  const Value& x = context.input(0);
  Int8Numbers numbers;
  numbers.x_signed = x.dtype == DType::kI8;
  numbers.x_zero = x.quant->zero_points[0];
  return numbers;
}

absl::StatusOr<Int8Numbers> NumbersOf(const LowerContext& context) {
  const Value& y = context.output();
  Int8Numbers numbers = SourceNumbersOf(context);
  numbers.y_signed = y.dtype == DType::kI8;
  numbers.y_zero = y.quant->zero_points[0];
  const IntRange range = RangeOf(y.dtype);
  numbers.low = range.min;
  numbers.high = range.max;
  for (const PostOp& op : context.node.post_ops)
    OCTET_RETURN_IF_ERROR(Narrow(op, y.quant->scales[0], numbers));
  return numbers;
}

}  // namespace octet
