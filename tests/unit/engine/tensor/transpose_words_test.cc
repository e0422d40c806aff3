#include "engine/tensor/transpose_words.h"

#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace transpose_words_test {

TEST(TransposeWords, ExchangesRowsAndColumnsAndWritesNothingElse) {
  for (const int64_t rows : {1, 3, 4, 16, 21, 64}) {
    for (const int64_t columns : {1, 4, 7, 16, 35}) {
      SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(columns));
      const int64_t from_pitch = columns + 3, to_pitch = rows + 5;
      std::vector<uint32_t> from(static_cast<size_t>(rows * from_pitch));
      std::iota(from.begin(), from.end(), 1u);
      std::vector<uint32_t> to(static_cast<size_t>(columns * to_pitch));
      TransposeWords(from.data(), from_pitch, rows, columns, to.data(), to_pitch);
      for (int64_t column = 0; column < columns; ++column) {
        for (int64_t row = 0; row < to_pitch; ++row) {
          const uint32_t expected =
              row < rows ? from[static_cast<size_t>(row * from_pitch + column)] : 0;
          EXPECT_EQ(to[static_cast<size_t>(column * to_pitch + row)], expected)
              << "column " << column << ", row " << row;
        }
      }
    }
  }
}

}  // namespace transpose_words_test
}  // namespace octet
