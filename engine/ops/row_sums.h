// Sums over rows that lie one pitch apart: the averages of pools.
#pragma once

#include <cstdint>

#include "engine/tensor/dtype.h"

namespace octet::row_sums {

inline float Widened(float x) { return x; }
inline float Widened(BFloat16 x) { return ToFloat(x); }
inline int32_t Widened(uint8_t x) { return x; }
inline int32_t Widened(int8_t x) { return x; }

/// sum[i] += the sum over `rows` rows of x[row * pitch + i], for i in [0, n): four rows at a time, which takes a quarter of the
/// loads and stores of sums, and in float makes errors that grow with a quarter of the rows. Inlined into the loops that are
/// compiled per CPU (cpu_clones.h). Thread-safety: pure.
template <typename T, typename Sum>
[[gnu::always_inline]] inline void Add(const T* x, int64_t rows, int64_t pitch, Sum* sum,
                                       int64_t n) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) {
    const T* a = x + row * pitch;
    const T* b = a + pitch;
    const T* c = b + pitch;
    const T* d = c + pitch;
    for (int64_t i = 0; i < n; ++i)
      sum[i] += (Widened(a[i]) + Widened(b[i])) + (Widened(c[i]) + Widened(d[i]));
  }
  for (; row < rows; ++row) {
    const T* a = x + row * pitch;
    for (int64_t i = 0; i < n; ++i) sum[i] += Widened(a[i]);
  }
}

}  // namespace octet::row_sums
