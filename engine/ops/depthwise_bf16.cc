#include "engine/ops/depthwise_bf16.h"

#include <algorithm>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/depthwise_bf16.cc"
// Of use with dot products of BF16 alone: Zen 4 and Sapphire Rapids have them.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include "engine/ops/depthwise_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Two taps of a channel side by side are what one dot product takes. Taps of a column of the kernel are rows of x; interleaving
// two rows of a column of x makes two vectors, each with two taps of half of the channels:
//
//   r0  a0 b0 c0 ...   =>   a0 a1 b0 b1 c0 c1 d0 d1 ... (channels 0-3 of each 8)
//   r1  a1 b1 c1 ...        e0 e1 ...                   (channels 4-7)
//
// A column of x is interleaved once and used by all results of a tile that read it. Storing the sums undoes the order.
template <class DF, class DU>
HWY_INLINE hn::Vec<DF> AddDot(DF df, DU, hn::Vec<DU> a, hn::Vec<DU> b, hn::Vec<DF> sum) {
  const hn::Repartition<hwy::bfloat16_t, DF> dbf;
  const auto x = hn::BitCast(dbf, a);
  const auto y = hn::BitCast(dbf, b);
#if HWY_NATIVE_DOT_BF16
  hn::Vec<DF> unused = hn::Zero(df);
  return hn::ReorderWidenMulAccumulate(df, x, y, sum, unused);
#else
  sum = hn::MulAdd(hn::PromoteEvenTo(df, x), hn::PromoteEvenTo(df, y), sum);
  return hn::MulAdd(hn::PromoteOddTo(df, x), hn::PromoteOddTo(df, y), sum);
#endif
}

/// Rounds the sums of half of the channels each, and stores them in the order of the channels.
template <class DU, class VF>
HWY_INLINE void StoreRounded(DU du, VF lower, VF upper, uint16_t* HWY_RESTRICT y) {
  const hn::Rebind<hwy::bfloat16_t, DU> dbf;
  const hn::Repartition<uint64_t, DU> quads;
  // Four channels are 64 bits, and those of `lower` come first.
  const auto rounded = hn::BitCast(quads, hn::OrderedDemote2To(dbf, lower, upper));
  constexpr size_t kQuads = hn::MaxLanes(quads);
  alignas(64) static constexpr uint64_t kOrder[8] = {0, kQuads / 2,     1, 1 + kQuads / 2,
                                                     2, 2 + kQuads / 2, 3, 3 + kQuads / 2};
  const auto ordered = hn::TableLookupLanes(rounded, hn::SetTableIndices(quads, kOrder));
  hn::StoreU(hn::BitCast(du, ordered), du, y);
}

// 2^f by a polynomial of degree 3 that meets it at four Chebyshev points of [-1/2, 1/2], to a share of 1e-4; the estimate of the
// reciprocal, 2^-14 off, is as good: BF16 rounds by up to 2^-9.
template <class DF, class V = hn::Vec<DF>>
HWY_INLINE V Swish(DF df, float alpha, V v) {
  constexpr float kLog2E = 1.44269504F;
  const hn::RebindToSigned<DF> di;
  // From here on floats are whole: what is added to it is rounded, and stands in its last bits.
  const V whole_floats = hn::Set(df, 0x1.8p23F);
  V t = hn::Mul(v, hn::Set(df, -alpha * kLog2E));
  t = hn::Max(hn::Min(t, hn::Set(df, 126.0F)), hn::Set(df, -126.0F));
  const V shifted = hn::Add(t, whole_floats);
  const V f = hn::Sub(t, hn::Sub(shifted, whole_floats));
  V power = hn::Set(df, 0.0558382829F);
  power = hn::MulAdd(power, f, hn::Set(df, 0.242639479F));
  power = hn::MulAdd(power, f, hn::Set(df, 0.693136734F));
  power = hn::MulAdd(power, f, hn::Set(df, 0.999924557F));
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  const V exp = hn::BitCast(df, hn::Add(hn::BitCast(di, power), exponent));
  return hn::Mul(v, hn::ApproximateReciprocal(hn::Add(hn::Set(df, 1.0F), exp)));
}

template <class DF, class V = hn::Vec<DF>>
HWY_INLINE V HardSwish(DF df, V v) {
  const V share = hn::MulAdd(v, hn::Set(df, 1.0F / 6), hn::Set(df, 0.5F));
  return hn::Mul(v, hn::Min(hn::Max(share, hn::Zero(df)), hn::Set(df, 1.0F)));
}

/// Results whose sums, [results][2 vectors], have a curve to go through.
template <class D>
HWY_NOINLINE void StoreCurve(D d, const DepthwiseActivation& activation, const float* sums,
                             int64_t results, int64_t pixel, uint16_t* y) {
  const hn::Repartition<float, D> df;
  const size_t half = hn::Lanes(df);
  const bool swish = activation.curve == DepthwiseActivation::Curve::kSwish;
  for (int64_t t = 0; t < results; ++t, sums += 2 * half, y += pixel) {
    const auto lower = hn::LoadU(df, sums);
    const auto upper = hn::LoadU(df, sums + half);
    if (swish) {
      StoreRounded(d, Swish(df, activation.alpha, lower), Swish(df, activation.alpha, upper), y);
    } else {
      StoreRounded(d, HardSwish(df, lower), HardSwish(df, upper), y);
    }
  }
}

/// The kernel that walks: depthwise_rows-inl.h.
struct Bf16Taps {
  using Element = uint16_t;
  using Packed = DepthwiseBf16::Packed;
  using Block = DepthwiseBf16::Block;

  template <class D, int kKernel, int kStride, int kTile, bool kInside>
  static HWY_INLINE void RunTile(D d, const Packed& packed, const Block& block,
                                 const DepthwiseTile<Element>& tile) {
    const hn::Repartition<float, D> df;
    using V16 = hn::Vec<D>;
    using VF = hn::Vec<decltype(df)>;
    constexpr int kPairs = (kKernel + 1) / 2;
    constexpr int kColumns = (kTile - 1) * kStride + kKernel;
    const size_t lanes = hn::Lanes(d);
    const size_t half = lanes / 2;
    const int64_t pixel = packed.shape.channels;
    const uint16_t* HWY_RESTRICT weights = block.weights.data();

    VF sums[kTile][2];
    for (int t = 0; t < kTile; ++t) {
      sums[t][0] = hn::LoadU(df, block.bias.data());
      sums[t][1] = hn::LoadU(df, block.bias.data() + half);
    }
#pragma GCC unroll 32
    for (int c = 0; c < kColumns; ++c) {
      const int64_t column = tile.column + c;
      const bool inside = kInside || (column >= 0 && column < packed.shape.width);
#pragma GCC unroll 4
      for (int p = 0; p < kPairs; ++p) {
        const auto row = [&](int r) HWY_ATTR {
          return hn::LoadU(d, inside ? tile.rows[r] + column * pixel : tile.outside);
        };
        const V16 first = row(2 * p);
        const V16 second = 2 * p + 1 < kKernel ? row(2 * p + 1) : hn::Zero(d);
        const V16 lower = hn::InterleaveLower(d, first, second);
        const V16 upper = hn::InterleaveUpper(d, first, second);
#pragma GCC unroll 8
        for (int t = 0; t < kTile; ++t) {
          const int tap = c - t * kStride;
          if (tap < 0 || tap >= kKernel) continue;
          const uint16_t* taps = weights + static_cast<size_t>(tap * kPairs + p) * 2 * lanes;
          sums[t][0] = AddDot(df, d, lower, hn::LoadU(d, taps), sums[t][0]);
          sums[t][1] = AddDot(df, d, upper, hn::LoadU(d, taps + lanes), sums[t][1]);
        }
      }
    }
    const DepthwiseActivation& activation = packed.activation;
    if (activation.curve != DepthwiseActivation::Curve::kBounds) {
      alignas(64) float all[kTile * HWY_MAX_BYTES / 2];
      for (int t = 0; t < kTile; ++t) {
        hn::StoreU(sums[t][0], df, all + static_cast<size_t>(t) * lanes);
        hn::StoreU(sums[t][1], df, all + static_cast<size_t>(t) * lanes + half);
      }
      return StoreCurve(d, activation, all, kTile, pixel, tile.y);
    }
    const VF low = hn::Set(df, activation.low);
    const VF high = hn::Set(df, activation.high);
#pragma GCC unroll 8
    for (int t = 0; t < kTile; ++t) {
      // Of a NaN and a number, x86 takes the second operand.
      const VF lower = hn::Min(high, hn::Max(low, sums[t][0]));
      const VF upper = hn::Min(high, hn::Max(low, sums[t][1]));
      StoreRounded(d, lower, upper, tile.y + t * pixel);
    }
  }
};

void RunBf16(const DepthwiseBf16::Packed& packed, const void* x, void* y, int64_t first,
             int64_t last) {
  RunDepthwise<Bf16Taps>(packed, x, y, first, last);
}

int64_t Bf16VectorBytes() { return DepthwiseVectorBytes(); }

bool HasBf16Dots() { return HWY_NATIVE_DOT_BF16 != 0; }

const char* Bf16Target() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {

HWY_EXPORT(RunBf16);
HWY_EXPORT(Bf16VectorBytes);
HWY_EXPORT(HasBf16Dots);
HWY_EXPORT(Bf16Target);

/// Where in the two vectors of 32-bit numbers a block's channel is: see AddDot.
size_t PlaceOf(int64_t channel, int64_t lanes) {
  return static_cast<size_t>(channel % 8 / 4 * (lanes / 2) + channel / 8 * 4 + channel % 4);
}

}  // namespace

bool DepthwiseBf16::Covers(const DepthwiseShape& shape) {
  return IsDepthwiseWindow<uint16_t>(shape) && HWY_DYNAMIC_DISPATCH(HasBf16Dots)();
}

const char* DepthwiseBf16::TargetName() { return HWY_DYNAMIC_DISPATCH(Bf16Target)(); }

DepthwiseBf16::DepthwiseBf16(const DepthwiseShape& shape, const DepthwiseActivation& activation,
                             std::span<const BFloat16> weights, std::span<const float> bias)
    : packed_{shape, activation, {}, {}} {
  const int64_t pairs = (shape.kernel + 1) / 2;
  for (const DepthwiseChannels& run :
       CutDepthwiseChannels<uint16_t>(shape.channels, HWY_DYNAMIC_DISPATCH(Bf16VectorBytes)())) {
    Block& block = packed_.blocks.emplace_back(run);
    const auto lanes = static_cast<size_t>(block.lanes);
    block.weights.resize(static_cast<size_t>(shape.kernel * pairs) * 2 * lanes);
    block.bias.resize(lanes);
    for (int64_t i = 0; i < block.lanes; ++i) {
      const size_t at = PlaceOf(i, block.lanes);
      const int64_t channel = block.first + i;
      block.bias[at] = bias[static_cast<size_t>(channel)];
      for (int64_t row = 0; row < shape.kernel; ++row) {
        for (int64_t column = 0; column < shape.kernel; ++column) {
          const auto tap = (channel * shape.kernel + row) * shape.kernel + column;
          const auto vectors = static_cast<size_t>(column * pairs + row / 2);
          block.weights[vectors * 2 * lanes + 2 * at + static_cast<size_t>(row % 2)] =
              weights[static_cast<size_t>(tap)].bits;
        }
      }
    }
  }
  packed_.outside.assign(static_cast<size_t>(shape.width * shape.channels), 0);
}

void DepthwiseBf16::Run(const void* x, void* y, int64_t first, int64_t last) const {
  HWY_DYNAMIC_DISPATCH(RunBf16)(packed_, x, y, first, last);
}

}  // namespace octet

#endif  // HWY_ONCE
