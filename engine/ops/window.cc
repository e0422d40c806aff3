#include "engine/ops/window.h"

#include <algorithm>
#include <string>

#include "engine/tensor/limits.h"
#include "engine/tensor/status.h"

namespace octet {
namespace {

/// Larger extents cannot be meant, and would overflow the arithmetic below.
constexpr int64_t kMaxWindow = int64_t{1} << 31;

/// An Ints attribute of `count` values in [least, kMaxWindow]; `fallback` for each when absent.
absl::StatusOr<std::vector<int64_t>> ReadExtents(const Node& node, std::string_view name,
                                                 size_t count, int64_t least, int64_t fallback) {
  OCTET_ASSIGN_OR_RETURN(auto values,
                         node.attributes.Ints(name, std::vector<int64_t>(count, fallback)));
  if (values.size() != count) {
    return InvalidArgument("{}: '{}' has {} values, expected {}", Describe(node), name,
                           values.size(), count);
  }
  for (const int64_t value : values) {
    if (value < least || value > kMaxWindow) {
      return InvalidArgument("{}: '{}' must be at least {}, got {}", Describe(node), name, least,
                             value);
    }
  }
  return values;
}

absl::StatusOr<WindowAttributes::AutoPad> ReadAutoPad(const Node& node) {
  using AutoPad = WindowAttributes::AutoPad;
  OCTET_ASSIGN_OR_RETURN(const std::string name, node.attributes.String("auto_pad", "NOTSET"));
  if (name == "NOTSET" || name.empty()) return AutoPad::kNotSet;
  if (name == "VALID") return AutoPad::kValid;
  if (name == "SAME_UPPER") return AutoPad::kSameUpper;
  if (name == "SAME_LOWER") return AutoPad::kSameLower;
  return InvalidArgument("{}: unknown 'auto_pad': '{}'", Describe(node), name);
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::StatusOr<WindowAttributes> ReadWindow(const Node& node, int spatial_rank,
                                            std::span<const int64_t> kernel) {
  const auto rank = static_cast<size_t>(spatial_rank);
  WindowAttributes window;
  if (node.attributes.has("kernel_shape")) {
    OCTET_ASSIGN_OR_RETURN(window.kernel, ReadExtents(node, "kernel_shape", rank, 1, 1));
    for (size_t i = 0; i < kernel.size() && i < rank; ++i) {
      if (kernel[i] != kUnknownDim && kernel[i] != window.kernel[i]) {
        return InvalidArgument(
            "{}: 'kernel_shape' says {} along spatial axis {}, the weights have {}", Describe(node),
            window.kernel[i], i, kernel[i]);
      }
    }
  } else if (kernel.size() == rank && !std::ranges::contains(kernel, kUnknownDim)) {
    window.kernel.assign(kernel.begin(), kernel.end());
    for (const int64_t extent : kernel) {
      if (extent < 1 || extent > kMaxWindow) {
        return InvalidArgument("{}: the weights have a kernel extent of {}", Describe(node),
                               extent);
      }
    }
  } else {
    return InvalidArgument("{}: lacks its attribute 'kernel_shape'", Describe(node));
  }
  if (!IsPossible(Shape(window.kernel))) {
    return InvalidArgument("{}: impossible kernel: {}", Describe(node),
                           Shape(window.kernel).ToString());
  }
  OCTET_ASSIGN_OR_RETURN(window.strides, ReadExtents(node, "strides", rank, 1, 1));
  OCTET_ASSIGN_OR_RETURN(window.dilations, ReadExtents(node, "dilations", rank, 1, 1));
  OCTET_ASSIGN_OR_RETURN(window.pads, ReadExtents(node, "pads", 2 * rank, 0, 0));
  OCTET_ASSIGN_OR_RETURN(window.auto_pad, ReadAutoPad(node));
  OCTET_ASSIGN_OR_RETURN(const int64_t ceil_mode, node.attributes.Int("ceil_mode", 0));
  window.ceil_mode = ceil_mode != 0;
  return window;
}

AxisWindow::Range AxisWindow::OutputsOf(int64_t k) const {
  // 0 <= o * stride + offset < in
  const int64_t offset = k * dilation - pad_begin;
  const int64_t begin = offset >= 0 ? 0 : CeilDiv(-offset, stride);
  const int64_t end = in - offset <= 0 ? 0 : CeilDiv(in - offset, stride);
  return {std::min(begin, out), std::clamp(end, std::min(begin, out), out)};
}

AxisWindow::Range AxisWindow::TapsOf(int64_t o) const {
  // 0 <= first + k * dilation < in
  const int64_t first = o * stride - pad_begin;
  const int64_t begin = first >= 0 ? 0 : CeilDiv(-first, dilation);
  const int64_t end = in - first <= 0 ? 0 : CeilDiv(in - first, dilation);
  return {std::min(begin, kernel), std::clamp(end, std::min(begin, kernel), kernel)};
}

absl::StatusOr<AxisWindow> ResolveAxis(const Node& node, const WindowAttributes& window, int axis,
                                       int64_t in) {
  using AutoPad = WindowAttributes::AutoPad;
  const auto i = static_cast<size_t>(axis);
  AxisWindow w{.in = in,
               .kernel = window.kernel[i],
               .stride = window.strides[i],
               .dilation = window.dilations[i]};
  if (window.auto_pad == AutoPad::kSameUpper || window.auto_pad == AutoPad::kSameLower) {
    w.out = CeilDiv(in, w.stride);
    const int64_t total = std::max<int64_t>((w.out - 1) * w.stride + w.reach() - in, 0);
    w.pad_begin = window.auto_pad == AutoPad::kSameUpper ? total / 2 : total - total / 2;
    w.pad_end = total - w.pad_begin;
    return w;
  }
  if (window.auto_pad == AutoPad::kNotSet) {
    w.pad_begin = window.pads[i];
    w.pad_end = window.pads[i + window.kernel.size()];
  }
  const int64_t room = in + w.pad_begin + w.pad_end - w.reach();
  if (room < 0) {
    return InvalidArgument(
        "{}: the window reaches over {} along spatial axis {}, the padded input has {}",
        Describe(node), w.reach(), axis, in + w.pad_begin + w.pad_end);
  }
  w.out = room / w.stride + 1;
  if (window.ceil_mode) {
    w.out = CeilDiv(room, w.stride) + 1;
    if ((w.out - 1) * w.stride >= in + w.pad_begin) --w.out;
  }
  return w;
}

absl::StatusOr<std::vector<int64_t>> WindowOutputs(const Node& node, const WindowAttributes& window,
                                                   std::span<const int64_t> in) {
  std::vector<int64_t> out;
  for (size_t i = 0; i < in.size(); ++i) {
    if (in[i] == kUnknownDim) {
      out.push_back(kUnknownDim);
      continue;
    }
    OCTET_ASSIGN_OR_RETURN(const AxisWindow axis,
                           ResolveAxis(node, window, static_cast<int>(i), in[i]));
    out.push_back(axis.out);
  }
  return out;
}

absl::StatusOr<std::array<AxisWindow, 3>> ResolveWindow(const Node& node,
                                                        const WindowAttributes& window,
                                                        std::span<const int64_t> in) {
  if (in.size() > 3)
    return Unimplemented("{}: has {} spatial axes, at most 3 are known", Describe(node), in.size());
  std::array<AxisWindow, 3> axes;
  for (size_t i = 0; i < in.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(axes[3 - in.size() + i],
                           ResolveAxis(node, window, static_cast<int>(i), in[i]));
  }
  return axes;
}

std::vector<int64_t> SpatialExtents(const Shape& shape, bool channels_last) {
  const auto dims = shape.dims();
  const auto spatial = channels_last ? dims.subspan(1, dims.size() - 2) : dims.subspan(2);
  return {spatial.begin(), spatial.end()};
}

Shape JoinShape(int64_t batch, int64_t channels, std::span<const int64_t> spatial,
                bool channels_last) {
  Shape shape{batch};
  if (!channels_last) shape.push_back(channels);
  for (const int64_t extent : spatial) shape.push_back(extent);
  if (channels_last) shape.push_back(channels);
  return shape;
}

}  // namespace octet
