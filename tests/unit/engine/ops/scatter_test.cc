// ScatterElements and ScatterND: what repeated, negative and impossible indices do.
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace scatter_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

OneNode Scatter(std::vector<int64_t> indices, std::vector<float> updates) {
  OneNode node("ScatterElements", 18);
  node.Input(Tensor::From<float>(Shape{4}, {1, 2, 3, 4}));
  node.Input(Tensor::From<int64_t>(Shape{std::ssize(indices)}, std::span<const int64_t>(indices)));
  return node.Input(
      Tensor::From<float>(Shape{std::ssize(updates)}, std::span<const float>(updates)));
}

std::vector<float> Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<float>(outputs->front()) : std::vector<float>{};
}

std::string ErrorOf(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(Message(outputs.status()));
}

TEST(Scatter, RepeatedIndicesReduceInOrder) {
  const auto reduced = [](std::string reduction) {
    return Answer(Scatter({1, 1, -1}, {5, 7, -2}).Set("reduction", std::move(reduction)));
  };
  EXPECT_THAT(reduced("none"), ElementsAre(1, 7, 3, -2)) << "the last one stays";
  EXPECT_THAT(reduced("add"), ElementsAre(1, 14, 3, 2));
  EXPECT_THAT(reduced("mul"), ElementsAre(1, 70, 3, -8));
  EXPECT_THAT(reduced("max"), ElementsAre(1, 7, 3, 4));
  EXPECT_THAT(reduced("min"), ElementsAre(1, 2, 3, -2));
}

TEST(Scatter, GoesAlongItsAxis) {
  OneNode node("ScatterElements", 13);
  node.Input(Iota<float>({2, 3})).Input(Tensor::From<int32_t>(Shape{2, 1}, {2, 0}));
  node.Input(Tensor::From<float>(Shape{2, 1}, {-1, -2})).Set("axis", int64_t{-1});
  EXPECT_THAT(Answer(node), ElementsAre(0, 1, -1, -2, 4, 5));
}

TEST(Scatter, RefusesWhatLiesBeyondTheData) {
  EXPECT_THAT(ErrorOf(Scatter({4}, {0})), HasSubstr("index 0 is outside [-4, 4): 4"));
  EXPECT_THAT(ErrorOf(Scatter({-5}, {0})), HasSubstr("outside [-4, 4): -5"));
  EXPECT_THAT(ErrorOf(Scatter({0, 1}, {0})), HasSubstr("do not fit data [4]"));
  EXPECT_THAT(ErrorOf(Scatter({0}, {0}).Set("reduction", std::string("mean"))),
              HasSubstr("unknown 'reduction': 'mean'"));
}

TEST(Scatter, BlocksByTuples) {
  const auto nd = [](std::vector<int64_t> tuple, Shape updates) {
    OneNode node("ScatterND", 18);
    node.Input(Iota<float>({2, 2, 2}));
    node.Input(Tensor::From<int64_t>(Shape{1, std::ssize(tuple)}, std::span<const int64_t>(tuple)));
    return node.Input(Iota<float>(std::move(updates))).Set("reduction", std::string("add"));
  };
  EXPECT_THAT(Answer(nd({-1}, {1, 2, 2})), ElementsAre(0, 1, 2, 3, 4, 6, 8, 10));
  EXPECT_THAT(Answer(nd({0, 1}, {1, 2})), ElementsAre(0, 1, 2, 4, 4, 5, 6, 7));
  EXPECT_THAT(ErrorOf(nd({0, 2}, {1, 2})), HasSubstr("index 1 is outside [-2, 2): 2"));
  EXPECT_THAT(ErrorOf(nd({0}, {1, 2})), HasSubstr("do not fit indices [1,1] and data [2,2,2]"));
  EXPECT_THAT(ErrorOf(nd({0, 0, 0, 0}, {1})), HasSubstr("do not fit data"));
}

}  // namespace scatter_test
}  // namespace octet::testing
