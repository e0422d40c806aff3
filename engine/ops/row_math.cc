#include "engine/ops/row_math.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

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

// The sum is taken in double: many equal small terms beside a large one would all be rounded to the same side.
OCTET_CPU_CLONES void SoftmaxRow(const float* x, float* y, int64_t n) {
  const float largest = Largest(x, n);
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const float e = ExpF(x[i] - largest);
    y[i] = e;
    sum += static_cast<double>(e);
  }
  const auto scale = static_cast<float>(1 / sum);
  for (int64_t i = 0; i < n; ++i) y[i] *= scale;
}

OCTET_CPU_CLONES void LogSoftmaxRow(const float* x, float* y, int64_t n) {
  const float largest = Largest(x, n);
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(ExpF(x[i] - largest));
  const auto log_sum = static_cast<float>(std::log(sum));
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

OCTET_CPU_CLONES void LrnRow(const float* x, float* y, int64_t n, const ChannelWindow& window,
                             float* spare) {
  float* const padded = spare;  // The squares between zeros, so that every window is whole.
  float* const bases = spare + n + window.before + window.behind;
  std::fill_n(padded, window.before, 0.0F);
  std::fill_n(padded + window.before + n, window.behind, 0.0F);
  std::fill_n(bases, n, window.bias);
#pragma GCC ivdep
  for (int64_t c = 0; c < n; ++c) padded[window.before + c] = window.alpha * x[c] * x[c];
  for (int64_t k = 0; k <= window.before + window.behind; ++k) {
#pragma GCC ivdep
    for (int64_t c = 0; c < n; ++c) bases[c] += padded[c + k];
  }
  if (window.beta != 0.75F) {
    for (int64_t c = 0; c < n; ++c) y[c] = x[c] / std::pow(bases[c], window.beta);
    return;
  }
  // The usual power needs no logarithm.
#pragma GCC ivdep
  for (int64_t c = 0; c < n; ++c) {
    const float root = std::sqrt(bases[c]);
    y[c] = x[c] / (root * std::sqrt(root));
  }
}

// Two passes: the variance of large means would cancel in one.
OCTET_CPU_CLONES void LayerNormRow(const float* x, float* y, int64_t n, float epsilon,
                                   const float* scale, const float* bias) {
  double sum = 0;  // floats would lose digits that the differences from a large mean need
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
  const auto mean = static_cast<float>(sum / static_cast<double>(n));
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  const float factor = 1.0F / std::sqrt(squares / static_cast<float>(n) + epsilon);
  if (bias == nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * factor * scale[i];
    return;
  }
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * factor * scale[i] + bias[i];
}

OCTET_CPU_CLONES RowMoments MomentsOfRow(const float* x, int64_t n, float epsilon) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
  const auto mean = static_cast<float>(sum / static_cast<double>(n));
  double squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i] - mean);
    squares += d * d;
  }
  const double variance = squares / static_cast<double>(n);
  return {mean, static_cast<float>(1 / std::sqrt(variance + static_cast<double>(epsilon)))};
}

OCTET_CPU_CLONES void NormaliseBy(const float* x, float mean, float factor, float addend, int64_t n,
                                  float* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * factor + addend;
}

OCTET_CPU_CLONES void AddColumns(const float* x, int64_t n, double* sums) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) sums[i] += static_cast<double>(x[i]);
}

OCTET_CPU_CLONES void AddSquaresOfColumns(const float* x, const float* mean, int64_t n,
                                          double* sums) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(x[i] - mean[i]);
    sums[i] += d * d;
  }
}

OCTET_CPU_CLONES void NormaliseColumnsBy(const float* x, const float* mean, const float* factor,
                                         const float* addend, int64_t n, float* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean[i]) * factor[i] + addend[i];
}

OCTET_CPU_CLONES void ScaleRow(const float* x, float weight, int64_t n, float* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] = weight * x[i];
}

OCTET_CPU_CLONES void AddScaledRow(const float* x, float weight, int64_t n, float* y) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] += weight * x[i];
}

namespace {

// FoldStrided, with a step that the compiler knows or does not.
[[gnu::always_inline]] inline void FoldEvery(Fold fold, const float* x, int64_t step, float* sums,
                                             int64_t n) {
  switch (fold) {
    case Fold::kMagnitudes:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) sums[i] += std::fabs(x[i * step]);
      return;
    case Fold::kSquares:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) sums[i] += x[i * step] * x[i * step];
      return;
    case Fold::kLargest:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) {
        const float v = x[i * step];
        sums[i] = v > sums[i] || v != v ? v : sums[i];
      }
      return;
    case Fold::kSmallest:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) {
        const float v = x[i * step];
        sums[i] = v < sums[i] || v != v ? v : sums[i];
      }
      return;
    case Fold::kSum:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) sums[i] += x[i * step];
  }
}

}  // namespace

OCTET_CPU_CLONES void FoldStrided(Fold fold, const float* x, int64_t step, float* sums, int64_t n) {
  if (step == 2) return FoldEvery(fold, x, 2, sums, n);  // Shuffled instead of gathered.
  FoldEvery(fold, x, step, sums, n);
}

float FoldStart(Fold fold) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (fold == Fold::kLargest) return -kInfinity;
  return fold == Fold::kSmallest ? kInfinity : 0.0F;
}

OCTET_CPU_CLONES float FoldRow(Fold fold, const float* x, int64_t n) {
  float result = FoldStart(fold);
  uint32_t nan = 0;
  switch (fold) {
    case Fold::kSum:
#pragma omp simd reduction(+ : result)
      for (int64_t i = 0; i < n; ++i) result += x[i];
      return result;
    case Fold::kMagnitudes:
#pragma omp simd reduction(+ : result)
      for (int64_t i = 0; i < n; ++i) result += std::fabs(x[i]);
      return result;
    case Fold::kSquares:
#pragma omp simd reduction(+ : result)
      for (int64_t i = 0; i < n; ++i) result += x[i] * x[i];
      return result;
    case Fold::kLargest:
#pragma omp simd reduction(max : result) reduction(| : nan)
      for (int64_t i = 0; i < n; ++i) {
        result = x[i] > result ? x[i] : result;
        nan |= x[i] != x[i] ? 1U : 0U;
      }
      break;
    case Fold::kSmallest:
#pragma omp simd reduction(min : result) reduction(| : nan)
      for (int64_t i = 0; i < n; ++i) {
        result = x[i] < result ? x[i] : result;
        nan |= x[i] != x[i] ? 1U : 0U;
      }
      break;
  }
  return nan != 0 ? std::numeric_limits<float>::quiet_NaN() : result;
}

OCTET_CPU_CLONES void FoldInto(Fold fold, const float* x, float* sums, int64_t n) {
  switch (fold) {
    case Fold::kSum:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) sums[i] += x[i];
      return;
    case Fold::kMagnitudes:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) sums[i] += std::fabs(x[i]);
      return;
    case Fold::kSquares:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) sums[i] += x[i] * x[i];
      return;
    case Fold::kLargest:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) sums[i] = x[i] > sums[i] || x[i] != x[i] ? x[i] : sums[i];
      return;
    case Fold::kSmallest:
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) sums[i] = x[i] < sums[i] || x[i] != x[i] ? x[i] : sums[i];
      return;
  }
}

}  // namespace octet
