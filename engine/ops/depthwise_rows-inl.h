// The walk of a depthwise convolution over its results: rows, blocks of channels, tiles of adjacent pixels. Included once for each
// instruction set, within Highway's foreach_target.
#if defined(OCTET_ENGINE_OPS_DEPTHWISE_ROWS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef OCTET_ENGINE_OPS_DEPTHWISE_ROWS_INL_H
#undef OCTET_ENGINE_OPS_DEPTHWISE_ROWS_INL_H
#else
#define OCTET_ENGINE_OPS_DEPTHWISE_ROWS_INL_H
#endif

#include <algorithm>
#include <cstdint>

#include <hwy/highway.h>

#include "engine/ops/depthwise_shape.h"

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

/// Pointers of one tile of results.
template <typename Element>
struct DepthwiseTile {
  const Element* const* rows;  ///< Of x, per row of the kernel, at the block's first channel.
  const Element* outside;
  int64_t column;  ///< Of x, that the first result's kernel begins with.
  Element* y;
};

// Extents of convolutional networks are multiples of 7 more often than not, and the sums of 7 results fit the registers of AVX-512.
constexpr int kWideDepthwiseTile = HWY_MAX_BYTES >= 64 ? 7 : 3;

// A Kernel has an Element, a Packed, in it .shape, .outside (a row of what lies outside of x) and .blocks, each a DepthwiseChannels, and
//
//   template <class D, int kKernel, int kStride, int kTile, bool kInside>
//   static void RunTile(D d, const Packed& packed, const Block& block, const DepthwiseTile<Element>& tile);
//
// which computes kTile adjacent results of one row; kInside: no column of the window lies outside of x.
template <class Kernel, class D, int kKernel, int kStride>
HWY_NOINLINE void RunDepthwiseRow(D d, const typename Kernel::Packed& packed,
                                  const typename Kernel::Block& block,
                                  const typename Kernel::Element* const* rows,
                                  typename Kernel::Element* y) {
  constexpr int kWide = kWideDepthwiseTile;
  const DepthwiseShape& shape = packed.shape;
  const typename Kernel::Element* at[kKernel];
  for (int k = 0; k < kKernel; ++k) at[k] = rows[k] + block.first;
  DepthwiseTile<typename Kernel::Element> tile{at, packed.outside.data(), -shape.pad_left,
                                               y + block.first};
  int64_t left = shape.out_width;
  const auto advance = [&](int64_t results) {
    tile.column += results * kStride;
    tile.y += results * shape.channels;
    return results;
  };
  for (; left >= kWide; left -= advance(kWide)) {
    constexpr int64_t kReach = (kWide - 1) * kStride + kKernel;
    if (tile.column >= 0 && tile.column + kReach <= shape.width) {
      Kernel::template RunTile<D, kKernel, kStride, kWide, true>(d, packed, block, tile);
    } else {
      Kernel::template RunTile<D, kKernel, kStride, kWide, false>(d, packed, block, tile);
    }
  }
  if constexpr (kWide > 3) {
    for (; left >= 3; left -= advance(3))
      Kernel::template RunTile<D, kKernel, kStride, 3, false>(d, packed, block, tile);
  }
  for (; left >= 1; left -= advance(1))
    Kernel::template RunTile<D, kKernel, kStride, 1, false>(d, packed, block, tile);
}

/// Calls with the vector that holds so many channels.
template <typename Element, class Function>
void WithDepthwiseLanes([[maybe_unused]] int64_t lanes, const Function& function) {
  constexpr int64_t kBytes = sizeof(Element);
#if HWY_MAX_BYTES >= 64
  if (lanes * kBytes == 64) return function(hwy::HWY_NAMESPACE::FixedTag<Element, 64 / kBytes>());
#endif
#if HWY_MAX_BYTES >= 32
  if (lanes * kBytes == 32) return function(hwy::HWY_NAMESPACE::FixedTag<Element, 32 / kBytes>());
#endif
  function(hwy::HWY_NAMESPACE::FixedTag<Element, 16 / kBytes>());
}

template <class Kernel, int kKernel, int kStride>
void RunDepthwiseRows(const typename Kernel::Packed& packed, const typename Kernel::Element* x,
                      typename Kernel::Element* y, int64_t first, int64_t last) {
  using Element = typename Kernel::Element;
  const DepthwiseShape& shape = packed.shape;
  const int64_t x_row = shape.width * shape.channels;
  const int64_t y_row = shape.out_width * shape.channels;
  for (int64_t row = first; row < last; ++row) {
    const Element* rows[kKernel];
    for (int k = 0; k < kKernel; ++k) {
      const int64_t at = row * kStride - shape.pad_top + k;
      rows[k] = at >= 0 && at < shape.height ? x + at * x_row : packed.outside.data();
    }
    for (const auto& block : packed.blocks) {
      WithDepthwiseLanes<Element>(block.lanes, [&](auto d) {
        RunDepthwiseRow<Kernel, decltype(d), kKernel, kStride>(d, packed, block, rows,
                                                               y + row * y_row);
      });
    }
  }
}

/// Rows [first, last) of out_height of one image. Requires: IsDepthwiseWindow.
template <class Kernel>
void RunDepthwise(const typename Kernel::Packed& packed, const void* x, void* y, int64_t first,
                  int64_t last) {
  const DepthwiseShape& shape = packed.shape;
  const auto run =
      shape.kernel == 3
          ? (shape.stride == 1 ? RunDepthwiseRows<Kernel, 3, 1> : RunDepthwiseRows<Kernel, 3, 2>)
          : (shape.stride == 1 ? RunDepthwiseRows<Kernel, 5, 1> : RunDepthwiseRows<Kernel, 5, 2>);
  run(packed, static_cast<const typename Kernel::Element*>(x),
      static_cast<typename Kernel::Element*>(y), first, last);
}

inline int64_t DepthwiseVectorBytes() { return std::min<int64_t>(HWY_MAX_BYTES, 64); }

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#endif
