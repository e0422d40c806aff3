// TopK: order, ties, NaN, the axis, and where k comes from in each opset.
#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"

namespace octet {
namespace top_k_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::OneNode;

struct Result {
  std::vector<float> values;
  std::vector<int64_t> positions;
};

Result Reference(OneNode node) {
  const auto outputs = node.Outputs(2).Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  if (!outputs.ok()) return {};
  return {Elements<float>((*outputs)[0]), Elements<int64_t>((*outputs)[1])};
}

OneNode TopK(const Tensor& x, int64_t k) { return OneNode("TopK", 11).Input(x).Ints({k}); }

TEST(TopKTest, GivesTheLargestInOrder) {
  const Result result =
      Reference(TopK(Tensor::From<float>({2, 4}, {3, 1, 4, 2, -1, -3, -2, 9}), 2));
  EXPECT_THAT(result.values, ElementsAre(4, 3, 9, -1));
  EXPECT_THAT(result.positions, ElementsAre(2, 0, 3, 0));
}

TEST(TopKTest, GivesTheSmallestAlongAnyAxis) {
  const Result result = Reference(TopK(Tensor::From<float>({3, 2}, {3, 10, 1, 30, 2, 20}), 2)
                                      .Set("axis", int64_t{0})
                                      .Set("largest", int64_t{0}));
  EXPECT_THAT(result.values, ElementsAre(1, 10, 2, 20));
  EXPECT_THAT(result.positions, ElementsAre(1, 0, 2, 2));
}

TEST(TopKTest, PrefersTheFirstOfEqualElements) {
  const Tensor x = Tensor::From<float>({5}, {1, 7, 7, 1, 7});
  EXPECT_THAT(Reference(TopK(x, 3)).positions, ElementsAre(1, 2, 4));
  EXPECT_THAT(Reference(TopK(x, 2).Set("largest", int64_t{0})).positions, ElementsAre(0, 3));
}

TEST(TopKTest, TakesNaNForTheLargest) {
  const Tensor x = Tensor::From<float>({4}, {1, std::nanf(""), 5, 2});
  EXPECT_THAT(Reference(TopK(x, 2)).positions, ElementsAre(1, 2));
  EXPECT_THAT(Reference(TopK(x, 3).Set("largest", int64_t{0})).positions, ElementsAre(0, 3, 2));
}

TEST(TopKTest, TakesKFromAnAttributeInTheFirstOpset) {
  const Result result =
      Reference(OneNode("TopK", 1).Input(Tensor::From<float>({3}, {1, 3, 2})).Set("k", int64_t{1}));
  EXPECT_THAT(result.positions, ElementsAre(1));
}

TEST(TopKTest, RefusesMoreThanTheAxisHas) {
  const Tensor x = Tensor::From<float>({3}, {1, 3, 2});
  EXPECT_THAT(TopK(x, 4).Outputs(2).InferredShape(), HasSubstr("'k' is 4, the axis has 3"));
  EXPECT_THAT(TopK(x, -1).Outputs(2).InferredShape(), HasSubstr("at least 0"));
  EXPECT_EQ(TopK(x, 0).Outputs(2).InferredShape(), "[0]");
}

}  // namespace top_k_test
}  // namespace octet
