// Products with a constant matrix of 4-bit integers, which stay so in memory: of a few rows straight from them, of more through
// reals that are made of some columns at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/tensor/panel_layout.h"

namespace octet {

/// How the reals w[n, k] = scale[n, b] * (q[n, k] - zero_point[n, b]), b = k / block, lie in memory; q is in [-8, 7]. Panels of
/// kWidth columns n, padded with columns of zeros, hold block behind block, and of each block
///
///   scales F32 [kWidth] | words U32 [elements / 8, kWidth]        q + 8 of element k is in bits 4 * (k % 8) and up of a word
///
/// then, where there are zero points, I8 [blocks, kWidth]. A row of words is two cache lines. 5 bits an element for blocks of 32.
struct FourBitLayout {
  static constexpr int64_t kWidth = 32;
  static constexpr int64_t kPerWord = 8;

  int64_t k = 0;
  int64_t n = 0;
  int64_t block = 0;  ///< A multiple of kPerWord; the last one may be shorter.
  bool zero_points = false;

  int64_t blocks() const { return (k + block - 1) / block; }
  int64_t panel_count() const { return (n + kWidth - 1) / kWidth; }
  int64_t words() const { return (k + kPerWord - 1) / kPerWord; }  ///< Of a column.
  /// Bytes of the scales and words of a panel, behind which its zero points are.
  int64_t weight_bytes() const { return (blocks() + words()) * kWidth * int64_t{4}; }
  int64_t panel_bytes() const { return weight_bytes() + (zero_points ? blocks() * kWidth : 0); }
  size_t bytes() const { return static_cast<size_t>(panel_count() * panel_bytes()); }
};

/// Writes the panels. Shapes: `integers` [n, (k + 1) / 2], element k of a column in bits 4 * (k % 2) of byte k / 2; scales
/// [n, blocks]; zero_points [n, blocks], read only where the layout has them.
void PackFourBits(const FourBitLayout& layout, const uint8_t* integers, const float* scales,
                  const int8_t* zero_points, std::byte* out);

/// What a product reads besides the panels.
struct FourBitRows {
  const float* x = nullptr;  ///< [rows, k]
  /// [rows, blocks] finite sums of x over a block, for zero points; null where some are not finite: zero points are then taken off
  /// each weight, since an infinity times q less an infinity times the zero point is no number.
  const float* sums = nullptr;
  const float* bias = nullptr;  ///< [n], or null.
  int64_t rows = 0;
};

/// sums[r, b] of FourBitRows; whether all are finite.
bool SumBlocks(const FourBitLayout& layout, const float* x, int64_t rows, float* sums);

/// y[r, j] = sum over b of scale[j, b] * (sum over k in b of x[r, k] * q[j, k] - zero_point[j, b] * sums[r, b]) + bias[j] in FP32,
/// for the columns of panels [first, last); y is [rows, n]. Some rows share what is read of the panels. Thread-safe.
void MultiplyFourBits(const FourBitLayout& layout, const std::byte* panels, const FourBitRows& rows,
                      float* y, int64_t first, int64_t last);

/// Writes the reals of panels [first, last) to where `to`, of group 1, has columns `column` and up; zeros for panels and rows that
/// there are none of. Requires: column and to.width are multiples of 16. Thread-safe.
void UnpackFourBits(const FourBitLayout& layout, const std::byte* panels, int64_t first,
                    int64_t last, const PanelLayout& to, int64_t column, float* out);

/// The instruction set that they run on, as Highway names it: "AVX3".
const char* FourBitTarget();

}  // namespace octet
