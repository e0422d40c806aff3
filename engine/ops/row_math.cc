#include "engine/ops/row_math.h"

#include <algorithm>
#include <cmath>

#include "engine/ops/vector_math.h"
#include "engine/tensor/cpu_clones.h"

namespace octet {
namespace {

OCTET_INLINE float Largest(const float* x, int64_t n) {
  float largest = x[0];
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

OCTET_INLINE void LargestOfColumns(const float* x, int64_t n, int64_t columns, float* largest) {
  std::copy_n(x, columns, largest);
  for (int64_t i = 1; i < n; ++i) {
    const float* row = x + i * columns;
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) largest[c] = row[c] > largest[c] ? row[c] : largest[c];
  }
}

}  // namespace

OCTET_CPU_CLONES void SoftmaxRow(const float* x, float* y, int64_t n) {
  const float largest = Largest(x, n);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const float e = ExpF(x[i] - largest);
    y[i] = e;
    sum += e;
  }
  const float scale = 1.0F / sum;
  for (int64_t i = 0; i < n; ++i) y[i] *= scale;
}

OCTET_CPU_CLONES void LogSoftmaxRow(const float* x, float* y, int64_t n) {
  const float largest = Largest(x, n);
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += ExpF(x[i] - largest);
  const float log_sum = std::log(sum);
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] - largest - log_sum;
}

OCTET_CPU_CLONES void SoftmaxColumns(const float* x, float* y, int64_t n, int64_t columns,
                                     float* spare) {
  float* largest = spare;
  float* sums = spare + columns;
  LargestOfColumns(x, n, columns, largest);
  std::fill_n(sums, columns, 0.0F);
  for (int64_t i = 0; i < n; ++i) {
    const float* from = x + i * columns;
    float* to = y + i * columns;
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) {
      const float e = ExpF(from[c] - largest[c]);
      to[c] = e;
      sums[c] += e;
    }
  }
#pragma GCC ivdep
  for (int64_t c = 0; c < columns; ++c) sums[c] = 1.0F / sums[c];
  for (int64_t i = 0; i < n; ++i) {
    float* to = y + i * columns;
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) to[c] *= sums[c];
  }
}

OCTET_CPU_CLONES void LogSoftmaxColumns(const float* x, float* y, int64_t n, int64_t columns,
                                        float* spare) {
  float* largest = spare;
  float* sums = spare + columns;
  LargestOfColumns(x, n, columns, largest);
  std::fill_n(sums, columns, 0.0F);
  for (int64_t i = 0; i < n; ++i) {
    const float* from = x + i * columns;
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) sums[c] += ExpF(from[c] - largest[c]);
  }
  for (int64_t c = 0; c < columns; ++c) sums[c] = std::log(sums[c]);
  for (int64_t i = 0; i < n; ++i) {
    const float* from = x + i * columns;
    float* to = y + i * columns;
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) to[c] = from[c] - largest[c] - sums[c];
  }
}

}  // namespace octet
