#include "engine/ops/gemv.h"

#include <algorithm>
#include <cstring>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/gemv.cc"
#define HWY_WANT_AVX3_DL 1  // Which has 8-bit dot products (VNNI).
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
// Sums of 16 columns, or of as many as a vector holds.
using Floats = hn::CappedTag<float, 16>;
using Ints = hn::Rebind<int32_t, Floats>;
using FloatVec = hn::Vec<Floats>;
using IntVec = hn::Vec<Ints>;

constexpr int64_t kMostVectors = 4;  // Of columns that are multiplied at once.

// Calls visit.operator()<vectors>(panel, first column, columns) for runs of columns that cover panels [first, last).
template <class Visit>
HWY_INLINE void ForColumns(const PanelLayout& layout, int64_t first, int64_t last,
                           const Visit& visit) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  for (int64_t panel = first; panel < last; ++panel) {
    for (int64_t within = 0; within < layout.width && panel * layout.width + within < layout.n;) {
      const int64_t vectors = std::min(kMostVectors, (layout.width - within) / lanes);
      const int64_t column = panel * layout.width + within;
      const int64_t at = panel * layout.pitch + within * layout.group;
      const int64_t count = std::min(vectors * lanes, layout.n - column);
      switch (vectors) {
        case 1:
          visit.template operator()<1>(at, column, count);
          break;
        case 2:
          visit.template operator()<2>(at, column, count);
          break;
        case 3:
          visit.template operator()<3>(at, column, count);
          break;
        default:
          visit.template operator()<4>(at, column, count);
      }
      within += vectors * lanes;
    }
  }
}

// kParts sums per column keep the multipliers busy while one addition waits for the one before.
template <int kVectors>
constexpr int kParts = kVectors > 2 ? 2 : 4;

template <int kVectors>
HWY_INLINE void MultiplyFloats(const PanelLayout& layout, const float* HWY_RESTRICT b,
                               const float* HWY_RESTRICT x, FloatVec* HWY_RESTRICT sums) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kSums = kParts<kVectors>;
  FloatVec parts[kSums][kVectors];
  for (auto& part : parts) {
    for (auto& sum : part) sum = hn::Zero(d);
  }
  int64_t k = 0;
  for (; k + kSums <= layout.k; k += kSums) {
#pragma GCC unroll 4
    for (int p = 0; p < kSums; ++p) {
      const FloatVec value = hn::Set(d, x[k + p]);
      const float* row = b + (k + p) * layout.width;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        parts[p][v] = hn::MulAdd(value, hn::LoadU(d, row + v * lanes), parts[p][v]);
    }
  }
  for (; k < layout.k; ++k) {
    const FloatVec value = hn::Set(d, x[k]);
    const float* row = b + k * layout.width;
    for (int v = 0; v < kVectors; ++v)
      parts[0][v] = hn::MulAdd(value, hn::LoadU(d, row + v * lanes), parts[0][v]);
  }
  for (int v = 0; v < kVectors; ++v) {
    sums[v] = parts[0][v];
    for (int p = 1; p < kSums; ++p) sums[v] = hn::Add(sums[v], parts[p][v]);
  }
}

// Sums of products of bfloat16, each of which is exact in FP32. One vector of B holds two rows of 16 columns; `x` is read in
// pairs, too, and a last one without its second element goes with a row of zeros.
template <int kVectors>
HWY_INLINE void MultiplyBFloats(const PanelLayout& layout, const uint16_t* HWY_RESTRICT b,
                                const uint16_t* HWY_RESTRICT x, FloatVec* HWY_RESTRICT sums) {
  const Floats d;
  const hn::Rebind<uint32_t, Floats> bits;
  const hn::Repartition<uint16_t, Floats> halves;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto upper = hn::Set(bits, 0xFFFF0000U);
  constexpr int kSums = kParts<kVectors>;
  FloatVec parts[kSums][kVectors];
  for (auto& part : parts) {
    for (auto& sum : part) sum = hn::Zero(d);
  }
  const auto add = [&](FloatVec* part, int64_t k, uint32_t first, uint32_t second) HWY_ATTR {
    const FloatVec even = hn::BitCast(d, hn::Set(bits, first << 16));
    const FloatVec odd = hn::BitCast(d, hn::Set(bits, second << 16));
    const uint16_t* row = b + k * layout.width;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const auto pair = hn::BitCast(bits, hn::LoadU(halves, row + v * lanes * 2));
      part[v] = hn::MulAdd(even, hn::BitCast(d, hn::ShiftLeft<16>(pair)), part[v]);
      part[v] = hn::MulAdd(odd, hn::BitCast(d, hn::And(pair, upper)), part[v]);
    }
  };
  constexpr int64_t kStep = int64_t{2} * kSums;
  int64_t k = 0;
  for (; k + kStep <= layout.k; k += kStep) {
#pragma GCC unroll 4
    for (int64_t p = 0; p < kSums; ++p) add(parts[p], k + 2 * p, x[k + 2 * p], x[k + 2 * p + 1]);
  }
  for (; k < layout.k; k += 2) add(parts[0], k, x[k], k + 1 < layout.k ? x[k + 1] : uint16_t{0});
  for (int v = 0; v < kVectors; ++v) {
    sums[v] = parts[0][v];
    for (int p = 1; p < kSums; ++p) sums[v] = hn::Add(sums[v], parts[p][v]);
  }
}

// Stores the sums that `multiply` makes, and the bias with them.
template <class T, class Multiply>
HWY_INLINE void RunReals(const PanelLayout& layout, const T* panels, const float* bias, float* y,
                         int64_t first, int64_t last, const Multiply& multiply) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  ForColumns(layout, first, last,
             [&]<int kVectors>(int64_t at, int64_t column, int64_t count) HWY_ATTR {
               FloatVec sums[kVectors];
               multiply.template operator()<kVectors>(panels + at, sums);
               for (int v = 0; v < kVectors && v * lanes < count; ++v) {
                 const auto left = static_cast<size_t>(std::min(lanes, count - v * lanes));
                 if (bias != nullptr)
                   sums[v] = hn::Add(sums[v], hn::LoadN(d, bias + column + v * lanes, left));
                 hn::StoreN(sums[v], d, y + column + v * lanes, left);
               }
             });
}

void RunGemv(const PanelLayout& layout, const float* panels, const float* x, const float* bias,
             float* y, int64_t first, int64_t last) {
  RunReals(layout, panels, bias, y, first, last,
           [&]<int kVectors>(const float* b, FloatVec* sums)
               HWY_ATTR { MultiplyFloats<kVectors>(layout, b, x, sums); });
}

void RunGemvBFloat16(const PanelLayout& layout, const uint16_t* panels, const uint16_t* x,
                     const float* bias, float* y, int64_t first, int64_t last) {
  RunReals(layout, panels, bias, y, first, last,
           [&]<int kVectors>(const uint16_t* b, FloatVec* sums)
               HWY_ATTR { MultiplyBFloats<kVectors>(layout, b, x, sums); });
}

// Four elements of x, as every lane wants them.
HWY_INLINE int32_t FourOf(const uint8_t* x, int64_t count) {
  int32_t four = 0;
  std::memcpy(&four, x, static_cast<size_t>(count));
  return four;
}

template <int kVectors>
HWY_INLINE void MultiplyBytes(const PanelLayout& layout, const int8_t* HWY_RESTRICT b,
                              const uint8_t* HWY_RESTRICT x, int32_t flip,
                              IntVec* HWY_RESTRICT sums) {
  const Ints d;
  const hn::Repartition<int8_t, Ints> d8;
  const hn::Repartition<uint8_t, Ints> du8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kSums = kParts<kVectors>;
  IntVec parts[kSums][kVectors];
  for (int p = 0; p < kSums; ++p) {
    for (int v = 0; v < kVectors; ++v) parts[p][v] = p == 0 ? sums[v] : hn::Zero(d);
  }
  const auto add = [&](IntVec* part, int64_t k, int32_t four) HWY_ATTR {
    const auto value = hn::BitCast(du8, hn::Set(d, four ^ flip));
    const int8_t* row = b + k * layout.width;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      part[v] = hn::SumOfMulQuadAccumulate(d, value, hn::LoadU(d8, row + v * lanes * 4), part[v]);
    }
  };
  constexpr int64_t kStep = int64_t{4} * kSums;
  int64_t k = 0;
  for (; k + kStep <= layout.k; k += kStep) {
#pragma GCC unroll 4
    for (int64_t p = 0; p < kSums; ++p) add(parts[p], k + 4 * p, FourOf(x + k + 4 * p, 4));
  }
  for (; k < layout.k; k += 4) add(parts[0], k, FourOf(x + k, std::min<int64_t>(4, layout.k - k)));
  for (int v = 0; v < kVectors; ++v) {
    sums[v] = parts[0][v];
    for (int p = 1; p < kSums; ++p) sums[v] = hn::Add(sums[v], parts[p][v]);
  }
}

// Calls store(sums, column, columns) for the sums of each vector of columns.
template <class Store>
HWY_INLINE void ForByteSums(const PanelLayout& layout, const int8_t* panels, bool x_signed,
                            const int32_t* compensation, const uint8_t* x, int64_t first,
                            int64_t last, const Store& store) {
  const Ints d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int32_t x_flip = x_signed ? static_cast<int32_t>(0x80808080) : 0;
  ForColumns(layout, first, last,
             [&]<int kVectors>(int64_t at, int64_t column, int64_t count) HWY_ATTR {
               IntVec sums[kVectors];
               for (int v = 0; v < kVectors; ++v)
                 sums[v] = hn::LoadU(d, compensation + column + v * lanes);
               MultiplyBytes<kVectors>(layout, panels + at, x, x_flip, sums);
               for (int v = 0; v < kVectors && v * lanes < count; ++v) {
                 store(sums[v], column + v * lanes,
                       static_cast<size_t>(std::min(lanes, count - v * lanes)));
               }
             });
}

void RunGemvInt8(const PanelLayout& layout, const int8_t* panels, const Int8Numbers& numbers,
                 const GemvColumns& columns, const uint8_t* x, uint8_t* y, int64_t first,
                 int64_t last) {
  const Ints d;
  const Floats df;
  const hn::Rebind<uint8_t, Ints> d8;
  // Signed results are stored as they would be with 128 added, and turned back.
  const int32_t y_flip = numbers.y_signed ? 128 : 0;
  const IntVec zero = hn::Set(d, numbers.y_zero + y_flip);
  const IntVec low = hn::Set(d, numbers.low + y_flip);
  const IntVec high = hn::Set(d, numbers.high + y_flip);
  const auto turn = hn::Set(d8, static_cast<uint8_t>(y_flip));
  ForByteSums(layout, panels, numbers.x_signed, columns.compensation, x, first, last,
              [&](IntVec sums, int64_t column, size_t count) HWY_ATTR {
                const FloatVec biased =
                    hn::Add(hn::ConvertTo(df, sums), hn::LoadU(df, columns.bias + column));
                const IntVec steps =
                    hn::NearestInt(hn::Mul(biased, hn::LoadU(df, columns.factor + column)));
                // Near the ends of int32 the zero point could wrap around.
                const IntVec near =
                    hn::Min(hn::Max(steps, hn::Set(d, -100000)), hn::Set(d, 100000));
                const IntVec stored = hn::Min(hn::Max(hn::Add(near, zero), low), high);
                hn::StoreN(hn::Xor(hn::DemoteTo(d8, stored), turn), d8, y + column, count);
              });
}

void RunGemvInt8ToReals(const PanelLayout& layout, const int8_t* panels, const Int8Numbers& numbers,
                        const GemvColumns& columns, const uint8_t* x, float* y, int64_t first,
                        int64_t last) {
  const Floats df;
  ForByteSums(layout, panels, numbers.x_signed, columns.compensation, x, first, last,
              [&](IntVec sums, int64_t column, size_t count) HWY_ATTR {
                const FloatVec reals =
                    hn::MulAdd(hn::ConvertTo(df, sums), hn::LoadU(df, columns.factor + column),
                               hn::LoadU(df, columns.bias + column));
                hn::StoreN(reals, df, y + column, count);
              });
}

const char* TargetOfGemv() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {
HWY_EXPORT(RunGemv);
HWY_EXPORT(RunGemvBFloat16);
HWY_EXPORT(RunGemvInt8);
HWY_EXPORT(RunGemvInt8ToReals);
HWY_EXPORT(TargetOfGemv);
}  // namespace

void Gemv(const PanelLayout& layout, const float* panels, const float* x, const float* bias,
          float* y, int64_t first, int64_t last) {
  HWY_DYNAMIC_DISPATCH(RunGemv)(layout, panels, x, bias, y, first, last);
}

void GemvBFloat16(const PanelLayout& layout, const BFloat16* panels, const BFloat16* x,
                  const float* bias, float* y, int64_t first, int64_t last) {
  // What a kernel loads is not of a class.
  static_assert(sizeof(BFloat16) == sizeof(uint16_t));
  HWY_DYNAMIC_DISPATCH(RunGemvBFloat16)
  (layout, reinterpret_cast<const uint16_t*>(panels), reinterpret_cast<const uint16_t*>(x), bias, y,
   first, last);
}

void GemvInt8(const PanelLayout& layout, const int8_t* panels, const Int8Numbers& numbers,
              const GemvColumns& columns, const uint8_t* x, uint8_t* y, int64_t first,
              int64_t last) {
  HWY_DYNAMIC_DISPATCH(RunGemvInt8)(layout, panels, numbers, columns, x, y, first, last);
}

void GemvInt8ToReals(const PanelLayout& layout, const int8_t* panels, const Int8Numbers& numbers,
                     const GemvColumns& columns, const uint8_t* x, float* y, int64_t first,
                     int64_t last) {
  HWY_DYNAMIC_DISPATCH(RunGemvInt8ToReals)(layout, panels, numbers, columns, x, y, first, last);
}

const char* GemvTarget() { return HWY_DYNAMIC_DISPATCH(TargetOfGemv)(); }

}  // namespace octet

#endif
