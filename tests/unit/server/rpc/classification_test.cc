#include "server/rpc/classification.h"

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace classification_test {

/// The elements of BYTES contents.
std::vector<std::string> Elements(const std::string& bytes) {
  std::vector<std::string> elements;
  for (size_t at = 0; at < bytes.size();) {
    uint32_t length = 0;
    std::memcpy(&length, bytes.data() + at, sizeof(length));
    elements.push_back(bytes.substr(at + 4, length));
    at += 4 + length;
  }
  return elements;
}

/// What Classify makes of one row.
template <typename T>
std::vector<std::string> Classes(const std::vector<T>& scores, int64_t count,
                                 std::span<const std::string> labels = {}) {
  const Tensor output =
      Tensor::From<T>({static_cast<int64_t>(scores.size())}, std::span<const T>(scores));
  std::string bytes;
  Classify(output.view(), false, count, labels, bytes);
  return Elements(bytes);
}

TEST(ClassificationTest, BestFirstAndEqualOnesByIndex) {
  EXPECT_EQ(Classes<float>({0.25F, 0.5F, -1, 0.5F}, 3),
            (std::vector<std::string>{"0.5:1", "0.5:3", "0.25:0"}));
}

TEST(ClassificationTest, LabelsAreAddedWhereThereAreSome) {
  const std::vector<std::string> labels = {"cat", "dog"};
  EXPECT_EQ(Classes<float>({1, 2, 3}, 5, labels),
            (std::vector<std::string>{"3:2", "2:1:dog", "1:0:cat"}));
}

TEST(ClassificationTest, NaNComesLast) {
  EXPECT_EQ(Classes<float>({NAN, -5, NAN, 1}, 3),
            (std::vector<std::string>{"1:3", "-5:1", "nan:0"}));
}

/// As FP32 each of these would be equal to its neighbour, and the first be the best.
TEST(ClassificationTest, LargeNumbersAreToldApart) {
  EXPECT_EQ(Classes<int32_t>({16777216, 16777217, -5}, 3),
            (std::vector<std::string>{"16777217:1", "16777216:0", "-5:2"}));
  EXPECT_EQ(Classes<int64_t>({INT64_MAX - 1, INT64_MAX}, 1),
            (std::vector<std::string>{"9223372036854775807:1"}));
  EXPECT_EQ(Classes<uint64_t>({UINT64_MAX - 1, UINT64_MAX}, 1),
            (std::vector<std::string>{"18446744073709551615:1"}));
  EXPECT_EQ(Classes<double>({1, 1 + 1e-12, NAN}, 1),
            (std::vector<std::string>{"1.000000000001:1"}));
}

TEST(ClassificationTest, RowsOfABatchAreClassifiedOneByOne) {
  const Tensor output = Tensor::From<int32_t>({2, 3}, {1, 2, 3, 9, 8, 7});
  std::string bytes;
  EXPECT_EQ(Classify(output.view(), true, 2, {}, bytes), (Shape{2, 2}));
  EXPECT_EQ(Elements(bytes), (std::vector<std::string>{"3:2", "2:1", "9:0", "8:1"}));
  EXPECT_EQ(Classify(output.view(), false, 100, {}, bytes), (Shape{6}));
  EXPECT_EQ(Elements(bytes)[0], "9:3");
}

}  // namespace classification_test
}  // namespace octet
