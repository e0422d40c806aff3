// The loop over windows that every reference pool shares.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"

#include "engine/ops/op.h"
#include "engine/ops/window.h"
#include "engine/tensor/parallel.h"

namespace octet {

/// The node's `channels_last` is 1: x and y are [N, spatial..., C].
bool PoolsChannelsLast(const Node& node);

/// Output shape of a pool over input 0; nullopt when its rank is unknown. INVALID_ARGUMENT for bad attributes.
absl::StatusOr<std::optional<Shape>> InferPoolOutput(const InferContext& context);
/// The same for a pool over whole planes: every spatial extent is 1.
absl::StatusOr<std::optional<Shape>> InferGlobalPoolOutput(const InferContext& context);

/// A pool over static extents. Planes are the (n, c) pairs; their elements are `step` apart.
struct PoolGeometry {
  int64_t batch = 1;
  int64_t channels = 1;
  bool channels_last = false;
  std::array<AxisWindow, 3> axes;

  int64_t step() const { return channels_last ? channels : 1; }
  int64_t in_plane() const { return axes[0].in * axes[1].in * axes[2].in; }
  int64_t out_plane() const { return axes[0].out * axes[1].out * axes[2].out; }
  /// Taps of the window at output (d, h, w) that lie inside the padded input.
  int64_t PaddedTaps(const std::array<int64_t, 3>& at) const;
  int64_t kernel() const { return axes[0].kernel * axes[1].kernel * axes[2].kernel; }
  /// Position of a plane's first element in a tensor of planes of `size` elements.
  int64_t First(int64_t plane, int64_t size) const {
    return channels_last ? plane / channels * channels * size + plane % channels : plane * size;
  }
};

/// From the attributes of a node that pools x.
absl::StatusOr<PoolGeometry> WindowGeometry(const Node& node, const Shape& x);
/// One window over the whole plane.
PoolGeometry GlobalGeometry(const Node& node, const Shape& x);

/// Calls visit(state, value, d, h, w) for every tap that lies inside the input, on a fresh State for every
/// window, then done(state, out, o), `out` being the output's position and o its (d, h, w).
template <typename State, typename T, typename Visit, typename Done>
void ForEachWindow(const PoolGeometry& g, const T* x, const Visit& visit, const Done& done) {
  const auto& [depth, height, width] = g.axes;
  const int64_t step = g.step();
  const double work =
      static_cast<double>(g.out_plane()) * static_cast<double>(depth.in * height.in * width.in);
  const auto grain = static_cast<int64_t>(1 + 20'000 / (work + 1));
  ParallelFor(g.batch * g.channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const T* in = x + g.First(plane, g.in_plane());
      for (int64_t o = 0; o < g.out_plane(); ++o) {
        const std::array<int64_t, 3> at = {o / width.out / height.out, o / width.out % height.out,
                                           o % width.out};
        // Only taps inside the input are walked through: the padding may be huge.
        const auto [d0, d1] = depth.TapsOf(at[0]);
        const auto [h0, h1] = height.TapsOf(at[1]);
        const auto [w0, w1] = width.TapsOf(at[2]);
        State state(plane);
        for (int64_t kd = d0; kd < d1; ++kd) {
          const int64_t d = depth.Position(at[0], kd);
          for (int64_t kh = h0; kh < h1; ++kh) {
            const int64_t h = height.Position(at[1], kh);
            for (int64_t kw = w0; kw < w1; ++kw) {
              const int64_t w = width.Position(at[2], kw);
              visit(state, in[((d * height.in + h) * width.in + w) * step], d, h, w);
            }
          }
        }
        done(state, g.First(plane, g.out_plane()) + o * step, at);
      }
    }
  });
}

}  // namespace octet
