#include "engine/ops/bf16_rows.h"

#include <algorithm>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/bf16_rows.cc"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Narrow = hn::ScalableTag<hwy::bfloat16_t>;
using Wide = hn::Repartition<float, Narrow>;
using NarrowVec = hn::Vec<Narrow>;
using WideVec = hn::Vec<Wide>;

inline const hwy::bfloat16_t* Raw(const BFloat16* x) {
  return reinterpret_cast<const hwy::bfloat16_t*>(x);
}
inline hwy::bfloat16_t* Raw(BFloat16* y) { return reinterpret_cast<hwy::bfloat16_t*>(y); }

/// Factors, or addends, of the channels of one vector of BF16.
struct Pair {
  HWY_INLINE Pair(const float* from, size_t n) {
    const Wide d;
    const size_t half = hn::Lanes(d);
    lower = hn::LoadN(d, from, n);
    upper = hn::LoadN(d, from + std::min(n, half), n - std::min(n, half));
  }
  WideVec lower;
  WideVec upper;
};

void AffineBf16Rows(const Bf16Rows& rows, float low, float high) {
  const Narrow d;
  const Wide wide;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const WideVec least = hn::Set(wide, low);
  const WideVec most = hn::Set(wide, high);
  for (int64_t done = 0; done < rows.n; done += lanes) {
    const auto n = static_cast<size_t>(std::min(lanes, rows.n - done));
    const Pair factor(rows.factor + done, n);
    const Pair addend(rows.addend + done, n);
    const auto result = [&](NarrowVec x) HWY_ATTR {
      const WideVec lower = hn::MulAdd(hn::PromoteLowerTo(wide, x), factor.lower, addend.lower);
      const WideVec upper = hn::MulAdd(hn::PromoteUpperTo(wide, x), factor.upper, addend.upper);
      // Of a NaN and a number, x86 takes the second operand.
      return hn::OrderedDemote2To(d, hn::Min(most, hn::Max(least, lower)),
                                  hn::Min(most, hn::Max(least, upper)));
    };
    const hwy::bfloat16_t* x = Raw(rows.x) + done;
    hwy::bfloat16_t* y = Raw(rows.y) + done;
    if (n == hn::Lanes(d)) {
      for (int64_t row = 0; row < rows.rows; ++row)
        hn::StoreU(result(hn::LoadU(d, x + row * rows.x_step)), d, y + row * rows.y_step);
    } else {
      for (int64_t row = 0; row < rows.rows; ++row)
        hn::StoreN(result(hn::LoadN(d, x + row * rows.x_step, n)), d, y + row * rows.y_step, n);
    }
  }
}

void ScaleBf16Run(const BFloat16* x, const float* factor, BFloat16* y, int64_t n) {
  const Narrow d;
  const Wide wide;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto scaled = [&](NarrowVec values, const Pair& by) HWY_ATTR {
    return hn::OrderedDemote2To(d, hn::Mul(hn::PromoteLowerTo(wide, values), by.lower),
                                hn::Mul(hn::PromoteUpperTo(wide, values), by.upper));
  };
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const Pair by(factor + i, hn::Lanes(d));
    hn::StoreU(scaled(hn::LoadU(d, Raw(x) + i), by), d, Raw(y) + i);
  }
  if (i == n) return;
  const auto left = static_cast<size_t>(n - i);
  const Pair by(factor + i, left);
  hn::StoreN(scaled(hn::LoadN(d, Raw(x) + i, left), by), d, Raw(y) + i, left);
}

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {

HWY_EXPORT(AffineBf16Rows);
HWY_EXPORT(ScaleBf16Run);

}  // namespace

void AffineBf16(const Bf16Rows& rows, float low, float high) {
  HWY_DYNAMIC_DISPATCH(AffineBf16Rows)(rows, low, high);
}

void ScaleBf16(const BFloat16* x, const float* factor, BFloat16* y, int64_t n) {
  HWY_DYNAMIC_DISPATCH(ScaleBf16Run)(x, factor, y, n);
}

}  // namespace octet

#endif  // HWY_ONCE
