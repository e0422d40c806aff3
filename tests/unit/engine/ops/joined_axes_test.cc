// Which axes of a broadcast are one.
#include "engine/ops/joined_axes.h"

#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace joined_axes_test {

TEST(JoinedAxesTest, JoinsWhatEveryOperandWalksAlike) {
  const Shape y = {2, 3, 4, 5, 6};
  const std::vector<Shape> operands = {y, {1, 1, 4, 5, 6}};
  const JoinedAxes joined(y, operands, 3);
  EXPECT_EQ(joined.rank(), 4);
  EXPECT_EQ(joined.Of(y), (Shape{6, 4, 5, 6}));
  EXPECT_EQ(joined.Of(operands[1]), (Shape{1, 4, 5, 6}));
}

TEST(JoinedAxesTest, TellsEachOperandApart) {
  const Shape y = {2, 3, 4, 5, 6};
  const std::vector<Shape> operands = {{2, 1, 1, 5, 6}, {4, 1, 6}};
  const JoinedAxes joined(y, operands, 3);
  EXPECT_EQ(joined.Of(y), (Shape{2, 3, 4, 5, 6}));
  EXPECT_EQ(joined.Of(operands[0]), (Shape{2, 1, 1, 5, 6}));
  EXPECT_EQ(joined.Of(operands[1]), (Shape{1, 1, 4, 1, 6}));
}

TEST(JoinedAxesTest, LeavesOutAxesOfOne) {
  const Shape y = {1, 3, 1, 4, 1, 6};
  const std::vector<Shape> operands = {y, {6}};
  const JoinedAxes joined(y, operands, 4);
  EXPECT_EQ(joined.Of(y), (Shape{12, 1, 6})) << "the last two stay";
  EXPECT_EQ(joined.Of(operands[1]), (Shape{1, 1, 6}));
  const Shape matrix = {1, 1, 1, 1, 4, 6};
  EXPECT_EQ(JoinedAxes(matrix, {&matrix, 1}, 4).Of(matrix), (Shape{4, 6}));
}

TEST(JoinedAxesTest, DoesNotKnowProductsOfWhatIsOpen) {
  const Shape y = {kUnknownDim, 3, 4, 5, 6};
  const std::vector<Shape> operands = {y, {1, 1, 4, 5, 6}};
  const JoinedAxes joined(y, operands, 3);
  EXPECT_EQ(joined.Of(y), (Shape{kUnknownDim, 4, 5, 6}));
  EXPECT_EQ(joined.Of(operands[1]), (Shape{1, 4, 5, 6}));
}

}  // namespace joined_axes_test
}  // namespace octet
