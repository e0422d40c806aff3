// Col2Im: adds the columns that a convolution would see back to an image.
//   Source: ONNX Col2Im-18.
#include <algorithm>
#include <optional>
#include <vector>

#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/int_operands.h"
#include "engine/ops/op_list.h"
#include "engine/ops/window.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// The window that made the columns: one AxisWindow per axis of the image.
absl::StatusOr<std::vector<AxisWindow>> WindowsOf(const Node& node,
                                                  const std::vector<int64_t>& image,
                                                  const std::vector<int64_t>& block) {
  Node window = node;
  window.attributes.Set("kernel_shape", block);
  OCTET_ASSIGN_OR_RETURN(const WindowAttributes attributes,
                         ReadWindow(window, static_cast<int>(image.size())));
  std::vector<AxisWindow> axes;
  for (size_t i = 0; i < image.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(AxisWindow axis,
                           ResolveAxis(node, attributes, static_cast<int>(i), image[i]));
    axes.push_back(axis);
  }
  return axes;
}

int64_t ProductOf(std::span<const AxisWindow> axes, int64_t AxisWindow::* extent) {
  int64_t product = 1;
  for (const AxisWindow& axis : axes) product *= axis.*extent;
  return product;
}

/// x [N, C * taps, windows], image extents, block extents: y [N, C, image...].
absl::Status InferCol2Im(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 3, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kNumbers));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 3, 3));
  for (const size_t i : {1, 2}) {
    OCTET_RETURN_IF_ERROR(ExpectDType(context, i, {DType::kI64}));
    OCTET_RETURN_IF_ERROR(ExpectRank(context, i, 1, 1));
  }
  const auto image = context.ConstantInts(1);
  const auto block = context.ConstantInts(2);
  if (!image || !block) return context.SetOutput(0, context.dtype(0), std::nullopt);
  if (image->empty() || image->size() != block->size() || !CheckedElements(*image))
    return context.Error("image and block differ in rank, or are impossible");
  OCTET_ASSIGN_OR_RETURN(const auto axes, WindowsOf(context.node(), *image, *block));
  Shape out{kUnknownDim, kUnknownDim};
  for (const int64_t extent : *image) out.push_back(extent);
  if (!context.shape(0)) return context.SetOutput(0, context.dtype(0), std::move(out));
  const Shape& x = *context.shape(0);
  const int64_t taps = ProductOf(axes, &AxisWindow::kernel);
  const int64_t windows = ProductOf(axes, &AxisWindow::out);
  const bool divides = x[1] == kUnknownDim || x[1] % taps == 0;
  if (!divides || (x[2] != kUnknownDim && x[2] != windows)) {
    return context.Error(
        Format("columns {} do not fit {} windows of {} taps", x.ToString(), windows, taps));
  }
  out[0] = x[0];
  if (x[1] != kUnknownDim) out[1] = x[1] / taps;
  return context.SetOutput(0, context.dtype(0), std::move(out));
}

/// The position in the image of tap k of window w; nullopt in the padding.
std::optional<int64_t> PositionOf(std::span<const AxisWindow> axes, int64_t w, int64_t k) {
  int64_t position = 0;
  int64_t step = 1;
  for (size_t i = axes.size(); i-- > 0;) {
    const int64_t at = axes[i].Position(w % axes[i].out, k % axes[i].kernel);
    if (at < 0 || at >= axes[i].in) return std::nullopt;
    position += at * step;
    step *= axes[i].in;
    w /= axes[i].out;
    k /= axes[i].kernel;
  }
  return position;
}

absl::StatusOr<Kernel> MakeCol2Im(const KernelContext& context) {
  if (context.inputs[1].data == nullptr || context.inputs[2].data == nullptr)
    return Unimplemented("{}: its shape is known only when it runs", Describe(context.node));
  OCTET_ASSIGN_OR_RETURN(const auto axes, WindowsOf(context.node, ToInts(context.inputs[1]),
                                                    ToInts(context.inputs[2])));
  const int64_t planes = context.outputs[0].shape[0] * context.outputs[0].shape[1];
  return KernelFor(
      kNumberKernels, context.inputs[0].dtype(), context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const int64_t taps = ProductOf(axes, &AxisWindow::kernel);
          const int64_t windows = ProductOf(axes, &AxisWindow::out);
          const int64_t pixels = ProductOf(axes, &AxisWindow::in);
          std::ranges::fill(outputs[0].span<T>(), T{0});
          for (int64_t i = 0; i < planes * taps * windows; ++i) {
            const auto at = PositionOf(axes, i % windows, i / windows % taps);
            if (!at) continue;
            T& pixel = outputs[0].as<T>()[i / windows / taps * pixels + *at];
            pixel = static_cast<T>(pixel + inputs[0].as<T>()[i]);
          }
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> ColumnImageOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "Col2Im", 18, INT_MAX, InferCol2Im, MakeCol2Im},
  };
  return kOps;
}

}  // namespace octet
