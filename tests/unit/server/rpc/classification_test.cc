#include "server/rpc/classification.h"

#include <cmath>

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

TEST(ClassificationTest, BestFirstAndEqualOnesByIndex) {
  const std::vector<float> scores = {0.25F, 0.5F, -1, 0.5F};
  std::string bytes;
  AppendClasses(scores, 3, {}, bytes);
  EXPECT_EQ(Elements(bytes), (std::vector<std::string>{"0.5:1", "0.5:3", "0.25:0"}));
}

TEST(ClassificationTest, LabelsAreAddedWhereThereAreSome) {
  const std::vector<float> scores = {1, 2, 3};
  const std::vector<std::string> labels = {"cat", "dog"};
  std::string bytes;
  AppendClasses(scores, 5, labels, bytes);
  EXPECT_EQ(Elements(bytes), (std::vector<std::string>{"3:2", "2:1:dog", "1:0:cat"}));
}

TEST(ClassificationTest, NaNComesLast) {
  const std::vector<float> scores = {NAN, -5, NAN, 1};
  std::string bytes;
  AppendClasses(scores, 3, {}, bytes);
  EXPECT_EQ(Elements(bytes), (std::vector<std::string>{"1:3", "-5:1", "nan:0"}));
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
