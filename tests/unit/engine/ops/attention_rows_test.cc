// Products of attention by the sums of their elements, for extents around the widths of tiles.
#include "engine/ops/attention_rows.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "engine/tensor/status.h"
#include "tests/support/random_tensor.h"

namespace octet {
namespace attention_rows_test {

using testing::RandomReals;

constexpr float kUntouched = 123;

float At(const Tensor& tensor, int64_t row, int64_t column) {
  return tensor.span<float>()[static_cast<size_t>(row * tensor.shape()[1] + column)];
}

void Check(int64_t rows, int64_t keys, int64_t width) {
  SCOPED_TRACE(Format("{} rows, {} keys, {} elements", rows, keys, width));
  const int64_t q_stride = width + 3;
  const int64_t score_stride = keys + 5;
  const Tensor q = RandomReals({rows, q_stride}, 1);
  const Tensor k = RandomReals({keys, width}, 2);
  std::vector<float> scores(static_cast<size_t>(rows * score_stride), kUntouched);
  ScoreKeys(q.span<float>().data(), q_stride, rows, k.span<float>().data(), keys, width,
            scores.data(), score_stride);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < score_stride; ++t) {
      double sum = t < keys ? 0 : kUntouched;
      for (int64_t i = 0; t < keys && i < width; ++i) sum += double{At(q, r, i)} * At(k, t, i);
      ASSERT_NEAR(scores[static_cast<size_t>(r * score_stride + t)], sum, 1e-4) << r << " " << t;
    }
  }

  const Tensor weights = RandomReals({rows, score_stride}, 3);
  std::vector<float> y(static_cast<size_t>(rows * q_stride), kUntouched);
  MixValues(weights.span<float>().data(), score_stride, rows, k.span<float>().data(), keys, width,
            y.data(), q_stride);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < q_stride; ++i) {
      double sum = i < width ? 0 : kUntouched;
      for (int64_t t = 0; i < width && t < keys; ++t)
        sum += double{At(weights, r, t)} * At(k, t, i);
      ASSERT_NEAR(y[static_cast<size_t>(r * q_stride + i)], sum, 1e-4) << r << " " << i;
    }
  }
}

TEST(AttentionRows, AreSumsOfProducts) {
  for (const int64_t rows : {1, 3, 4, 5, 16}) {
    for (const int64_t keys : {1, 3, 4, 7, 33}) {
      for (const int64_t width : {1, 8, 16, 20, 64, 80, 128}) Check(rows, keys, width);
    }
  }
}

TEST(AttentionRows, OfNothingAreNothing) {
  Check(1, 0, 16);
  Check(0, 3, 16);
}

}  // namespace attention_rows_test
}  // namespace octet
