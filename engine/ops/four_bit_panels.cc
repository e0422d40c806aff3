#include "engine/ops/four_bit_panels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// Compiled once for each instruction set; the names in between are its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/ops/four_bit_panels.cc"
// Of 8-bit and BF16 instructions nothing here has use.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3_ZEN4 | HWY_AVX3_SPR)
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace octet {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::CappedTag<float, 16>;
using Ints = hn::RebindToSigned<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
using FloatVec = hn::Vec<Floats>;
using WordVec = hn::Vec<Words>;

constexpr int64_t kWidth = FourBitLayout::kWidth;
constexpr int64_t kPerWord = FourBitLayout::kPerWord;
// Columns that are multiplied at once, so that their sums stay in registers.
constexpr int kVectors = 2;
constexpr int kMostRows = HWY_MAX_BYTES >= 64 ? 4 : 2;
// Sums of each column that a tile keeps: a few rows have too few to hide what an addition takes.
template <int kTileRows>
constexpr int kChains = kTileRows <= 2 ? 2 : 1;

// Makes reals of the lowest elements of words, by additions alone: q + 8 in the mantissa of 2^23, or four bits up in that of 2^19,
// is 2^23 + 8 + q, of which the rest is taken off again. Exact, and shifts and conversions, which processors have fewer units
// for, are left out.
class Reader {
 public:
  // Written out: a constructor that the compiler makes is not for this instruction set.
  HWY_INLINE Reader()
      : low_bits_(hn::Set(Words(), 0x0F)),
        high_bits_(hn::Set(Words(), 0xF0)),
        low_(hn::BitCast(Words(), hn::Set(Floats(), 0x1p23F))),
        high_(hn::BitCast(Words(), hn::Set(Floats(), 0x1p19F))),
        low_rest_(hn::Set(Floats(), 0x1p23F + 8)),
        high_rest_(hn::Set(Floats(), 0x1p19F + 8)) {}

  HWY_INLINE void Next(WordVec& words, FloatVec (&reals)[2]) const {
    reals[0] = hn::Sub(hn::BitCast(Floats(), hn::OrAnd(low_, words, low_bits_)), low_rest_);
    reals[1] = hn::Sub(hn::BitCast(Floats(), hn::OrAnd(high_, words, high_bits_)), high_rest_);
    words = hn::ShiftRight<8>(words);
  }

 private:
  const WordVec low_bits_;
  const WordVec high_bits_;
  const WordVec low_;
  const WordVec high_;
  const FloatVec low_rest_;
  const FloatVec high_rest_;
};

HWY_INLINE FloatVec ZeroPoints(const int8_t* zero_points) {
  const hn::Rebind<int8_t, Floats> bytes;
  return hn::ConvertTo(Floats(), hn::PromoteTo(Ints(), hn::LoadU(bytes, zero_points)));
}

// Reader::Next, with the zero points taken off where they are to be.
template <bool kTakesOff>
HWY_INLINE void Next(const Reader& reader, FloatVec zeros, WordVec& words, FloatVec (&reals)[2]) {
  reader.Next(words, reals);
  if constexpr (kTakesOff) {
    reals[0] = hn::Sub(reals[0], zeros);
    reals[1] = hn::Sub(reals[1], zeros);
  }
}

// kTileRows rows times kVectors vectors of a panel's columns, from column `within` on. kTakesOff: zero points are taken off each
// weight, and sums are not read.
template <int kTileRows, bool kTakesOff>
HWY_INLINE void MultiplyTile(const FourBitLayout& layout, const std::byte* HWY_RESTRICT panel,
                             int64_t within, const float* HWY_RESTRICT x, const float* sums,
                             FloatVec (&totals)[kTileRows][kVectors]) {
  const Floats d;
  const Words dw;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  constexpr int kSums = kChains<kTileRows>;
  const Reader reader;
  const auto* at = reinterpret_cast<const uint32_t*>(panel) + within;
  const auto* zero_points = reinterpret_cast<const int8_t*>(panel + layout.weight_bytes()) + within;
  for (auto& row : totals) {
    for (auto& total : row) total = hn::Zero(d);
  }
  for (int64_t b = 0, begin = 0; begin < layout.k; ++b, begin += layout.block) {
    const int64_t end = std::min(begin + layout.block, layout.k);
    const auto* scales = reinterpret_cast<const float*>(at);
    at += kWidth;
    FloatVec parts[kSums][kTileRows][kVectors];
    for (auto& chain : parts) {
      for (auto& row : chain) {
        for (auto& part : row) part = hn::Zero(d);
      }
    }
    FloatVec zeros[kVectors];
    for (int v = 0; v < kVectors; ++v)
      zeros[v] = kTakesOff ? ZeroPoints(zero_points + b * kWidth + v * lanes) : hn::Zero(d);
    int64_t k = begin;
    for (; k + kPerWord <= end; k += kPerWord, at += kWidth) {
      WordVec words[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) words[v] = hn::LoadU(dw, at + v * lanes);
#pragma GCC unroll 4
      for (int i = 0; i < kPerWord; i += 2) {
        FloatVec reals[kVectors][2];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) Next<kTakesOff>(reader, zeros[v], words[v], reals[v]);
#pragma GCC unroll 2
        for (int e = 0; e < 2; ++e) {
#pragma GCC unroll 4
          for (int r = 0; r < kTileRows; ++r) {
            const FloatVec value = hn::Set(d, x[r * layout.k + k + i + e]);
#pragma GCC unroll 2
            for (int v = 0; v < kVectors; ++v)
              parts[e % kSums][r][v] = hn::MulAdd(value, reals[v][e], parts[e % kSums][r][v]);
          }
        }
      }
    }
    if (k < end) {  // The last word of K holds fewer.
      for (int v = 0; v < kVectors; ++v) {
        WordVec words = hn::LoadU(dw, at + v * lanes);
        FloatVec reals[2];
        for (int64_t i = k; i < end; ++i) {
          const int64_t e = (i - k) % 2;
          if (e == 0) Next<kTakesOff>(reader, zeros[v], words, reals);
          for (int r = 0; r < kTileRows; ++r)
            parts[0][r][v] = hn::MulAdd(hn::Set(d, x[r * layout.k + i]), reals[e], parts[0][r][v]);
        }
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const FloatVec scale = hn::LoadU(d, scales + v * lanes);
#pragma GCC unroll 4
      for (int r = 0; r < kTileRows; ++r) {
        FloatVec sum = parts[0][r][v];
        if constexpr (kSums == 2) sum = hn::Add(sum, parts[kSums - 1][r][v]);
        if (!kTakesOff && layout.zero_points) {
          sum = hn::NegMulAdd(ZeroPoints(zero_points + b * kWidth + v * lanes),
                              hn::Set(d, sums[r * layout.blocks() + b]), sum);
        }
        totals[r][v] = hn::MulAdd(scale, sum, totals[r][v]);
      }
    }
  }
}

template <int kTileRows>
HWY_NOINLINE void MultiplyPanel(const FourBitLayout& layout, const std::byte* panel, int64_t column,
                                const FourBitRows& rows, int64_t row, float* y) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t within = 0; within < kWidth && column + within < layout.n;
       within += kVectors * lanes) {
    FloatVec totals[kTileRows][kVectors];
    const float* x = rows.x + row * layout.k;
    if (layout.zero_points && rows.sums == nullptr) {
      MultiplyTile<kTileRows, true>(layout, panel, within, x, nullptr, totals);
    } else {
      const float* sums = layout.zero_points ? rows.sums + row * layout.blocks() : nullptr;
      MultiplyTile<kTileRows, false>(layout, panel, within, x, sums, totals);
    }
    for (int v = 0; v < kVectors; ++v) {
      const int64_t first = column + within + v * lanes;
      if (first >= layout.n) break;
      const auto count = static_cast<size_t>(std::min(lanes, layout.n - first));
      for (int r = 0; r < kTileRows; ++r) {
        FloatVec total = totals[r][v];
        if (rows.bias != nullptr) total = hn::Add(total, hn::LoadN(d, rows.bias + first, count));
        hn::StoreN(total, d, y + (row + r) * layout.n + first, count);
      }
    }
  }
}

template <int kTileRows>
HWY_INLINE void MultiplyRows(int64_t tile, const FourBitLayout& layout, const std::byte* panel,
                             int64_t column, const FourBitRows& rows, int64_t row, float* y) {
  if (tile == kTileRows) return MultiplyPanel<kTileRows>(layout, panel, column, rows, row, y);
  if constexpr (kTileRows > 1)
    MultiplyRows<kTileRows - 1>(tile, layout, panel, column, rows, row, y);
}

void RunMultiply(const FourBitLayout& layout, const std::byte* panels, const FourBitRows& rows,
                 float* y, int64_t first, int64_t last) {
  for (int64_t p = first; p < last; ++p) {
    const std::byte* panel = panels + p * layout.panel_bytes();
    for (int64_t row = 0; row < rows.rows; row += kMostRows) {
      const int64_t tile = std::min<int64_t>(rows.rows - row, kMostRows);
      MultiplyRows<kMostRows>(tile, layout, panel, p * kWidth, rows, row, y);
    }
  }
}

// The reals of one vector of a panel's columns, down all of K; rows of `to` are `width` apart.
HWY_INLINE void UnpackColumns(const FourBitLayout& layout, const std::byte* panel, int64_t within,
                              int64_t width, float* HWY_RESTRICT to) {
  const Floats d;
  const Reader reader;
  const auto* at = reinterpret_cast<const uint32_t*>(panel) + within;
  const auto* zero_points = reinterpret_cast<const int8_t*>(panel + layout.weight_bytes()) + within;
  for (int64_t b = 0, begin = 0; begin < layout.k; ++b, begin += layout.block) {
    const int64_t end = std::min(begin + layout.block, layout.k);
    const FloatVec scale = hn::LoadU(d, reinterpret_cast<const float*>(at));
    const FloatVec zero = layout.zero_points ? ZeroPoints(zero_points + b * kWidth) : hn::Zero(d);
    at += kWidth;
    for (int64_t k = begin; k < end; k += kPerWord, at += kWidth) {
      WordVec words = hn::LoadU(Words(), at);
      float* row = to + k * width;
      const int64_t count = std::min(kPerWord, end - k);
#pragma GCC unroll 4
      for (int i = 0; i < kPerWord; i += 2) {
        FloatVec reals[2];
        reader.Next(words, reals);
#pragma GCC unroll 2
        for (int e = 0; e < 2; ++e) {
          if (i + e < count)
            hn::StoreU(hn::Mul(scale, hn::Sub(reals[e], zero)), d, row + (i + e) * width);
        }
      }
    }
  }
}

void RunUnpack(const FourBitLayout& layout, const std::byte* panels, int64_t first, int64_t last,
               const PanelLayout& to, int64_t column, float* out) {
  const Floats d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t padded_rows = to.pitch / to.width;
  for (int64_t p = first; p < last; ++p) {
    for (int64_t within = 0; within < kWidth; within += lanes, column += lanes) {
      if (column / to.width >= to.panel_count()) return;
      float* vector = out + column / to.width * to.pitch + column % to.width;
      const bool inside = p < layout.panel_count();
      if (inside)
        UnpackColumns(layout, panels + p * layout.panel_bytes(), within, to.width, vector);
      for (int64_t k = inside ? layout.k : 0; k < padded_rows; ++k)
        hn::StoreU(hn::Zero(d), d, vector + k * to.width);
    }
  }
}

const char* TargetOfFourBits() { return hwy::TargetName(HWY_TARGET); }

}  // namespace HWY_NAMESPACE
}  // namespace octet
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace octet {
namespace {

HWY_EXPORT(RunMultiply);
HWY_EXPORT(RunUnpack);
HWY_EXPORT(TargetOfFourBits);

constexpr int64_t kColumns = FourBitLayout::kWidth;

// One word of a column: elements [k, k + 8) that there are.
uint32_t WordAt(const FourBitLayout& layout, const uint8_t* column, int64_t k) {
  uint32_t word = 0;
  for (int64_t i = k; i < std::min(k + FourBitLayout::kPerWord, layout.k); ++i) {
    const uint32_t element = static_cast<uint32_t>(column[i / 2] >> (4 * (i % 2))) & 15U;
    word |= (element ^ 8U) << (4 * (i - k));
  }
  return word;
}

}  // namespace

void PackFourBits(const FourBitLayout& layout, const uint8_t* integers, const float* scales,
                  const int8_t* zero_points, std::byte* out) {
  const int64_t row_bytes = (layout.k + 1) / 2;
  const int64_t blocks = layout.blocks();
  // Padding is zeros; all else is written behind it.
  std::memset(out, 0, layout.bytes());
  for (int64_t n = 0; n < layout.n; ++n) {
    std::byte* panel = out + n / kColumns * layout.panel_bytes();
    auto* at = reinterpret_cast<uint32_t*>(panel) + n % kColumns;
    auto* zeros = reinterpret_cast<int8_t*>(panel + layout.weight_bytes()) + n % kColumns;
    for (int64_t b = 0; b < blocks; ++b) {
      std::memcpy(at, scales + n * blocks + b, sizeof(float));
      at += kColumns;
      if (layout.zero_points) zeros[b * kColumns] = zero_points[n * blocks + b];
      const int64_t end = std::min((b + 1) * layout.block, layout.k);
      for (int64_t k = b * layout.block; k < end; k += FourBitLayout::kPerWord) {
        *at = WordAt(layout, integers + n * row_bytes, k);
        at += kColumns;
      }
    }
  }
}

bool SumBlocks(const FourBitLayout& layout, const float* x, int64_t rows, float* sums) {
  bool finite = true;
  for (int64_t r = 0; r < rows; ++r, x += layout.k) {
    for (int64_t begin = 0; begin < layout.k; begin += layout.block) {
      float sum = 0;
      for (int64_t k = begin; k < std::min(begin + layout.block, layout.k); ++k) sum += x[k];
      *sums++ = sum;
      finite = finite && std::isfinite(sum);
    }
  }
  return finite;
}

void MultiplyFourBits(const FourBitLayout& layout, const std::byte* panels, const FourBitRows& rows,
                      float* y, int64_t first, int64_t last) {
  HWY_DYNAMIC_DISPATCH(RunMultiply)(layout, panels, rows, y, first, last);
}

void UnpackFourBits(const FourBitLayout& layout, const std::byte* panels, int64_t first,
                    int64_t last, const PanelLayout& to, int64_t column, float* out) {
  HWY_DYNAMIC_DISPATCH(RunUnpack)(layout, panels, first, last, to, column, out);
}

const char* FourBitTarget() { return HWY_DYNAMIC_DISPATCH(TargetOfFourBits)(); }

}  // namespace octet

#endif
