#include "engine/tensor/transpose_words.h"

#include <emmintrin.h>

#include <algorithm>

namespace octet {
namespace {

constexpr int64_t kSquare = 16;  // Words of a cache line.

// Four rows of four words: pairs of rows are interleaved, and then pairs of these.
inline void TransposeFour(const uint32_t* from, int64_t from_pitch, uint32_t* to,
                          int64_t to_pitch) {
  const auto load = [&](int64_t row) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + row * from_pitch));
  };
  const auto store = [&](int64_t column, __m128i words) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + column * to_pitch), words);
  };
  const __m128i a = load(0), b = load(1), c = load(2), d = load(3);
  const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
  const __m128i cd_low = _mm_unpacklo_epi32(c, d), cd_high = _mm_unpackhi_epi32(c, d);
  store(0, _mm_unpacklo_epi64(ab_low, cd_low));
  store(1, _mm_unpackhi_epi64(ab_low, cd_low));
  store(2, _mm_unpacklo_epi64(ab_high, cd_high));
  store(3, _mm_unpackhi_epi64(ab_high, cd_high));
}

// Up to kSquare rows and columns.
void TransposeSquare(const uint32_t* from, int64_t from_pitch, int64_t rows, int64_t columns,
                     uint32_t* to, int64_t to_pitch) {
  const int64_t whole_rows = rows / 4 * 4;
  const int64_t whole_columns = columns / 4 * 4;
  for (int64_t column = 0; column < whole_columns; column += 4) {
    for (int64_t row = 0; row < whole_rows; row += 4)
      TransposeFour(from + row * from_pitch + column, from_pitch, to + column * to_pitch + row,
                    to_pitch);
  }
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t row = column < whole_columns ? whole_rows : 0; row < rows; ++row)
      to[column * to_pitch + row] = from[row * from_pitch + column];
  }
}

}  // namespace

void TransposeWords(const uint32_t* from, int64_t from_pitch, int64_t rows, int64_t columns,
                    uint32_t* to, int64_t to_pitch) {
  for (int64_t column = 0; column < columns; column += kSquare) {
    for (int64_t row = 0; row < rows; row += kSquare)
      TransposeSquare(from + row * from_pitch + column, from_pitch, std::min(kSquare, rows - row),
                      std::min(kSquare, columns - column), to + column * to_pitch + row, to_pitch);
  }
}

}  // namespace octet
