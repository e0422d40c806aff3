#include "engine/tensor/shape.h"

#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace shape_test {

TEST(ShapeTest, CountsElementsAndStrides) {
  const Shape shape{2, 3, 4};
  EXPECT_EQ(shape.elements(), 24);
  EXPECT_EQ(shape.elements(1, 3), 12);
  EXPECT_EQ(shape.elements(1, 1), 1);
  EXPECT_EQ(shape.strides(), (absl::InlinedVector<int64_t, 6>{12, 4, 1}));
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_EQ((Shape{3, 0}).elements(), 0);
}

TEST(ShapeTest, PrintsUnknownExtentsAsQuestionMarks) {
  EXPECT_EQ((Shape{kUnknownDim, 3, 224}).ToString(), "[?,3,224]");
  EXPECT_EQ(Shape{}.ToString(), "[]");
  EXPECT_FALSE((Shape{kUnknownDim, 3}).is_static());
  EXPECT_TRUE((Shape{0, 3}).is_static());
}

TEST(CheckedElementsTest, RefusesNegativeExtentsAndOverflow) {
  const auto count = [](std::vector<int64_t> dims) { return CheckedElements(dims); };
  constexpr int64_t kBig = int64_t{1} << 31;
  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({2, 0, 5}), 0);
  EXPECT_EQ(count({kBig, kBig}), int64_t{1} << 62);
  EXPECT_EQ(count({kBig, kBig, 2}), std::nullopt);
  EXPECT_EQ(count({-1, 2}), std::nullopt);
  EXPECT_EQ(count({std::numeric_limits<int64_t>::max(), 2}), std::nullopt);
  EXPECT_EQ(count({0, kBig, kBig, kBig}), std::nullopt) << "its strides would overflow";
}

TEST(BroadcastTest, FollowsNumpy) {
  EXPECT_EQ(Broadcast({2, 3, 4}, {3, 1}), (Shape{2, 3, 4}));
  EXPECT_EQ(Broadcast({3, 1}, {2, 1, 4}), (Shape{2, 3, 4}));
  EXPECT_EQ(Broadcast({}, {5}), (Shape{5}));
  EXPECT_EQ(Broadcast({0}, {1}), (Shape{0}));
  EXPECT_EQ(Broadcast({2}, {3}), std::nullopt);
  EXPECT_EQ(Broadcast({0}, {3}), std::nullopt);
}

TEST(BroadcastTest, TakesTheKnownExtentAgainstAnUnknownOne) {
  EXPECT_EQ(Broadcast({kUnknownDim}, {7}), (Shape{7}));
  EXPECT_EQ(Broadcast({7}, {kUnknownDim}), (Shape{7}));
  EXPECT_EQ(Broadcast({kUnknownDim}, {1}), (Shape{kUnknownDim}));
  EXPECT_EQ(Broadcast({1}, {kUnknownDim}), (Shape{kUnknownDim}));
  EXPECT_EQ(Broadcast({kUnknownDim}, {kUnknownDim}), (Shape{kUnknownDim}));
}

TEST(NormalizeAxisTest, CountsNegativeAxesFromTheBack) {
  EXPECT_EQ(NormalizeAxis(-1, 3), 2);
  EXPECT_EQ(NormalizeAxis(-3, 3), 0);
  EXPECT_EQ(NormalizeAxis(2, 3), 2);
  EXPECT_EQ(NormalizeAxis(3, 3), std::nullopt);
  EXPECT_EQ(NormalizeAxis(-4, 3), std::nullopt);
  EXPECT_EQ(NormalizeAxis(0, 0), std::nullopt);
  EXPECT_EQ(NormalizeAxis(std::numeric_limits<int64_t>::min(), 3), std::nullopt);
}

}  // namespace shape_test
}  // namespace octet
