#include "engine/ops/depthwise_lowering.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/ops/real_bounds.h"
#include "engine/ops/reference_step.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Taps that a thread gets at least.
constexpr int64_t kDepthwiseGrain = int64_t{1} << 18;

template <typename Kernel>
class DepthwiseStep final : public Step {
 public:
  /// `bytes` of an element of the input and of the result.
  DepthwiseStep(Kernel kernel, const DepthwiseShape& shape, int64_t images, int64_t bytes)
      : kernel_(std::move(kernel)),
        rows_(images * shape.out_height),
        out_height_(shape.out_height),
        x_image_(shape.height * shape.width * shape.channels * bytes),
        y_image_(shape.out_height * shape.out_width * shape.channels * bytes),
        grain_(1 + kDepthwiseGrain /
                       (shape.out_width * shape.channels * shape.kernel * shape.kernel)) {}

  absl::Status Run(const StepArgs& args) const override {
    const auto* x = static_cast<const std::byte*>(args.inputs[0]);
    auto* y = static_cast<std::byte*>(args.outputs[0]);
    ParallelFor(rows_, grain_, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t image = begin / out_height_;
        const int64_t first = begin - image * out_height_;
        const int64_t last = std::min(out_height_, end - image * out_height_);
        kernel_.Run(x + image * x_image_, y + image * y_image_, first, last);
        begin += last - first;
      }
    });
    return absl::OkStatus();
  }

  bool reads_input(int i) const override { return i == 0; }
  bool is_primitive() const override { return true; }

 private:
  Kernel kernel_;
  int64_t rows_;  ///< Of all images.
  int64_t out_height_;
  int64_t x_image_;  ///< Bytes of one.
  int64_t y_image_;
  int64_t grain_;
};

template <typename Kernel>
std::unique_ptr<Step> MakeStep(const LowerContext& context, Kernel kernel,
                               const DepthwiseShape& shape, std::string_view runs) {
  LayerRecord& layer = context.layer;
  layer.runs = runs;
  layer.impl = Format("octet:depthwise:{}", Kernel::TargetName());
  layer.isa = context.target.isa;
  layer.macs = MultiplyAdds(context.graph, context.node);
  return std::make_unique<DepthwiseStep<Kernel>>(
      std::move(kernel), shape, (*context.output().shape)[0],
      static_cast<int64_t>(SizeOf(context.output().dtype)));
}

/// One curve, or any number of bounds.
absl::StatusOr<DepthwiseActivation> ActivationOf(std::span<const PostOp> post_ops) {
  using Curve = DepthwiseActivation::Curve;
  if (post_ops.size() == 1 && post_ops[0].kind == PostOp::Kind::kSwish)
    return DepthwiseActivation{.curve = Curve::kSwish, .alpha = post_ops[0].alpha};
  if (post_ops.size() == 1 && post_ops[0].kind == PostOp::Kind::kHardSwish)
    return DepthwiseActivation{.curve = Curve::kHardSwish};
  OCTET_ASSIGN_OR_RETURN(const RealBounds bounds, RealBoundsOf(post_ops));
  return DepthwiseActivation{.low = bounds.low, .high = bounds.high};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerDepthwiseInt8(const LowerContext& context,
                                                         const WholeSums& whole,
                                                         const DepthwiseShape& shape) {
  if (!DepthwiseInt8::Covers(shape))
    return Unimplemented("no depthwise kernel for this window or so few channels");
  OCTET_ASSIGN_OR_RETURN(const Int8Numbers numbers, NumbersOf(context));
  const std::vector<float> no_bias(static_cast<size_t>(shape.channels), 0.0F);
  const std::span<const float> bias =
      context.has_input(2) ? whole.bias().span<float>() : std::span<const float>(no_bias);
  DepthwiseInt8 kernel(shape, numbers, context.input(1).constant.span<int8_t>(), bias,
                       whole.factors());
  return MakeStep(context, std::move(kernel), shape, "int8");
}

absl::StatusOr<std::unique_ptr<Step>> LowerDepthwiseBf16(const LowerContext& context,
                                                         const DepthwiseShape& shape) {
  const Value& w = context.input(1);
  if (context.input(0).dtype != DType::kBF16 || context.output().dtype != DType::kBF16 ||
      w.dtype != DType::kBF16 || !w.is_constant() ||
      (context.has_input(2) && !context.input(2).is_constant())) {
    return Unimplemented("no BF16 by constants to BF16");
  }
  if (!DepthwiseBf16::Covers(shape))
    return Unimplemented("no depthwise kernel for this window or so few channels");
  OCTET_ASSIGN_OR_RETURN(const DepthwiseActivation activation, ActivationOf(context.node.post_ops));
  const std::vector<float> no_bias(static_cast<size_t>(shape.channels), 0.0F);
  const std::span<const float> bias = context.has_input(2) ? context.input(2).constant.span<float>()
                                                           : std::span<const float>(no_bias);
  DepthwiseBf16 kernel(shape, activation, w.constant.span<BFloat16>(), bias);
  return MakeStep(context, std::move(kernel), shape, "bf16");
}

}  // namespace octet
