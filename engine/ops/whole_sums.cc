#include "engine/ops/whole_sums.h"

#include <algorithm>
#include <cmath>

#include "engine/tensor/status.h"

namespace octet {

std::optional<WholeSums> WholeSums::Of(const LowerContext& context, int64_t channels) {
  const auto& y = context.output().quant;
  if (!y) return std::nullopt;
  WholeSums sums(context, y->scales[0]);
  for (const PostOp& op : context.node.post_ops) {
    if (AddsStored(context, op) && sums.step_ == y->scales[0]) {
      sums.step_ = context.input(static_cast<size_t>(op.operand)).quant->scales[0];
    } else if (!ScalesWithItsInput(op)) {
      return std::nullopt;
    }
  }
  if (context.has_input(2) && !sums.CountBias(channels)) return std::nullopt;
  for (int64_t c = 0; c < channels; ++c) sums.factors_.push_back(sums.Unit(c) / sums.step_);
  return sums;
}

float WholeSums::Unit(int64_t channel) const {
  const QuantParams& b = *context_->input(1).quant;
  return context_->input(0).quant->scales[0] *
         b.scales[b.per_tensor() ? 0 : static_cast<size_t>(channel)];
}

// Integers again where the model's file has integers, or reals on their grid.
bool WholeSums::CountBias(int64_t channels) {
  constexpr double kLargest = 1e9;
  // Below it the float between the two integers lost less than a half.
  constexpr double kExact = 1 << 22;
  bias_ = Tensor(DType::kF32, Shape{channels});
  const auto reals = context_->input(2).constant.span<float>();
  for (size_t c = 0; c < reals.size(); ++c) {
    double count = static_cast<double>(reals[c]) / Unit(static_cast<int64_t>(c));
    if (!(std::abs(count) < kLargest)) return false;
    const double nearest = std::nearbyint(count);
    const bool integer = std::abs(count - nearest) <= 1e-3 + std::abs(count) * 0x1p-23;
    if (integer && std::abs(count) < kExact) count = nearest;
    bias_.mutable_span<float>()[c] = static_cast<float>(count);
  }
  return true;
}

absl::Status WholeSums::AddResult(PrimitiveAttributes& attributes,
                                  const dnnl::memory::desc& channels,
                                  const OperandDescFn& operand_desc) const {
  const QuantParams& y = *context_->output().quant;
  attributes.AddFactors(channels, factors_);
  OCTET_RETURN_IF_ERROR(
      attributes.AddPostOps(operand_desc, {.sums = step_, .result = y.scales[0]}));
  // ONNX adds the zero point to what is rounded already.
  if (y.zero_points[0] != 0) attributes.AddRound();
  attributes.AddZeroPoint(DNNL_ARG_DST, y.zero_points);
  return absl::OkStatus();
}

}  // namespace octet
