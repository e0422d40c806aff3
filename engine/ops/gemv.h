// A row vector times a packed matrix: products of one row, which are as fast as the weights come out of the cache.
#pragma once

#include <cstdint>

namespace octet {

/// B [K, N] in panels of `width` columns, zeros behind column N: element (k, n) is at
/// panels[n / width * pitch + k * width + n % width]. oneDNN's BA16a{width}b with f32 is of this kind.
struct PackedMatrix {
  const float* panels = nullptr;
  int64_t k = 0;
  int64_t n = 0;
  int64_t width = 0;  ///< 16, 24, 32, 48 or 64.
  int64_t pitch = 0;  ///< Elements between panels, at least k * width.

  int64_t panel_count() const { return (n + width - 1) / width; }
};

/// y[j] = bias[j] + sum over i of x[i] * B[i, j] for the columns of panels [first, last); bias may be null. Sums are FP32, of
/// two or four interleaved parts of K. Thread-safe.
void Gemv(const PackedMatrix& b, const float* x, const float* bias, float* y, int64_t first,
          int64_t last);

/// The instruction set that Gemv runs on, as Highway names it: "AVX3".
const char* GemvTarget();

}  // namespace octet
