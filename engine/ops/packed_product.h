// Products of a few rows with a constant matrix, a kernel of our own: a recurrent layer makes one for every time step,
// where the call of a oneDNN primitive takes longer than many of the products themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor/tensor.h"

namespace octet {

/// y[r, n] = sum over k of x[r, k] * w[n, k] on reals, with sums in float:
///   kF32   x and w are floats
///   kBf16  x and w are BF16
///   kInt8  x is U8 with a scale and a zero point per row, w is I8 with a scale per column n; the sums are exact integers
///          on every CPU
enum class ProductType : uint8_t { kF32, kBf16, kInt8 };

/// w, in the order in which the kernel reads it.
struct PackedMatrix {
  ProductType type = ProductType::kF32;
  int64_t columns = 0;  ///< n
  int64_t depth = 0;    ///< k
  std::shared_ptr<const std::byte[]> panels;
  std::vector<float> scales;  ///< kInt8: per column, padded.
  std::vector<int32_t> sums;  ///< kInt8: of a column's weights, padded.
};

/// Rows of x, `stride` bytes apart, each with room for PaddedDepth elements; those behind the last are finite.
struct ProductRows {
  const void* data = nullptr;
  int64_t stride = 0;
  const float* scales = nullptr;  ///< kInt8: one per row.
  const int32_t* zero_points = nullptr;
};

/// Columns of y that are written: whole panels, however wide they are here.
constexpr int64_t PaddedColumns(int64_t columns) { return (columns + 63) / 64 * 64; }
/// Elements of a row of x that are read.
constexpr int64_t PaddedDepth(ProductType type, int64_t depth) {
  const int64_t group = type == ProductType::kF32 ? 1 : type == ProductType::kBf16 ? 2 : 4;
  return (depth + group - 1) / group * group;
}
constexpr DType ElementOf(ProductType type) {
  return type == ProductType::kF32    ? DType::kF32
         : type == ProductType::kBf16 ? DType::kBF16
                                      : DType::kU8;
}

/// The instruction set that the kernels are compiled for here, as Highway names it ("AVX3_ZEN4").
const char* PackedProductTarget();

/// Bytes of PackedMatrix::panels.
size_t PackedBytes(ProductType type, int64_t columns, int64_t depth);
/// Writes the panels. columns[n] points at the `depth` elements w[n, ...]: float, BF16 or int8_t.
void PackPanels(ProductType type, std::span<const void* const> columns, int64_t depth,
                std::byte* out);

/// y[r, n] = the product + bias[n], for `rows` rows of x. y's rows are `y_stride` floats apart, PaddedColumns(columns) of
/// each are written; `bias` has as many, or is null. Thread-safety: safe from several threads.
void MultiplyPacked(const PackedMatrix& matrix, const ProductRows& x, int64_t rows,
                    const float* bias, float* y, int64_t y_stride);

}  // namespace octet
