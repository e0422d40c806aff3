// LRN: normalization by the neighbouring channels.
//
//   y = x / (bias + alpha / size * sum of x^2 over `size` channels around) ^ beta
//
// Source: ONNX LRN; Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 3.3.
#include <algorithm>
#include <cmath>

#include "engine/graph/stored_value.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/op_list.h"
#include "engine/ops/row_math.h"
#include "engine/ops/row_step.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// The window over `channels` channels; what it would reach outside of them is left out.
absl::StatusOr<ChannelWindow> WindowOf(const Node& node, int64_t channels) {
  ChannelWindow window;
  OCTET_ASSIGN_OR_RETURN(const float alpha, node.attributes.Float("alpha", 1e-4F));
  OCTET_ASSIGN_OR_RETURN(window.beta, node.attributes.Float("beta", 0.75F));
  OCTET_ASSIGN_OR_RETURN(window.bias, node.attributes.Float("bias", 1.0F));
  OCTET_ASSIGN_OR_RETURN(const int64_t size, node.attributes.Int("size", 0));
  window.alpha = alpha / static_cast<float>(size);
  // A file may ask for any size: scratch is sized by what the window reaches.
  const int64_t most = std::max<int64_t>(channels - 1, 0);
  window.before = std::min((size - 1) / 2, most);
  window.behind = std::min(size / 2, most);
  return window;
}

bool ChannelsLast(const Node& node) { return node.attributes.IntOr("channels_last", 0) != 0; }

absl::Status InferLrn(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 2, INT_MAX));
  OCTET_ASSIGN_OR_RETURN(const int64_t size, context.attributes().Int("size", 0));
  if (size < 1) return context.Error("attribute 'size' must be at least 1");
  return InferSameAsInput(context, kFloats);
}

absl::StatusOr<Kernel> MakeLrn(const KernelContext& context) {
  const Shape& shape = context.inputs[0].shape();
  const int axis = ChannelsLast(context.node) ? shape.rank() - 1 : 1;
  const int64_t channels = shape[axis];
  OCTET_ASSIGN_OR_RETURN(const ChannelWindow window, WindowOf(context.node, channels));
  const int64_t inner = shape.elements(axis + 1, shape.rank());
  return KernelFor(
      kRealKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const T* x = inputs[0].as<T>();
          T* y = outputs[0].as<T>();
          for (int64_t i = 0; i < outputs[0].elements(); ++i) {
            const int64_t c = i / inner % channels;
            const int64_t from = std::max<int64_t>(0, c - window.before);
            const int64_t to = std::min(channels - 1, c + window.behind);
            double squares = 0;
            for (int64_t k = from; k <= to; ++k) {
              const auto v = static_cast<double>(x[i + (k - c) * inner]);
              squares += v * v;
            }
            const double base = static_cast<double>(window.bias) + window.alpha * squares;
            y[i] = static_cast<T>(static_cast<double>(x[i]) / std::pow(base, window.beta));
          }
          return absl::OkStatus();
        };
      });
}

absl::StatusOr<std::unique_ptr<Step>> LowerLrn(const LowerContext& context) {
  const Value& x = context.input(0);
  if (!ChannelsLast(context.node)) return Unimplemented("channels first");
  if (!HasRealFormat(x) || !HasRealFormat(context.output()))
    return Unimplemented("values are neither float nor int8 with one scale");
  if (!context.node.post_ops.empty()) return Unimplemented("post-ops");
  if (x.shape->elements() == 0) return Unimplemented("empty input");
  const int64_t channels = x.shape->dims().back();
  OCTET_ASSIGN_OR_RETURN(const ChannelWindow window, WindowOf(context.node, channels));
  context.layer.runs = "f32";
  context.layer.impl = "octet:lrn";
  context.layer.isa = context.target.isa;
  const auto row = [window, channels](const StepArgs&, const float* from, float* to, float* spare) {
    LrnRow(from, to, channels, window, spare);
  };
  return std::make_unique<RowStep>(context, x.shape->elements() / channels, channels, row,
                                   2 * channels + window.before + window.behind);
}

}  // namespace

std::span<const OpDef> LocalResponseOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "LRN", 1, INT_MAX, InferLrn, MakeLrn, LowerLrn},
  };
  return kOps;
}

}  // namespace octet
