#include "engine/ops/byte_max_pool.h"

#include <algorithm>

#include "engine/tensor/parallel.h"
#include "engine/tensor/status.h"

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/byte_max_pool.cc"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#ifndef OCTET_ENGINE_OPS_BYTE_MAX_POOL_WINDOW
#define OCTET_ENGINE_OPS_BYTE_MAX_POOL_WINDOW
namespace octet {

/// One window: `rows` x `columns` taps from x on, `row_pitch` and `column_pitch` bytes apart.
struct ByteWindow {
  const uint8_t* x;
  int64_t rows;
  int64_t columns;
  int64_t row_pitch;
  int64_t column_pitch;
};

}  // namespace octet
#endif

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// The largest of every tap, `count` channels from x on.
template <class D, class Load>
HWY_INLINE hn::Vec<D> LargestTap(const ByteWindow& window, const hn::TFromD<D>* x,
                                 const Load& load) {
  hn::Vec<D> largest = load(x);
  for (int64_t row = 0; row < window.rows; ++row) {
    const auto* taps = x + row * window.row_pitch;
    for (int64_t column = 0; column < window.columns; ++column)
      largest = hn::Max(largest, load(taps + column * window.column_pitch));
  }
  return largest;
}

// Whole vectors; the last one overlaps the one before. Requires: as many channels as the vector has lanes.
template <class D>
HWY_INLINE void MaxOfVectors(D d, const ByteWindow& window, int64_t channels, hn::TFromD<D>* y) {
  const auto* x = reinterpret_cast<const hn::TFromD<D>*>(window.x);
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto load = [d](const hn::TFromD<D>* at) HWY_ATTR { return hn::LoadU(d, at); };
  for (int64_t c = 0; c < channels; c += lanes) {
    const int64_t at = std::min(c, channels - lanes);
    hn::StoreU(LargestTap<D>(window, x + at, load), d, y + at);
  }
}

template <class T>
HWY_INLINE void MaxOfWindow(const ByteWindow& window, int64_t channels, T* y) {
  const hn::ScalableTag<T> full;
  if (channels >= static_cast<int64_t>(hn::Lanes(full))) {
    MaxOfVectors(full, window, channels, y);
  } else if (channels >= 32) {
    MaxOfVectors(hn::CappedTag<T, 32>(), window, channels, y);
  } else if (channels >= 16) {
    MaxOfVectors(hn::CappedTag<T, 16>(), window, channels, y);
  } else if (channels >= 8) {
    MaxOfVectors(hn::CappedTag<T, 8>(), window, channels, y);
  } else {
    const hn::CappedTag<T, 8> d;
    using D = decltype(d);
    const auto count = static_cast<size_t>(channels);
    const auto load = [=](const T* at) HWY_ATTR { return hn::LoadN(d, at, count); };
    hn::StoreN(
        LargestTap<std::remove_const_t<D>>(window, reinterpret_cast<const T*>(window.x), load), d,
        y, count);
  }
}

// One row of windows: output row `row` of one image.
template <class T>
HWY_INLINE void MaxRow(const PoolGeometry& g, const uint8_t* image, int64_t row, T* y) {
  const AxisWindow& height = g.axes[1];
  const AxisWindow& width = g.axes[2];
  const auto [h0, h1] = height.TapsOf(row);
  const int64_t pitch = width.in * g.channels;
  const uint8_t* first = image + height.Position(row, h0) * pitch;
  for (int64_t o = 0; o < width.out; ++o) {
    const auto [w0, w1] = width.TapsOf(o);
    const ByteWindow window = {first + width.Position(o, w0) * g.channels, h1 - h0, w1 - w0,
                               std::min(height.dilation, height.in) * pitch,
                               std::min(width.dilation, width.in) * g.channels};
    MaxOfWindow(window, g.channels, y + o * g.channels);
  }
}

void RunByteMaxRow(const PoolGeometry& g, bool is_signed, const uint8_t* image, int64_t row,
                   uint8_t* y) {
  if (is_signed) {
    MaxRow(g, image, row, reinterpret_cast<int8_t*>(y));
  } else {
    MaxRow(g, image, row, y);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {

HWY_EXPORT(RunByteMaxRow);

/// Taps that a thread takes at least.
constexpr int64_t kMaxPoolGrain = int64_t{1} << 16;

// As many taps as matter for sharing the work: a kernel may be far larger than its input.
int64_t TapsInside(const PoolGeometry& g) {
  int64_t taps = 1;
  for (const AxisWindow& axis : g.axes) taps *= std::min({axis.kernel, axis.in, kMaxPoolGrain});
  return std::min(taps, kMaxPoolGrain);
}

class ByteMaxPoolStep final : public Step {
 public:
  ByteMaxPoolStep(const PoolGeometry& g, bool is_signed) : g_(g), is_signed_(is_signed) {}

  absl::Status Run(const StepArgs& args) const override {
    const auto* x = static_cast<const uint8_t*>(args.inputs[0]);
    auto* y = static_cast<uint8_t*>(args.outputs[0]);
    const int64_t rows = g_.axes[1].out;
    const int64_t pitch = g_.axes[2].out * g_.channels;
    ParallelFor(g_.batch * rows, 1 + kMaxPoolGrain / (pitch * TapsInside(g_)),
                [&](int64_t begin, int64_t end) {
                  for (int64_t i = begin; i < end; ++i) {
                    const uint8_t* image = x + i / rows * g_.in_plane() * g_.channels;
                    HWY_DYNAMIC_DISPATCH(RunByteMaxRow)
                    (g_, is_signed_, image, i % rows, y + i * pitch);
                  }
                });
    return absl::OkStatus();
  }

 private:
  PoolGeometry g_;
  bool is_signed_;
};

bool HasEmptyWindow(const AxisWindow& axis) {
  for (int64_t o = 0; o < axis.out; ++o) {
    const auto [begin, end] = axis.TapsOf(o);
    if (begin >= end) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Step>> LowerByteMaxPool(const LowerContext& context,
                                                       const PoolGeometry& geometry) {
  const Value& x = context.input(0);
  const Value& y = context.output();
  if (!IsInt8(x.dtype) || x.dtype != y.dtype || x.quant != y.quant)
    return Unimplemented("input and output differ in type or scale, or are not 8 bits wide");
  if (geometry.axes[0].in != 1 || geometry.axes[0].out != 1)
    return Unimplemented("three spatial axes");
  if (std::ranges::any_of(geometry.axes, HasEmptyWindow))
    return Unimplemented("a window that lies in the padding");
  context.layer.runs = "int8";
  context.layer.impl = "octet:max_int8";
  context.layer.isa = context.target.isa;
  return std::make_unique<ByteMaxPoolStep>(geometry, x.dtype == DType::kI8);
}

}  // namespace octet

#endif
