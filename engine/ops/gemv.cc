#include "engine/ops/gemv.h"

#include <algorithm>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/gemv.cc"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::CappedTag<float, 16>;
using FloatVec = hn::Vec<Floats>;

// Columns [column, column + kVectors * lanes) of a panel. kParts sums per column keep the multipliers busy while one
// addition waits for the one before.
template <int kVectors, int kParts>
HWY_INLINE void MultiplyColumns(const PackedMatrix& b, const float* HWY_RESTRICT panel,
                                const float* HWY_RESTRICT x, FloatVec* HWY_RESTRICT sums) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVec parts[kParts][kVectors];
  for (auto& part : parts) {
    for (auto& sum : part) sum = hn::Zero(d);
  }
  int64_t k = 0;
  for (; k + kParts <= b.k; k += kParts) {
#pragma GCC unroll 4
    for (int p = 0; p < kParts; ++p) {
      const FloatVec value = hn::Set(d, x[k + p]);
      const float* row = panel + (k + p) * b.width;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        parts[p][v] = hn::MulAdd(value, hn::LoadU(d, row + v * lanes), parts[p][v]);
    }
  }
  for (; k < b.k; ++k) {
    const FloatVec value = hn::Set(d, x[k]);
    for (int v = 0; v < kVectors; ++v)
      parts[0][v] = hn::MulAdd(value, hn::LoadU(d, panel + k * b.width + v * lanes), parts[0][v]);
  }
  for (int v = 0; v < kVectors; ++v) {
    sums[v] = parts[0][v];
    for (int p = 1; p < kParts; ++p) sums[v] = hn::Add(sums[v], parts[p][v]);
  }
}

template <int kVectors, int kParts>
HWY_INLINE void StoreColumns(const PackedMatrix& b, const float* panel, const float* x,
                             const float* bias, float* y, int64_t count) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVec sums[kVectors];
  MultiplyColumns<kVectors, kParts>(b, panel, x, sums);
  for (int v = 0; v < kVectors && v * lanes < count; ++v) {
    const auto left = static_cast<size_t>(std::min(lanes, count - v * lanes));
    if (bias != nullptr) sums[v] = hn::Add(sums[v], hn::LoadN(d, bias + v * lanes, left));
    hn::StoreN(sums[v], d, y + v * lanes, left);
  }
}

void RunGemv(const PackedMatrix& b, const float* x, const float* bias, float* y, int64_t first,
             int64_t last) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(Floats()));
  for (int64_t p = first; p < last; ++p) {
    for (int64_t column = 0; column < b.width;) {
      const int64_t at = p * b.width + column;
      if (at >= b.n) break;
      const int64_t vectors = std::min<int64_t>(4, (b.width - column) / lanes);
      const float* panel = b.panels + p * b.pitch + column;
      const float* some = bias == nullptr ? nullptr : bias + at;
      const int64_t count = std::min(vectors * lanes, b.n - at);
      switch (vectors) {
        case 1:
          StoreColumns<1, 4>(b, panel, x, some, y + at, count);
          break;
        case 2:
          StoreColumns<2, 4>(b, panel, x, some, y + at, count);
          break;
        case 3:
          StoreColumns<3, 2>(b, panel, x, some, y + at, count);
          break;
        default:
          StoreColumns<4, 2>(b, panel, x, some, y + at, count);
      }
      column += vectors * lanes;
    }
  }
}

const char* TargetOfGemv() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {
HWY_EXPORT(RunGemv);
HWY_EXPORT(TargetOfGemv);
}  // namespace

void Gemv(const PackedMatrix& b, const float* x, const float* bias, float* y, int64_t first,
          int64_t last) {
  HWY_DYNAMIC_DISPATCH(RunGemv)(b, x, bias, y, first, last);
}

const char* GemvTarget() { return HWY_DYNAMIC_DISPATCH(TargetOfGemv)(); }

}  // namespace octet

#endif
