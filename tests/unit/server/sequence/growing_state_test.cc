#include "server/sequence/growing_state.h"

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace growing_state_test {

TensorSpec Bytes(int64_t count) { return {DType::kU8, {count}}; }

TEST(GrowingStateTest, CountsItsMemoryAndGivesItBack) {
  const auto total = std::make_shared<std::atomic<size_t>>(0);
  {
    GrowingState state(total);
    EXPECT_EQ(*total, 0U);
    ASSERT_TRUE(state.Reserve(Bytes(100), 1000));
    EXPECT_EQ(state.capacity(), 100U) << "a first content is as large as it is";
    std::memset(state.data(), 1, 100);
    ASSERT_TRUE(state.Reserve(Bytes(101), 1000));
    EXPECT_GT(state.capacity(), 101U) << "what grows will grow again";
    EXPECT_EQ(*total, state.capacity());
    const std::byte* before = state.data();
    ASSERT_TRUE(state.Reserve(Bytes(120), 1000));
    EXPECT_EQ(state.data(), before);
    EXPECT_EQ(state.spec(), Bytes(120));
    std::vector<GrowingState> moved;
    moved.push_back(std::move(state));
    EXPECT_EQ(moved[0].data(), before);
    EXPECT_EQ(*total, moved[0].capacity());
  }
  EXPECT_EQ(*total, 0U);
}

TEST(GrowingStateTest, KeepsToTheBoundOfAll) {
  const auto total = std::make_shared<std::atomic<size_t>>(0);
  GrowingState first(total);
  GrowingState second(total);
  ASSERT_TRUE(first.Reserve(Bytes(600), 1000));
  EXPECT_FALSE(second.Reserve(Bytes(401), 1000));
  EXPECT_EQ(*total, 600U);
  ASSERT_TRUE(second.Reserve(Bytes(300), 1000));
  ASSERT_TRUE(second.Reserve(Bytes(400), 1000)) << "without room to spare, where there is none";
  EXPECT_EQ(*total, 1000U);
  EXPECT_FALSE(second.Reserve(Bytes(500), 1000));
  EXPECT_EQ(*total, 600U) << "what it held is gone, for it was to be overwritten";
  ASSERT_TRUE(second.Reserve(Bytes(0), 1000));
  EXPECT_NE(second.data(), nullptr);
}

}  // namespace growing_state_test
}  // namespace octet
