// ConvTranspose: the gradient of Conv with respect to its input, as an operator. octet:ConvTranspose is the same with
// weights as Conv has them, [OC, IC / group, k...], and `channels_last`.
#include "engine/ops/conv_transpose.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/ops/conv_loops.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/infer_rules.h"
#include "engine/ops/lowerings.h"
#include "engine/ops/op_list.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// One axis: every input i adds to the outputs i * stride - pad_begin + k * dilation for k in [0, kernel).
/// Resolved from the attributes as ONNX ConvTranspose-22 says:
///   out = stride * (in - 1) + output_padding + (kernel - 1) * dilation + 1 - pads
/// or, where output_shape or SAME_* fixes out, the pads that lead to it.
struct TransposedWindow {
  WindowAttributes window;
  std::vector<int64_t> output_padding;
  std::vector<int64_t> output_shape;  ///< Empty when not given.

  struct Axis {
    int64_t out;
    int64_t pad_begin;
  };
  Axis Resolve(size_t i, int64_t in) const {
    using AutoPad = WindowAttributes::AutoPad;
    const int64_t full = window.strides[i] * (in - 1) + output_padding[i] +
                         (window.kernel[i] - 1) * window.dilations[i] + 1;
    const bool same =
        window.auto_pad == AutoPad::kSameUpper || window.auto_pad == AutoPad::kSameLower;
    if (output_shape.empty() && !same) {
      if (window.auto_pad == AutoPad::kValid) return {full, 0};
      return {full - window.pads[i] - window.pads[i + window.kernel.size()], window.pads[i]};
    }
    const int64_t out = output_shape.empty() ? in * window.strides[i] : output_shape[i];
    const int64_t total = std::max<int64_t>(full - out, 0);
    const int64_t half = total / 2;
    return {out, window.auto_pad == AutoPad::kSameUpper ? half : total - half};
  }
};

absl::StatusOr<TransposedWindow> ReadTransposedWindow(const Node& node,
                                                      std::span<const int64_t> kernel) {
  const size_t count = kernel.size();
  TransposedWindow result;
  OCTET_ASSIGN_OR_RETURN(result.window, ReadWindow(node, static_cast<int>(count), kernel));
  OCTET_ASSIGN_OR_RETURN(result.output_padding,
                         node.attributes.Ints("output_padding", std::vector<int64_t>(count, 0)));
  OCTET_ASSIGN_OR_RETURN(result.output_shape, node.attributes.Ints("output_shape", {}));
  // Some models state the whole shape, batch and channels included.
  if (result.output_shape.size() == count + 2) {
    result.output_shape.erase(result.output_shape.begin(), result.output_shape.begin() + 2);
  }
  constexpr int64_t kMost = int64_t{1} << 31;
  for (const int64_t padding : result.output_padding) {
    if (padding < 0 || padding > kMost)
      return InvalidArgument("{}: impossible 'output_padding': {}", Describe(node), padding);
  }
  for (const int64_t extent : result.output_shape) {
    if (extent < 1 || extent > kMost)
      return InvalidArgument("{}: impossible 'output_shape': {}", Describe(node), extent);
  }
  const bool shape_fits = result.output_shape.empty() || result.output_shape.size() == count;
  if (result.output_padding.size() != count || !shape_fits) {
    return InvalidArgument("{}: 'output_padding' or 'output_shape' has not {} values",
                           Describe(node), count);
  }
  return result;
}

bool IsCanonical(const Node& node) { return node.domain == kOctetDomain; }

bool IsChannelsLast(const Node& node) { return node.attributes.IntOr("channels_last", 0) != 0; }

/// Channels of input and output that weights stand for; 0 where they do not divide into the groups.
struct Channels {
  int64_t in;
  int64_t out;
};
Channels ChannelsOf(const Node& node, const Shape& w, int64_t group) {
  if (group < 1 || w[0] % group != 0) return {0, 0};
  return IsCanonical(node) ? Channels{w[1] * group, w[0]} : Channels{w[0], w[1] * group};
}

absl::Status InferConvTranspose(InferContext& context) {
  OCTET_RETURN_IF_ERROR(ExpectInputs(context, 2, 3));
  OCTET_RETURN_IF_ERROR(ExpectDType(context, 0, kFloats));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 1));
  OCTET_RETURN_IF_ERROR(ExpectSameDType(context, 0, 2));
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 0, 3, 5));
  if (!context.shape(0) || !context.shape(1) || !context.shape(1)->is_static()) {
    std::optional<Shape> unknown;
    if (context.shape(0)) {
      unknown = Shape();
      for (int i = 0; i < context.shape(0)->rank(); ++i)
        unknown->push_back(i == 0 ? (*context.shape(0))[0] : kUnknownDim);
    }
    return context.SetOutput(0, context.dtype(0), std::move(unknown));
  }
  const Shape& x = *context.shape(0);
  const Shape& w = *context.shape(1);
  OCTET_RETURN_IF_ERROR(ExpectRank(context, 1, x.rank(), x.rank()));
  OCTET_ASSIGN_OR_RETURN(const int64_t group, context.attributes().Int("group", 1));
  const Channels channels = ChannelsOf(context.node(), w, group);
  const bool last = IsChannelsLast(context.node());
  const int64_t given = last ? x.back() : x[1];
  if (channels.out == 0 || (given != kUnknownDim && given != channels.in)) {
    return context.Error(
        Format("input {} does not fit weights {} in {} groups", x.ToString(), w.ToString(), group));
  }
  OCTET_ASSIGN_OR_RETURN(const TransposedWindow window,
                         ReadTransposedWindow(context.node(), w.dims().subspan(2)));
  OCTET_RETURN_IF_ERROR(ExpectVector(context, 2, channels.out));
  std::vector<int64_t> extents = SpatialExtents(x, last);
  for (size_t i = 0; i < extents.size(); ++i) {
    if (extents[i] == kUnknownDim) continue;
    extents[i] = window.Resolve(i, extents[i]).out;
    if (extents[i] < 1) return context.Error(Format("output extent {} is {}", i + 2, extents[i]));
  }
  return context.SetOutput(0, context.dtype(0), JoinShape(x[0], channels.out, extents, last));
}

/// Extents and steps of the computation, spatial axes aligned to the right of three.
struct ScatterGeometry {
  int64_t batch, groups, in_channels, out_channels;  // Channels per group.
  std::array<AxisWindow, 3> axes;  // in, out, kernel, stride, dilation, pad_begin.

  int64_t in_plane() const { return axes[0].in * axes[1].in * axes[2].in; }
  int64_t out_plane() const { return axes[0].out * axes[1].out * axes[2].out; }
  int64_t taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
};

absl::StatusOr<ScatterGeometry> GeometryOf(const Node& node, const Shape& x, const Shape& w) {
  OCTET_ASSIGN_OR_RETURN(const int64_t group, node.attributes.Int("group", 1));
  const Channels channels = ChannelsOf(node, w, group);
  ScatterGeometry g{x[0], group, channels.in / group, channels.out / group, {}};
  OCTET_ASSIGN_OR_RETURN(
      g.axes, TransposedAxes(node, SpatialExtents(x, IsChannelsLast(node)), w.dims().subspan(2)));
  return g;
}

/// Adds what one input plane gives to one output plane through the taps of their weight.
template <typename T>
void ScatterPlane(const ScatterGeometry& g, const T* x, const T* taps, double* y) {
  const auto& [depth, height, width] = g.axes;
  for (int64_t k = 0; k < g.taps(); ++k) {
    const int64_t kd = k / width.kernel / height.kernel;
    const int64_t kh = k / width.kernel % height.kernel;
    const int64_t kw = k % width.kernel;
    for (int64_t i = 0; i < g.in_plane(); ++i) {
      const int64_t od = depth.Position(i / width.in / height.in, kd);
      const int64_t oh = height.Position(i / width.in % height.in, kh);
      const int64_t ow = width.Position(i % width.in, kw);
      if (od < 0 || od >= depth.out || oh < 0 || oh >= height.out || ow < 0 || ow >= width.out)
        continue;
      y[(od * height.out + oh) * width.out + ow] +=
          static_cast<double>(taps[k]) * static_cast<double>(x[i]);
    }
  }
}

/// y[n, oc, i * stride - pad + k * dilation] += w[ic, oc, k] * x[n, ic, i], then + b[oc]; x and y have channels first.
template <typename T>
void Scatter(const ScatterGeometry& g, bool canonical, const T* x, const T* w, const T* bias,
             T* y) {
  const int64_t channels = g.groups * g.out_channels;
  ParallelFor(g.batch * channels, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> sums(static_cast<size_t>(g.out_plane()));
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t oc = plane % channels;
      std::ranges::fill(sums, bias != nullptr ? static_cast<double>(bias[oc]) : 0.0);
      for (int64_t k = 0; k < g.in_channels; ++k) {
        const int64_t ic = oc / g.out_channels * g.in_channels + k;
        const int64_t at =
            canonical ? oc * g.in_channels + k : ic * g.out_channels + oc % g.out_channels;
        ScatterPlane(g, x + (plane / channels * g.groups * g.in_channels + ic) * g.in_plane(),
                     w + at * g.taps(), sums.data());
      }
      std::ranges::transform(sums, y + plane * g.out_plane(),
                             [](double sum) { return static_cast<T>(sum); });
    }
  });
}

absl::StatusOr<Kernel> MakeConvTranspose(const KernelContext& context) {
  OCTET_ASSIGN_OR_RETURN(
      const ScatterGeometry g,
      GeometryOf(context.node, context.inputs[0].shape(), context.inputs[1].shape()));
  const bool canonical = IsCanonical(context.node);
  const bool last = IsChannelsLast(context.node);
  return KernelFor(
      kRealKernels, context.outputs[0].dtype, context.node, [&]<typename T>() -> Kernel {
        return [=](std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
          const T* bias = inputs.size() > 2 ? inputs[2].as<T>() : nullptr;
          if (!last) {
            Scatter(g, canonical, inputs[0].as<T>(), inputs[1].as<T>(), bias, outputs[0].as<T>());
            return absl::OkStatus();
          }
          std::vector<T> x(static_cast<size_t>(inputs[0].elements()));
          std::vector<T> y(static_cast<size_t>(outputs[0].elements()));
          ToChannelsFirst(inputs[0], x.data());
          Scatter(g, canonical, x.data(), inputs[1].as<T>(), bias, y.data());
          ToChannelsLast(y.data(), outputs[0]);
          return absl::OkStatus();
        };
      });
}

}  // namespace

std::span<const OpDef> ConvTransposeOps() {
  static constexpr OpDef kOps[] = {
      {kOnnxDomain, "ConvTranspose", 1, INT_MAX, InferConvTranspose, MakeConvTranspose},
      {kOctetDomain, "ConvTranspose", 1, INT_MAX, InferConvTranspose, MakeConvTranspose, LowerConv},
  };
  return kOps;
}

absl::StatusOr<std::optional<TransposedPads>> TransposedPadsOf(const Node& node, const Shape& x,
                                                               const Shape& w) {
  OCTET_ASSIGN_OR_RETURN(const TransposedWindow window,
                         ReadTransposedWindow(node, w.dims().subspan(2)));
  const size_t spatial = window.window.kernel.size();
  TransposedPads result{std::vector<int64_t>(2 * spatial), std::vector<int64_t>(spatial)};
  for (size_t i = 0; i < spatial; ++i) {
    int64_t in = x[static_cast<int>(i) + 2];
    if (in == kUnknownDim && !window.output_shape.empty()) return std::nullopt;
    // Otherwise pads do not depend on the extent.
    in = std::max<int64_t>(in, 1);
    const auto [out, pad_begin] = window.Resolve(i, in);
    const int64_t full = window.window.strides[i] * (in - 1) +
                         (window.window.kernel[i] - 1) * window.window.dilations[i] + 1;
    const int64_t pad_end = full - pad_begin - out;
    result.pads[i] = pad_begin;
    result.pads[spatial + i] = std::max<int64_t>(pad_end, 0);
    result.output_padding[i] = std::max<int64_t>(-pad_end, 0);
  }
  return result;
}

absl::StatusOr<std::array<AxisWindow, 3>> TransposedAxes(const Node& node,
                                                         std::span<const int64_t> in,
                                                         std::span<const int64_t> kernel) {
  OCTET_ASSIGN_OR_RETURN(const TransposedWindow window, ReadTransposedWindow(node, kernel));
  std::array<AxisWindow, 3> axes;
  for (size_t i = 0; i < in.size(); ++i) {
    const auto [out, pad_begin] = window.Resolve(i, in[i]);
    axes[3 - in.size() + i] = {.in = in[i],
                               .out = out,
                               .kernel = window.window.kernel[i],
                               .stride = window.window.strides[i],
                               .dilation = window.window.dilations[i],
                               .pad_begin = pad_begin};
  }
  return axes;
}

bool TransposesIntegers(const Node& node, std::span<const int64_t> output_padding) {
  const auto all_ones = [&](std::string_view name) {
    const auto ints = node.attributes.Ints(name, {});
    return ints.ok() && std::ranges::all_of(*ints, [](int64_t i) { return i == 1; });
  };
  return std::ranges::all_of(output_padding, [](int64_t more) { return more == 0; }) &&
         (all_ones("strides") || all_ones("dilations"));
}

}  // namespace octet
