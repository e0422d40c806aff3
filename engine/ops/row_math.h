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

}  // namespace octet
