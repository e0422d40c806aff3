#include "engine/tensor/limits.h"

#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace octet {
namespace limits_test {

constexpr int64_t kBig = int64_t{1} << 28;

TEST(LimitsTest, ShapesOfNoTensorAreImpossible) {
  EXPECT_TRUE(IsPossible({}));
  EXPECT_TRUE(IsPossible({2, 0, 5}));
  EXPECT_TRUE(IsPossible({kBig, kUnknownDim, kBig}));
  EXPECT_FALSE(IsPossible({kBig, kBig, 2}));
  EXPECT_FALSE(IsPossible({-2, 2}));
  EXPECT_FALSE(IsPossible({std::numeric_limits<int64_t>::max(), 2}));
  EXPECT_FALSE(IsPossible({0, kBig, kBig, kBig})) << "its strides would overflow";
  EXPECT_TRUE(IsPossible(Shape(std::vector<int64_t>(kMaxRank, 1))));
  EXPECT_FALSE(IsPossible(Shape(std::vector<int64_t>(kMaxRank + 1, 1))));
}

TEST(LimitsTest, ExtentsOfZeroCountAsOne) {
  EXPECT_TRUE(FitsInto({2, 3}, 4, 24));
  EXPECT_FALSE(FitsInto({2, 3}, 4, 23));
  EXPECT_FALSE(FitsInto({0, int64_t{1} << 40}, 1, 1 << 20));
  EXPECT_FALSE(FitsInto({kBig, kBig}, 8, uint64_t{1} << 40));
}

// Nothing is sent of it, and much may be kept.
TEST(LimitsTest, WhatARequestBringsWithoutElementsCountsByItsPlaces) {
  EXPECT_TRUE(MayArrive({2, 3}, 4, 24));
  EXPECT_FALSE(MayArrive({2, 3}, 4, 23));
  EXPECT_TRUE(MayArrive({16, 0}, 1, 1024));
  EXPECT_FALSE(MayArrive({17, 0}, 1, 1024));
  EXPECT_FALSE(MayArrive({0, int64_t{1} << 40}, 1, uint64_t{1} << 40));
  EXPECT_FALSE(MayArrive({kBig, kBig, 2}, 1, UINT64_MAX));
}

}  // namespace limits_test
}  // namespace octet
