#include "engine/ops/depthwise_lowering.h"

#include <algorithm>
#include <vector>

#include "engine/ops/reference_step.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Taps that a thread gets at least.
constexpr int64_t kDepthwiseGrain = int64_t{1} << 18;

class DepthwiseStep final : public Step {
 public:
  DepthwiseStep(DepthwiseInt8 kernel, const DepthwiseShape& shape, int64_t images)
      : kernel_(std::move(kernel)),
        rows_(images * shape.out_height),
        out_height_(shape.out_height),
        x_image_(shape.height * shape.width * shape.channels),
        y_image_(shape.out_height * shape.out_width * shape.channels),
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
  DepthwiseInt8 kernel_;
  int64_t rows_;  ///< Of all images.
  int64_t out_height_;
  int64_t x_image_;  ///< Bytes of one.
  int64_t y_image_;
  int64_t grain_;
};

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
  LayerRecord& layer = context.layer;
  layer.runs = "int8";
  layer.impl = Format("octet:depthwise:{}", DepthwiseInt8::TargetName());
  layer.isa = context.target.isa;
  layer.macs = MultiplyAdds(context.graph, context.node);
  return std::make_unique<DepthwiseStep>(std::move(kernel), shape, (*context.output().shape)[0]);
}

}  // namespace octet
