#include "engine/ops/depthwise_int8.h"

#include <algorithm>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/depthwise_int8.cc"
#define HWY_WANT_AVX3_DL 1  // Which has 8-bit dot products (VNNI), on Zen 4 and later, too.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include "engine/ops/depthwise_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Four taps of a channel side by side are what one 8-bit dot product takes. Taps of a column of the kernel are rows of
// x; interleaving four rows of a column of x makes four vectors, each with four taps of a quarter of the channels:
//
//   r0  a0 b0 c0 ...        a0 a1 a2 a3 b0 b1 b2 b3 ... (channels 0-3 of each 16)
//   r1  a1 b1 c1 ...   =>   e0 e1 e2 e3 ...             (channels 4-7)
//   r2  a2 b2 c2 ...        ...
//   r3  a3 b3 c3 ...        ...
//
// A column of x is interleaved once and used by all results of a tile that read it. Packing sums to bytes undoes the order.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void Interleave(D d, const V* HWY_RESTRICT rows, V* HWY_RESTRICT quads) {
  const hn::RepartitionToWide<D> d16;
  const auto low = hn::BitCast(d16, hn::InterleaveLower(d, rows[0], rows[1]));
  const auto high = hn::BitCast(d16, hn::InterleaveUpper(d, rows[0], rows[1]));
  const auto low2 = hn::BitCast(d16, hn::InterleaveLower(d, rows[2], rows[3]));
  const auto high2 = hn::BitCast(d16, hn::InterleaveUpper(d, rows[2], rows[3]));
  quads[0] = hn::BitCast(d, hn::InterleaveLower(d16, low, low2));
  quads[1] = hn::BitCast(d, hn::InterleaveUpper(d16, low, low2));
  quads[2] = hn::BitCast(d, hn::InterleaveLower(d16, high, high2));
  quads[3] = hn::BitCast(d, hn::InterleaveUpper(d16, high, high2));
}

/// The kernel that walks: depthwise_rows-inl.h.
struct Int8Taps {
  using Element = uint8_t;
  using Packed = DepthwiseInt8::Packed;
  using Block = DepthwiseInt8::Block;

  template <class D, int kKernel, int kStride, int kTile, bool kInside>
  static HWY_INLINE void RunTile(D d, const Packed& packed, const Block& block,
                                 const DepthwiseTile<Element>& tile) {
    using V8 = hn::Vec<D>;
    const hn::Repartition<int8_t, D> di8;
    const hn::Repartition<int16_t, D> d16;
    const hn::Repartition<int32_t, D> d32;
    const hn::Repartition<float, D> df;
    using V32 = hn::Vec<decltype(d32)>;
    constexpr int kQuads = (kKernel + 3) / 4;
    constexpr int kColumns = (kTile - 1) * kStride + kKernel;
    const size_t lanes = hn::Lanes(d);
    const size_t quarter = lanes / 4;
    const Int8Numbers& numbers = packed.numbers;
    const int64_t pixel = packed.shape.channels;
    const V8 x_flip = hn::Set(d, numbers.x_signed ? uint8_t{0x80} : uint8_t{0});
    const int8_t* HWY_RESTRICT weights = block.weights.data();

    V32 sums[kTile][4];
    for (int t = 0; t < kTile; ++t) {
      for (size_t j = 0; j < 4; ++j)
        sums[t][j] = hn::LoadU(d32, block.compensation.data() + j * quarter);
    }
#pragma GCC unroll 32
    for (int c = 0; c < kColumns; ++c) {
      const int64_t column = tile.column + c;
      const bool inside = kInside || (column >= 0 && column < packed.shape.width);
#pragma GCC unroll 2
      for (int q = 0; q < kQuads; ++q) {
        V8 rows[4];
        V8 quads[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          const int row = 4 * q + r;
          rows[r] =
              row < kKernel
                  ? hn::Xor(hn::LoadU(d, inside ? tile.rows[row] + column * pixel : tile.outside),
                            x_flip)
                  : hn::Zero(d);
        }
        Interleave(d, rows, quads);
#pragma GCC unroll 8
        for (int t = 0; t < kTile; ++t) {
          const int tap = c - t * kStride;
          if (tap < 0 || tap >= kKernel) continue;
          const int8_t* taps = weights + static_cast<size_t>(tap * kQuads + q) * 4 * lanes;
#pragma GCC unroll 4
          for (size_t j = 0; j < 4; ++j) {
            sums[t][j] = hn::SumOfMulQuadAccumulate(d32, quads[j], hn::LoadU(di8, taps + j * lanes),
                                                    sums[t][j]);
          }
        }
      }
    }
    const int32_t flip = numbers.y_signed ? 128 : 0;
    const auto zero = hn::Set(d16, static_cast<int16_t>(numbers.y_zero + flip));
    const V8 low = hn::Set(d, static_cast<uint8_t>(numbers.low + flip));
    const V8 high = hn::Set(d, static_cast<uint8_t>(numbers.high + flip));
    const V8 y_flip = hn::Set(d, static_cast<uint8_t>(flip));
#pragma GCC unroll 8
    for (int t = 0; t < kTile; ++t) {
      V32 steps[4];
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; ++j) {
        const auto biased =
            hn::Add(hn::ConvertTo(df, sums[t][j]), hn::LoadU(df, block.bias.data() + j * quarter));
        steps[j] =
            hn::NearestInt(hn::Mul(biased, hn::LoadU(df, block.factor.data() + j * quarter)));
      }
      const auto lower = hn::SaturatedAdd(hn::ReorderDemote2To(d16, steps[0], steps[1]), zero);
      const auto upper = hn::SaturatedAdd(hn::ReorderDemote2To(d16, steps[2], steps[3]), zero);
      const V8 y = hn::Min(hn::Max(hn::ReorderDemote2To(d, lower, upper), low), high);
      hn::StoreU(hn::Xor(y, y_flip), d, tile.y + t * pixel);
    }
  }
};

// `taps` [kernel * kernel, channels].
template <class D>
void PackWeights(D d, const std::vector<int8_t>& taps, const DepthwiseShape& shape,
                 DepthwiseInt8::Block& block) {
  const int64_t quads_per_column = (shape.kernel + 3) / 4;
  for (int64_t column = 0; column < shape.kernel; ++column) {
    for (int64_t q = 0; q < quads_per_column; ++q) {
      hn::Vec<D> rows[4];
      hn::Vec<D> quads[4];
      for (int64_t r = 0; r < 4; ++r) {
        const int64_t row = 4 * q + r;
        const int8_t* from =
            taps.data() + (row * shape.kernel + column) * shape.channels + block.first;
        rows[r] =
            row < shape.kernel ? hn::LoadU(d, reinterpret_cast<const uint8_t*>(from)) : hn::Zero(d);
      }
      Interleave(d, rows, quads);
      for (const auto& quad : quads) {
        const size_t at = block.weights.size();
        block.weights.resize(at + hn::Lanes(d));
        hn::StoreU(quad, d, reinterpret_cast<uint8_t*>(block.weights.data() + at));
      }
    }
  }
}

void PackBlock(const std::vector<int8_t>& taps, const DepthwiseShape& shape,
               DepthwiseInt8::Block& block) {
  WithDepthwiseLanes<uint8_t>(block.lanes, [&](auto d) { PackWeights(d, taps, shape, block); });
}

void RunInt8(const DepthwiseInt8::Packed& packed, const void* x, void* y, int64_t first,
             int64_t last) {
  RunDepthwise<Int8Taps>(packed, x, y, first, last);
}

int64_t Int8VectorBytes() { return DepthwiseVectorBytes(); }

const char* Target() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {

HWY_EXPORT(RunInt8);
HWY_EXPORT(PackBlock);
HWY_EXPORT(Int8VectorBytes);
HWY_EXPORT(Target);

/// Where in the vectors of 32-bit numbers a block's channel is: see Interleave.
size_t PlaceOf(int64_t channel, int64_t lanes) {
  const int64_t vector = channel % 16 / 4;
  return static_cast<size_t>(vector * (lanes / 4) + channel / 16 * 4 + channel % 4);
}

}  // namespace

bool DepthwiseInt8::Covers(const DepthwiseShape& shape) {
  return IsDepthwiseWindow<uint8_t>(shape);
}

const char* DepthwiseInt8::TargetName() { return HWY_DYNAMIC_DISPATCH(Target)(); }

DepthwiseInt8::DepthwiseInt8(const DepthwiseShape& shape, const Int8Numbers& numbers,
                             std::span<const int8_t> weights, std::span<const float> bias,
                             std::span<const float> factor)
    : packed_{shape, numbers, {}, {}} {
  const auto taps = static_cast<size_t>(shape.kernel * shape.kernel);
  const auto channels = static_cast<size_t>(shape.channels);
  std::vector<int8_t> by_tap(taps * channels);
  std::vector<int32_t> sums(channels, 0);
  for (size_t c = 0; c < channels; ++c) {
    for (size_t t = 0; t < taps; ++t) {
      by_tap[t * channels + c] = weights[c * taps + t];
      sums[c] += weights[c * taps + t];
    }
  }
  // Signed elements are moved up by 128, their zero point alike.
  const int32_t x_zero = numbers.x_zero + (numbers.x_signed ? 128 : 0);
  for (const DepthwiseChannels& run :
       CutDepthwiseChannels<uint8_t>(shape.channels, HWY_DYNAMIC_DISPATCH(Int8VectorBytes)())) {
    Block& block = packed_.blocks.emplace_back(run);
    HWY_DYNAMIC_DISPATCH(PackBlock)(by_tap, shape, block);
    const auto lanes = static_cast<size_t>(block.lanes);
    block.compensation.resize(lanes);
    block.bias.resize(lanes);
    block.factor.resize(lanes);
    for (int64_t i = 0; i < block.lanes; ++i) {
      const size_t at = PlaceOf(i, block.lanes);
      const auto c = static_cast<size_t>(block.first + i);
      block.compensation[at] = -x_zero * sums[c];
      block.bias[at] = bias[c];
      block.factor[at] = factor[c];
    }
  }
  packed_.outside.assign(static_cast<size_t>(shape.width) * channels,
                         static_cast<uint8_t>(numbers.x_zero));
}

void DepthwiseInt8::Run(const void* x, void* y, int64_t first, int64_t last) const {
  HWY_DYNAMIC_DISPATCH(RunInt8)(packed_, x, y, first, last);
}

}  // namespace octet

#endif  // HWY_ONCE
