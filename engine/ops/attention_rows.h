// Products of attention, kernels of our own: a few queries with the keys and the values of one head, whose count differs with
// every token that a decoder makes, so that a oneDNN primitive would have to be made for each.
#pragma once

#include <cstdint>

namespace octet {

/// The instruction set that the kernels are compiled for here, as Highway names it ("AVX3").
const char* AttentionRowsTarget();

/// scores[r, t] = sum over i of q[r, i] * k[t, i], for `rows` rows of q, `q_stride` floats apart, and `keys` rows of k, `width`
/// floats each, side by side. Rows of scores are `score_stride` floats apart. Thread-safety: safe.
void ScoreKeys(const float* q, int64_t q_stride, int64_t rows, const float* k, int64_t keys,
               int64_t width, float* scores, int64_t score_stride);

/// y[r, i] = sum over t of weights[r, t] * v[t, i], with the strides of ScoreKeys; rows of y are `y_stride` floats apart.
/// Thread-safety: safe.
void MixValues(const float* weights, int64_t weight_stride, int64_t rows, const float* v,
               int64_t keys, int64_t width, float* y, int64_t y_stride);

}  // namespace octet
