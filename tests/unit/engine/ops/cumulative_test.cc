// CumSum, Trilu and ReverseSequence.
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/support/one_node.h"

namespace octet::testing {
namespace cumulative_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<int64_t> Answer(const OneNode& node) {
  const auto outputs = node.Run();
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Elements<int64_t>(outputs->front()) : std::vector<int64_t>{};
}

OneNode CumSum(int64_t axis) {
  return OneNode("CumSum", 14)
      .Input(Tensor::From<int64_t>(Shape{2, 3}, {1, 2, 3, 4, 5, 6}))
      .Input(Tensor::Scalar<int64_t>(axis));
}

TEST(CumSum, GoesAlongAnAxisThatComesWithTheRequest) {
  EXPECT_THAT(Answer(CumSum(1)), ElementsAre(1, 3, 6, 4, 9, 15));
  EXPECT_THAT(Answer(CumSum(-2)), ElementsAre(1, 2, 3, 5, 7, 9));
  const auto outputs = CumSum(2).Run();
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(outputs.status().message()), HasSubstr("outside [-2, 2): 2"));
}

TEST(CumSum, ExclusiveAndReverse) {
  EXPECT_THAT(Answer(CumSum(1).Set("exclusive", int64_t{1})), ElementsAre(0, 1, 3, 0, 4, 9));
  EXPECT_THAT(Answer(CumSum(1).Set("reverse", int64_t{1})), ElementsAre(6, 5, 3, 15, 11, 6));
  EXPECT_THAT(Answer(CumSum(1).Set("exclusive", int64_t{1}).Set("reverse", int64_t{1})),
              ElementsAre(5, 3, 0, 11, 6, 0));
}

TEST(CumSum, WrapsAround) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(Answer(OneNode("CumSum", 14)
                         .Input(Tensor::From<int64_t>(Shape{2}, {kMost, 1}))
                         .Input(Tensor::Scalar<int64_t>(0))),
              ElementsAre(kMost, std::numeric_limits<int64_t>::min()));
}

TEST(Trilu, KeepsOneSideOfADiagonal) {
  const auto trilu = [](int64_t upper, int64_t k) {
    return Answer(OneNode("Trilu", 14)
                      .Input(Tensor::From<int64_t>(Shape{1, 2, 3}, {1, 2, 3, 4, 5, 6}))
                      .Input(Tensor::Scalar<int64_t>(k))
                      .Set("upper", upper));
  };
  EXPECT_THAT(trilu(1, 0), ElementsAre(1, 2, 3, 0, 5, 6));
  EXPECT_THAT(trilu(1, 1), ElementsAre(0, 2, 3, 0, 0, 6));
  EXPECT_THAT(trilu(0, 0), ElementsAre(1, 0, 0, 4, 5, 0));
  EXPECT_THAT(trilu(0, -1), ElementsAre(0, 0, 0, 4, 0, 0));
  EXPECT_THAT(trilu(1, std::numeric_limits<int64_t>::min()), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(trilu(1, std::numeric_limits<int64_t>::max()), ElementsAre(0, 0, 0, 0, 0, 0));
}

TEST(ReverseSequence, TurnsTheFirstStepsOfEachRow) {
  const auto reversed = [](std::vector<int64_t> lengths, int64_t batch_axis) {
    return OneNode("ReverseSequence", 10)
        .Input(Tensor::From<int64_t>(Shape{2, 3}, {1, 2, 3, 4, 5, 6}))
        .Input(Tensor::From<int64_t>(Shape{std::ssize(lengths)}, std::span<const int64_t>(lengths)))
        .Set("batch_axis", batch_axis)
        .Set("time_axis", 1 - batch_axis);
  };
  EXPECT_THAT(Answer(reversed({3, 2}, 0)), ElementsAre(3, 2, 1, 5, 4, 6));
  EXPECT_THAT(Answer(reversed({1, 2, 0}, 1)), ElementsAre(1, 5, 3, 4, 2, 6));
  const auto outputs = reversed({3, 4}, 0).Run();
  EXPECT_THAT(std::string(outputs.status().message()),
              HasSubstr("sequence 1 of 3 steps has length 4"));
  EXPECT_THAT(reversed({3, 2}, 2).InferredShape(), HasSubstr("must be 0 and 1, or 1 and 0"));
}

}  // namespace cumulative_test
}  // namespace octet::testing
