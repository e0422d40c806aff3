// The convolution that every reference kernel shares: float, integer and quantized ones differ only in
// their types, zero points and in what they do with a finished row.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/ops/op.h"
#include "engine/ops/window.h"
#include "engine/tensor/parallel.h"
#include "engine/tensor/tensor.h"

namespace octet {

/// A convolution with static extents over [N, C, D, H, W] (absent spatial axes are 1).
struct ConvGeometry {
  int64_t batch = 1;
  int64_t groups = 1;
  int64_t in_channels = 1;   ///< Per group.
  int64_t out_channels = 1;  ///< Per group.
  std::array<AxisWindow, 3> axes;

  int64_t in_plane() const { return axes[0].in * axes[1].in * axes[2].in; }
  int64_t out_plane() const { return axes[0].out * axes[1].out * axes[2].out; }
  int64_t taps() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
};

/// From x [N, C, spatial...] (or channels last) and w [OC, C / group, k...].
absl::StatusOr<ConvGeometry> MakeConvGeometry(const Node& node, const Shape& x, const Shape& w,
                                              bool channels_last);

/// Extents of a convolution's output, from what is known of the inputs x and w; nullopt: not even the rank.
/// Reads the window's attributes, `group` and `channels_last`. INVALID_ARGUMENT when they contradict each other.
absl::StatusOr<std::optional<Shape>> InferConvOutput(const InferContext& context, size_t x_slot,
                                                     size_t w_slot);
/// INVALID_ARGUMENT unless input i is absent, of unknown shape, or [OC] for the weights in slot w; or of one element
/// where `scalar_allowed`.
absl::Status ExpectPerChannel(const InferContext& context, size_t i, size_t w, bool scalar_allowed);

/// Zero points of the two operands: real = scale * (q - zero). `w` has one value, or one per output channel.
struct ConvZeros {
  int32_t x = 0;
  std::span<const int32_t> w = {};
};

/// acc[n, oc, o...] = sum over ic, k... of (w[oc, ic, k...] - w_zero[oc]) * (x[n, ic, o * stride - pad + k * dilation] - x_zero),
/// where x is 0 in the padding. Calls store(n, oc, first, row) for each row of outputs, `first` being its
/// position in the plane; rows of one (n, oc) come from one thread. Acc: double for floats, int64_t for
/// integers, which no model can make overflow.
template <typename Acc, typename X, typename W, typename Store>
void Convolve(const ConvGeometry& geometry, const X* x, const W* w, const ConvZeros& zeros,
              const Store& store) {
  ConvGeometry g = geometry;
  // One tap, which is the input at every output's own position.
  const bool pointwise = std::ranges::all_of(g.axes, [](const AxisWindow& axis) {
    return axis.kernel == 1 && axis.stride == 1 && axis.pad_begin == 0 && axis.in == axis.out;
  });
  if (pointwise)
    g.axes = {AxisWindow{}, AxisWindow{}, AxisWindow{.in = g.in_plane(), .out = g.out_plane()}};
  const AxisWindow& wide = g.axes[2];
  const int64_t channels = g.groups * g.out_channels;
  const Acc x_zero = static_cast<Acc>(zeros.x);

  const auto accumulate_row = [&](int64_t n, int64_t oc, int64_t od, int64_t oh, Acc* row) {
    const int64_t first_channel =
        n * g.groups * g.in_channels + oc / g.out_channels * g.in_channels;
    const Acc w_zero =
        zeros.w.empty() ? Acc{0} : static_cast<Acc>(zeros.w[zeros.w.size() == 1 ? 0 : oc]);
    const W* taps = w + oc * g.in_channels * g.taps();
    for (int64_t ic = 0; ic < g.in_channels; ++ic) {
      const X* plane = x + (first_channel + ic) * g.in_plane();
      for (int64_t kd = 0; kd < g.axes[0].kernel; ++kd) {
        const int64_t id = g.axes[0].Position(od, kd);
        for (int64_t kh = 0; kh < g.axes[1].kernel; ++kh, taps += wide.kernel) {
          const int64_t ih = g.axes[1].Position(oh, kh);
          if (id < 0 || id >= g.axes[0].in || ih < 0 || ih >= g.axes[1].in) continue;
          const X* line = plane + (id * g.axes[1].in + ih) * wide.in;
          for (int64_t kw = 0; kw < wide.kernel; ++kw) {
            const auto [begin, end] = wide.OutputsOf(kw);
            const Acc weight = static_cast<Acc>(taps[kw]) - w_zero;
            const X* from = line + (kw * wide.dilation - wide.pad_begin);
            if (wide.stride == 1) {
              for (int64_t o = begin; o < end; ++o)
                row[o] += weight * (static_cast<Acc>(from[o]) - x_zero);
            } else {
              for (int64_t o = begin; o < end; ++o) {
                row[o] += weight * (static_cast<Acc>(from[o * wide.stride]) - x_zero);
              }
            }
          }
        }
      }
    }
  };

  const int64_t work = g.in_channels * g.taps() * g.out_plane();
  ParallelFor(g.batch * channels, 1 + 100'000 / (work + 1), [&](int64_t begin, int64_t end) {
    std::vector<Acc> row(static_cast<size_t>(wide.out));
    for (int64_t task = begin; task < end; ++task) {
      for (int64_t line = 0; line < g.axes[0].out * g.axes[1].out; ++line) {
        std::fill(row.begin(), row.end(), Acc{0});
        accumulate_row(task / channels, task % channels, line / g.axes[1].out, line % g.axes[1].out,
                       row.data());
        store(task / channels, task % channels, line * wide.out, std::span<const Acc>(row));
      }
    }
  });
}

/// Elements of a channels-last tensor in channels-first order, and back.
void ToChannelsFirst(ConstTensorView x, void* planar);
void ToChannelsLast(const void* planar, TensorView y);

}  // namespace octet
