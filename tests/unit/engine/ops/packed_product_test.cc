// Products with packed matrices by the sums of their elements, for extents around the widths of tiles and panels.
#include "engine/ops/packed_product.h"

#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "engine/tensor/quantize.h"
#include "tests/support/random_tensor.h"

namespace octet {
namespace packed_product_test {

using testing::RandomBytes;
using testing::RandomReals;

Tensor As(DType dtype, const Tensor& reals) {
  Tensor result(dtype, reals.shape());
  ConvertTensor(reals.view(), result.mutable_view());
  return result;
}

/// Elements [rows, depth] of one operand, and the reals that they stand for but for scales and zero points.
struct Operand {
  Tensor elements;
  Tensor reals;
};
Operand Make(ProductType type, bool weights, int64_t rows, int64_t depth, uint32_t seed) {
  const Shape shape{rows, depth};
  Operand operand;
  if (type == ProductType::kInt8) {
    operand.elements = RandomBytes(weights ? DType::kI8 : DType::kU8, shape, seed);
  } else {
    operand.elements = As(ElementOf(type), RandomReals(shape, seed));
  }
  operand.reals = As(DType::kF32, operand.elements);
  return operand;
}

class PackedProductTest : public ::testing::TestWithParam<ProductType> {
 protected:
  static void Check(int64_t rows, int64_t columns, int64_t depth, bool with_bias) {
    const ProductType type = GetParam();
    const bool int8 = type == ProductType::kInt8;
    const Operand w = Make(type, true, columns, depth, 1);
    const Operand x = Make(type, false, rows, depth, 2);
    const int64_t padded = PaddedColumns(columns);
    const auto element = [](const Operand& operand, int64_t row, int64_t k) {
      const int64_t width = operand.reals.shape()[1];
      return static_cast<double>(operand.reals.span<float>()[static_cast<size_t>(row * width + k)]);
    };

    PackedMatrix matrix{.type = type, .columns = columns, .depth = depth};
    std::vector<const void*> pointers;
    for (int64_t n = 0; n < columns; ++n) {
      pointers.push_back(static_cast<const std::byte*>(w.elements.data()) +
                         static_cast<size_t>(n * depth) * SizeOf(w.elements.dtype()));
      int32_t sum = 0;
      for (int64_t k = 0; k < depth; ++k) sum += static_cast<int32_t>(element(w, n, k));
      matrix.scales.push_back(0.001F * static_cast<float>(1 + n % 7));
      matrix.sums.push_back(sum);
    }
    matrix.scales.resize(static_cast<size_t>(padded));
    matrix.sums.resize(static_cast<size_t>(padded));
    std::shared_ptr<std::byte[]> panels = AllocateAligned(PackedBytes(type, columns, depth));
    PackPanels(type, pointers, depth, panels.get());
    matrix.panels = panels;

    const auto size = static_cast<int64_t>(SizeOf(ElementOf(type)));
    const int64_t stride = PaddedDepth(type, depth) * size;
    std::vector<std::byte> encoded(static_cast<size_t>(rows * stride), std::byte{0});
    std::vector<float> scales;
    std::vector<int32_t> zero_points;
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(encoded.data() + r * stride,
                  static_cast<const std::byte*>(x.elements.data()) + r * depth * size,
                  static_cast<size_t>(depth * size));
      scales.push_back(0.01F * static_cast<float>(1 + r % 5));
      zero_points.push_back(static_cast<int32_t>(r * 37 % 256));
    }
    const Tensor bias = RandomReals({padded}, 3);
    std::vector<float> y(static_cast<size_t>(rows * padded), std::nanf(""));
    MultiplyPacked(matrix, {encoded.data(), stride, scales.data(), zero_points.data()}, rows,
                   with_bias ? bias.span<float>().data() : nullptr, y.data(), padded);

    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = 0; n < columns; ++n) {
        double sum = 0;
        double magnitudes = 0;
        for (int64_t k = 0; k < depth; ++k) {
          const double zero = int8 ? zero_points[static_cast<size_t>(r)] : 0;
          const double product = (element(x, r, k) - zero) * element(w, n, k);
          sum += product;
          magnitudes += std::abs(product);
        }
        if (int8) {
          // The sum is exact; scaling it rounds three times.
          const double scale = static_cast<double>(scales[static_cast<size_t>(r)]) *
                               static_cast<double>(matrix.scales[static_cast<size_t>(n)]);
          sum *= scale;
          magnitudes = std::abs(sum);
        }
        if (with_bias) sum += static_cast<double>(bias.span<float>()[static_cast<size_t>(n)]);
        const double tolerance = 1e-6 * (magnitudes + std::abs(sum)) + 1e-7;
        ASSERT_NEAR(static_cast<double>(y[static_cast<size_t>(r * padded + n)]), sum, tolerance)
            << "row " << r << ", column " << n << " of " << rows << " x " << columns << " x "
            << depth << " on " << PackedProductTarget();
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Types, PackedProductTest,
                         ::testing::Values(ProductType::kF32, ProductType::kBf16,
                                           ProductType::kInt8),
                         [](const auto& param) {
                           return std::string(param.param == ProductType::kF32    ? "F32"
                                              : param.param == ProductType::kBf16 ? "Bf16"
                                                                                  : "Int8");
                         });

TEST_P(PackedProductTest, IsTheSumOfProducts) {
  for (int64_t rows = 1; rows <= 13; ++rows) {
    for (const int64_t columns : {1, 17, 64, 130}) {
      for (const int64_t depth : {1, 3, 16, 37}) {
        ASSERT_NO_FATAL_FAILURE(Check(rows, columns, depth, rows % 2 == 0));
      }
    }
  }
}

}  // namespace packed_product_test
}  // namespace octet
