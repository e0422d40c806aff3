#include "engine/ops/attention_rows.h"

#include <algorithm>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/attention_rows.cc"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::CappedTag<float, 16>;
using FloatVec = hn::Vec<Floats>;

// A tile has kRows queries, and kKeys keys, or kVectors vectors of values: as many sums as registers hold.
constexpr int kRows = 4;
constexpr int kKeys = 4;
constexpr int kVectors = HWY_MAX_BYTES >= 64 ? 4 : 2;

// The sum of the blocks of 128 bits, in one of them.
template <class D>
HWY_INLINE auto SumBlocks(D /*d*/, hn::Vec<D> v) {
  if constexpr (HWY_MAX_LANES_D(D) > 4) {
    const hn::Half<D> half;
    return SumBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    return v;
  }
}

// to[i] = the sum of the lanes of sums[i], for four at once.
HWY_INLINE void StoreSums(const FloatVec* HWY_RESTRICT sums, float* HWY_RESTRICT to) {
  const Floats d;
  const hn::Repartition<double, Floats> pairs;
  const auto folded = [&](FloatVec a, FloatVec b) HWY_ATTR {
    return hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  };
  const auto first = folded(sums[0], sums[1]);
  const auto second = folded(sums[2], sums[3]);
  const FloatVec four = hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, first, second)),
                                hn::BitCast(d, hn::InterleaveUpper(pairs, first, second)));
  hn::StoreU(SumBlocks(d, four), hn::CappedTag<float, 4>(), to);
}

// Each of kTileRows queries with each of kTileKeys keys.
template <int kTileRows, int kTileKeys>
HWY_INLINE void ScoreTile(const float* HWY_RESTRICT q, int64_t q_stride,
                          const float* HWY_RESTRICT k, int64_t width, float* HWY_RESTRICT scores,
                          int64_t score_stride) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVec sums[kTileRows][kTileKeys];
#pragma GCC unroll 4
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < kTileKeys; ++t) sums[r][t] = hn::Zero(d);
  }
  const auto add = [&](int64_t i, const auto& load) HWY_ATTR {
    FloatVec keys[kTileKeys];
#pragma GCC unroll 4
    for (int t = 0; t < kTileKeys; ++t) keys[t] = load(k + t * width + i);
#pragma GCC unroll 4
    for (int r = 0; r < kTileRows; ++r) {
      const FloatVec query = load(q + r * q_stride + i);
#pragma GCC unroll 4
      for (int t = 0; t < kTileKeys; ++t) sums[r][t] = hn::MulAdd(query, keys[t], sums[r][t]);
    }
  };
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes)
    add(i, [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); });
  if (i < width) {
    const auto left = static_cast<size_t>(width - i);
    add(i, [&](const float* from) HWY_ATTR { return hn::LoadN(d, from, left); });
  }
#pragma GCC unroll 4
  for (int r = 0; r < kTileRows; ++r) {
    if constexpr (kTileKeys == 4) {
      StoreSums(sums[r], scores + r * score_stride);
    } else {
      for (int t = 0; t < kTileKeys; ++t)
        scores[r * score_stride + t] = hn::ReduceSum(d, sums[r][t]);
    }
  }
}

template <int kTileRows>
HWY_NOINLINE void ScoreRows(const float* q, int64_t q_stride, const float* k, int64_t keys,
                            int64_t width, float* scores, int64_t score_stride) {
  int64_t t = 0;
  for (; t + kKeys <= keys; t += kKeys)
    ScoreTile<kTileRows, kKeys>(q, q_stride, k + t * width, width, scores + t, score_stride);
  for (; t < keys; ++t)
    ScoreTile<kTileRows, 1>(q, q_stride, k + t * width, width, scores + t, score_stride);
}

// `columns` is that of kTileVectors vectors, or less where there is one.
template <int kTileRows, int kTileVectors>
HWY_INLINE void MixTile(const float* HWY_RESTRICT weights, int64_t weight_stride,
                        const float* HWY_RESTRICT v, int64_t keys, int64_t width, int64_t columns,
                        float* HWY_RESTRICT y, int64_t y_stride) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto count = static_cast<size_t>(std::min(columns, lanes));
  FloatVec sums[kTileRows][kTileVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kTileVectors; ++i) sums[r][i] = hn::Zero(d);
  }
  for (int64_t t = 0; t < keys; ++t) {
    FloatVec values[kTileVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kTileVectors; ++i) {
      const float* from = v + t * width + i * lanes;
      values[i] = kTileVectors == 1 ? hn::LoadN(d, from, count) : hn::LoadU(d, from);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kTileRows; ++r) {
      const FloatVec weight = hn::Set(d, weights[r * weight_stride + t]);
#pragma GCC unroll 4
      for (int i = 0; i < kTileVectors; ++i) sums[r][i] = hn::MulAdd(weight, values[i], sums[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < kTileVectors; ++i) {
      float* to = y + r * y_stride + i * lanes;
      if constexpr (kTileVectors == 1) {
        hn::StoreN(sums[r][i], d, to, count);
      } else {
        hn::StoreU(sums[r][i], d, to);
      }
    }
  }
}

template <int kTileRows>
HWY_NOINLINE void MixRows(const float* weights, int64_t weight_stride, const float* v, int64_t keys,
                          int64_t width, float* y, int64_t y_stride) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  const int64_t wide = kVectors * lanes;
  int64_t column = 0;
  for (; column + wide <= width; column += wide) {
    MixTile<kTileRows, kVectors>(weights, weight_stride, v + column, keys, width, wide, y + column,
                                 y_stride);
  }
  for (; column < width; column += lanes) {
    MixTile<kTileRows, 1>(weights, weight_stride, v + column, keys, width, width - column,
                          y + column, y_stride);
  }
}

void Score(const float* q, int64_t q_stride, int64_t rows, const float* k, int64_t keys,
           int64_t width, float* scores, int64_t score_stride) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    ScoreRows<kRows>(q + r * q_stride, q_stride, k, keys, width, scores + r * score_stride,
                     score_stride);
  }
  for (; r < rows; ++r) {
    ScoreRows<1>(q + r * q_stride, q_stride, k, keys, width, scores + r * score_stride,
                 score_stride);
  }
}

void Mix(const float* weights, int64_t weight_stride, int64_t rows, const float* v, int64_t keys,
         int64_t width, float* y, int64_t y_stride) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    MixRows<kRows>(weights + r * weight_stride, weight_stride, v, keys, width, y + r * y_stride,
                   y_stride);
  }
  for (; r < rows; ++r) {
    MixRows<1>(weights + r * weight_stride, weight_stride, v, keys, width, y + r * y_stride,
               y_stride);
  }
}

const char* RowsTarget() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {

HWY_EXPORT(Score);
HWY_EXPORT(Mix);
HWY_EXPORT(RowsTarget);

}  // namespace

const char* AttentionRowsTarget() { return HWY_DYNAMIC_DISPATCH(RowsTarget)(); }

void ScoreKeys(const float* q, int64_t q_stride, int64_t rows, const float* k, int64_t keys,
               int64_t width, float* scores, int64_t score_stride) {
  HWY_DYNAMIC_DISPATCH(Score)(q, q_stride, rows, k, keys, width, scores, score_stride);
}

void MixValues(const float* weights, int64_t weight_stride, int64_t rows, const float* v,
               int64_t keys, int64_t width, float* y, int64_t y_stride) {
  HWY_DYNAMIC_DISPATCH(Mix)(weights, weight_stride, rows, v, keys, width, y, y_stride);
}

}  // namespace octet

#endif  // HWY_ONCE
