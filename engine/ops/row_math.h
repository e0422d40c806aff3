// Functions of one row of floats, vectorised for the CPU that runs them. x and y may be the same row.
#pragma once

#include <cstdint>

namespace octet {

/// y = exp(x - max(x)) / sum(exp(x - max(x))).
void SoftmaxRow(const float* x, float* y, int64_t n);
/// y = x - max(x) - log(sum(exp(x - max(x)))).
void LogSoftmaxRow(const float* x, float* y, int64_t n);
/// The same of each of `columns` columns of a [n, columns] matrix; `spare` holds two elements per column.
void SoftmaxColumns(const float* x, float* y, int64_t n, int64_t columns, float* spare);
void LogSoftmaxColumns(const float* x, float* y, int64_t n, int64_t columns, float* spare);
/// y = (x - mean) / sqrt(variance + epsilon) * scale + bias; bias may be null.
void LayerNormRow(const float* x, float* y, int64_t n, float epsilon, const float* scale,
                  const float* bias);

struct RowMoments {
  float mean = 0;
  float inverse_deviation = 0;  ///< 1 / sqrt(variance + epsilon).
};
/// Of n elements, sums in double.
RowMoments MomentsOfRow(const float* x, int64_t n, float epsilon);
/// y = (x - mean) * factor + addend.
void NormaliseBy(const float* x, float mean, float factor, float addend, int64_t n, float* y);
/// sums[i] += x[i], and += (x[i] - mean[i])^2.
void AddColumns(const float* x, int64_t n, double* sums);
void AddSquaresOfColumns(const float* x, const float* mean, int64_t n, double* sums);
/// y[i] = (x[i] - mean[i]) * factor[i] + addend[i].
void NormaliseColumnsBy(const float* x, const float* mean, const float* factor, const float* addend,
                        int64_t n, float* y);

/// y[i] = weight * x[i], and += weight * x[i].
void ScaleRow(const float* x, float weight, int64_t n, float* y);
void AddScaledRow(const float* x, float weight, int64_t n, float* y);

/// What LRN divides by: (bias + alpha * sum of squares of channels [c - before, c + behind]) ^ beta.
struct ChannelWindow {
  int64_t before = 0;
  int64_t behind = 0;
  float alpha = 0;
  float beta = 0;
  float bias = 0;
};
/// LRN of n channels; `spare` holds 2 n + before + behind elements.
void LrnRow(const float* x, float* y, int64_t n, const ChannelWindow& window, float* spare);

/// How a reduction takes elements in: `largest` and `smallest` keep a NaN that they meet.
enum class Fold : uint8_t { kSum, kMagnitudes, kSquares, kLargest, kSmallest };

/// What a fold of no elements is.
float FoldStart(Fold fold);
/// The fold of n elements.
float FoldRow(Fold fold, const float* x, int64_t n);
/// sums[i] = fold of sums[i] and x[i * step].
void FoldStrided(Fold fold, const float* x, int64_t step, float* sums, int64_t n);
/// sums[i] = fold of sums[i] and x[i].
void FoldInto(Fold fold, const float* x, float* sums, int64_t n);

}  // namespace octet
