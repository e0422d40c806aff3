#include "engine/ops/quantize_reals.h"

#include <algorithm>
#include <limits>
#include <mutex>

#include "engine/tensor/parallel.h"

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/quantize_reals.cc"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using FloatVec = hn::Vec<Floats>;
using Ints = hn::RebindToSigned<Floats>;

// Calls visit(at) for vectors that cover [0, count); the last one overlaps the one before. False where there is not one vector of it.
template <class Visit>
HWY_INLINE bool ForVectors(int64_t count, const Visit& visit) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  if (count < lanes) return false;
  for (int64_t i = 0; i < count; i += lanes) visit(std::min(i, count - lanes));
  return true;
}

// The range of what is finite throughout; false where it is not, or fills no vector.
bool RunRange(const float* x, int64_t count, float* min, float* max) {
  const Floats d;
  const Ints bits;
  FloatVec low = hn::Set(d, std::numeric_limits<float>::infinity());
  FloatVec high = hn::Neg(low);
  auto largest = hn::Zero(bits);
  const bool any = ForVectors(count, [&](int64_t at) HWY_ATTR {
    const FloatVec v = hn::LoadU(d, x + at);
    low = hn::Min(low, v);
    high = hn::Max(high, v);
    largest = hn::Max(largest, hn::BitCast(bits, hn::Abs(v)));
  });
  // NaN and infinity have the largest exponent, whatever Min and Max make of them.
  constexpr int32_t kInfinityBits = 0x7f800000;
  if (!any || hn::ReduceMax(bits, largest) >= kInfinityBits) return false;
  *min = hn::ReduceMin(d, low);
  *max = hn::ReduceMax(d, high);
  return true;
}

bool RunQuantize(const float* x, int64_t count, float scale, int32_t zero_point, uint8_t* y) {
  const Floats d;
  const hn::Rebind<uint8_t, Floats> d8;
  const FloatVec step = hn::Set(d, scale);
  [[maybe_unused]] const FloatVec inverse = hn::Set(d, 1.0F / scale);
  const auto zero = hn::Set(Ints(), zero_point);
  return ForVectors(count, [&](int64_t at) HWY_ATTR {
    const FloatVec v = hn::LoadU(d, x + at);
#if HWY_NATIVE_FMA
    const FloatVec near = hn::Mul(v, inverse);
    const FloatVec steps = hn::MulAdd(hn::NegMulAdd(near, step, v), inverse, near);
#else
    const FloatVec steps = hn::Div(v, step);
#endif
    hn::StoreU(hn::DemoteTo(d8, hn::Add(hn::NearestInt(steps), zero)), d8, y + at);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {
HWY_EXPORT(RunRange);
HWY_EXPORT(RunQuantize);

/// Elements that a thread takes at least.
constexpr int64_t kGrain = int64_t{64} * 1024;

// Where the remainder of a division cannot vanish below the smallest normal number, nor the reciprocal.
bool DividesExactly(float scale) { return scale > 1e-30F && scale < 1e30F; }

MinMax RangeOfPart(const float* x, int64_t count) {
  MinMax range;
  if (HWY_DYNAMIC_DISPATCH(RunRange)(x, count, &range.min, &range.max)) return range;
  return FindMinMax({x, {DType::kF32, Shape{count}}});
}

void QuantizePart(const float* x, int64_t count, const DynamicScale& grid, bool fast, uint8_t* y) {
  if (fast && HWY_DYNAMIC_DISPATCH(RunQuantize)(x, count, grid.scale, grid.zero_point, y)) return;
  QuantizeTensor({x, {DType::kF32, Shape{count}}},
                 QuantParams::PerTensor(grid.scale, grid.zero_point),
                 {y, {DType::kU8, Shape{count}}});
}

}  // namespace

MinMax RangeOfReals(const float* x, int64_t count) {
  if (count < 2 * kGrain) return RangeOfPart(x, count);
  MinMax all{std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), true};
  std::mutex mutex;
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
    const MinMax part = RangeOfPart(x + begin, end - begin);
    const std::scoped_lock lock(mutex);
    all.min = std::min(all.min, part.min);
    all.max = std::max(all.max, part.max);
    all.finite &= part.finite;
  });
  return all;
}

void QuantizeReals(const float* x, int64_t count, const MinMax& range, const DynamicScale& grid,
                   uint8_t* y) {
  const bool fast = range.finite && DividesExactly(grid.scale);
  ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
    QuantizePart(x + begin, end - begin, grid, fast, y + begin);
  });
}

DynamicScale QuantizeToOwnRange(const float* x, int64_t count, uint8_t* y, bool never_negative) {
  MinMax range = RangeOfReals(x, count);
  if (never_negative) range.min = std::max(range.min, 0.0F);  // A pool's empty window may be.
  const DynamicScale grid = DynamicScaleOf(range);
  QuantizeReals(x, count, range, grid, y);
  return grid;
}

}  // namespace octet

#endif
