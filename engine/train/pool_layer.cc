// Maxima and means of windows.
#include <algorithm>
#include <limits>
#include <numeric>

#include "engine/ops/pool_loops.h"
#include "engine/tensor/status.h"
#include "engine/train/layer.h"

namespace octet::train {
namespace {

// Calls tap(out, in) with the physical positions of an output and of an input inside its window; outputs of one plane (a
// sample's channel) are one thread's.
template <typename Fn>
void ForEachTap(const PoolGeometry& g, const Fn& tap) {
  const auto& [depth, height, width] = g.axes;
  const int64_t work = g.out_plane() * g.kernel();
  ParallelFor(g.batch * g.channels, 1 + 20'000 / (work + 1), [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t first = g.First(plane, g.in_plane());
      int64_t out = g.First(plane, g.out_plane());
      for (int64_t o = 0; o < g.out_plane(); ++o, out += g.step()) {
        const auto [d0, d1] = depth.TapsOf(o / width.out / height.out);
        const auto [h0, h1] = height.TapsOf(o / width.out % height.out);
        const auto [w0, w1] = width.TapsOf(o % width.out);
        for (int64_t d = d0; d < d1; ++d) {
          const int64_t plane_row = depth.Position(o / width.out / height.out, d) * height.in;
          for (int64_t h = h0; h < h1; ++h) {
            const int64_t row =
                (plane_row + height.Position(o / width.out % height.out, h)) * width.in;
            for (int64_t w = w0; w < w1; ++w)
              tap(out, first + (row + width.Position(o % width.out, w)) * g.step());
          }
        }
      }
    }
  });
}

class MaxOfWindow : public Layer {
 public:
  MaxOfWindow(Activation& x, Activation& y, const PoolGeometry& geometry)
      : x_(x), y_(y), geometry_(geometry), from_(static_cast<size_t>(y.size())) {}

  absl::Status Forward() override {
    const float* const x = x_.values();
    float* const y = y_.values();
    std::fill_n(y, y_.size(), -std::numeric_limits<float>::infinity());
    ForEachTap(geometry_, [&](int64_t out, int64_t in) {
      if (!(x[in] > y[out])) return;
      y[out] = x[in];
      from_[static_cast<size_t>(out)] = in;
    });
    return absl::OkStatus();
  }

  absl::Status Backward() override {
    x_.AddGradient([&](float* to) {
      std::fill_n(to, x_.size(), 0.0F);
      for (int64_t out = 0; out < y_.size(); ++out)
        to[from_[static_cast<size_t>(out)]] += y_.gradient()[out];
    });
    return absl::OkStatus();
  }

 private:
  Activation& x_;
  Activation& y_;
  PoolGeometry geometry_;
  std::vector<int64_t> from_;  ///< Output -> the input that it is.
};

class MeanOfWindow : public Layer {
 public:
  MeanOfWindow(Activation& x, Activation& y, const PoolGeometry& geometry,
               std::vector<float> divisors)
      : x_(x), y_(y), geometry_(geometry), divisors_(std::move(divisors)) {}

  absl::Status Forward() override {
    const float* const x = x_.values();
    float* const y = y_.values();
    std::fill_n(y, y_.size(), 0.0F);
    ForEachTap(geometry_, [&](int64_t out, int64_t in) { y[out] += x[in]; });
    for (int64_t out = 0; out < y_.size(); ++out) y[out] /= divisors_[static_cast<size_t>(out)];
    return absl::OkStatus();
  }

  absl::Status Backward() override {
    x_.AddGradient([&](float* to) {
      std::fill_n(to, x_.size(), 0.0F);
      const float* const dy = y_.gradient();
      ForEachTap(geometry_, [&](int64_t out, int64_t in) {
        to[in] += dy[out] / divisors_[static_cast<size_t>(out)];
      });
    });
    return absl::OkStatus();
  }

 private:
  Activation& x_;
  Activation& y_;
  PoolGeometry geometry_;
  std::vector<float> divisors_;  ///< Per output.
};

// Elements that each output's mean divides by, as ONNX counts them.
std::vector<float> Divisors(const Node& node, const PoolGeometry& g, int64_t outputs) {
  std::vector<float> divisors(static_cast<size_t>(outputs), 0.0F);
  if (node.attributes.IntOr("count_include_pad", 0) == 0) {
    ForEachTap(g, [&](int64_t out, int64_t) { divisors[static_cast<size_t>(out)] += 1; });
    return divisors;
  }
  const auto& [depth, height, width] = g.axes;
  for (int64_t plane = 0; plane < g.batch * g.channels; ++plane) {
    for (int64_t o = 0; o < g.out_plane(); ++o) {
      const int64_t out = g.First(plane, g.out_plane()) + o * g.step();
      divisors[static_cast<size_t>(out)] = static_cast<float>(
          node.version < 19 ? g.kernel()
                            : g.PaddedTaps({o / width.out / height.out, o / width.out % height.out,
                                            o % width.out}));
    }
  }
  return divisors;
}

// True for a ReduceMean over all axes behind the channels.
bool ReducesPlanes(const LayerContext& context) {
  const int rank = context.inputs[0]->shape().rank();
  std::vector<int64_t> axes;
  if (const Tensor* constant = context.constant(1); constant != nullptr) {
    const auto elements = constant->span<int64_t>();
    axes.assign(elements.begin(), elements.end());
  } else if (auto attribute = context.node.attributes.Ints("axes", {}); attribute.ok()) {
    axes = *attribute;
  }
  std::vector<int64_t> planes(static_cast<size_t>(std::max(rank - 2, 0)));
  std::iota(planes.begin(), planes.end(), 2);
  for (int64_t& axis : axes) axis = NormalizeAxis(axis, rank).value_or(-1);
  std::ranges::sort(axes);
  return !planes.empty() && axes == planes;
}

}  // namespace

MadeLayer MakePool(const LayerContext& context) {
  const Node& node = context.node;
  Activation& x = *context.inputs[0];
  if (node.is("ReduceMean") && !ReducesPlanes(context)) {
    return Unimplemented("{}: training knows means over all axes behind the channels",
                         Describe(node));
  }
  PoolGeometry geometry;
  if (node.op.starts_with("Global") || node.is("ReduceMean")) {
    geometry = GlobalGeometry(node, x.shape());
  } else {
    OCTET_ASSIGN_OR_RETURN(geometry, WindowGeometry(node, x.shape()));
  }
  geometry.channels_last = x.shape().rank() > 3;  // How activations lie, whatever the node says.
  if (node.op.ends_with("MaxPool"))
    return std::make_unique<MaxOfWindow>(x, context.output, geometry);
  return std::make_unique<MeanOfWindow>(x, context.output, geometry,
                                        Divisors(node, geometry, context.output.size()));
}

}  // namespace octet::train
