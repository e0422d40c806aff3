// Range: how many elements there are, to the last bit of both ends.
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/one_node.h"

namespace octet {
namespace range_test {

using testing::Elements;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::OneNode;

OneNode Range(int64_t start, int64_t limit, int64_t delta) {
  return OneNode("Range", 11)
      .Constant(Tensor::Scalar(start))
      .Constant(Tensor::Scalar(limit))
      .Constant(Tensor::Scalar(delta));
}

std::vector<int64_t> Answer(int64_t start, int64_t limit, int64_t delta) {
  const auto y = Range(start, limit, delta).Run();
  EXPECT_TRUE(y.ok()) << y.status();
  return y.ok() ? Elements<int64_t>((*y)[0]) : std::vector<int64_t>{};
}

// A double knows these integers to some 256.
TEST(RangeTest, CountsTimesInNanoseconds) {
  constexpr int64_t kNow = 1'700'000'000'000'000'000;
  EXPECT_THAT(Answer(kNow, kNow + 7, 3), ElementsAre(kNow, kNow + 3, kNow + 6));
  EXPECT_THAT(Answer(kNow + 6, kNow, -3), ElementsAre(kNow + 6, kNow + 3));
  EXPECT_THAT(Answer(int64_t{1} << 53, (int64_t{1} << 53) + 3, 1), ::testing::SizeIs(3));
  EXPECT_THAT(Answer(kNow, kNow, 1), IsEmpty());
  EXPECT_THAT(Answer(kNow + 1, kNow, 1), IsEmpty());
}

TEST(RangeTest, TakesTheWholeRangeOfItsType) {
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(Answer(kLeast, kMost, int64_t{1} << 62),
              ElementsAre(kLeast, -(int64_t{1} << 62), 0, int64_t{1} << 62));
  EXPECT_THAT(Answer(kMost, kLeast, kLeast), ElementsAre(kMost, -1));
  EXPECT_EQ(Range(kLeast, kMost, 1).Run().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Range(0, 1, 0).Run().status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace range_test
}  // namespace octet
