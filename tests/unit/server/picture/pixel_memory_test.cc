#include "server/picture/pixel_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace octet {
namespace pixel_memory_test {

TEST(PixelMemoryTest, WhatWasLetGoOfIsUsedAgain) {
  PixelMemory large = AllocatePixels(5'000'000);
  PixelMemory small = AllocatePixels(4'000'000);
  const uint8_t* first = large.get();
  const uint8_t* second = small.get();
  EXPECT_NE(first, second);
  large.reset();
  small.reset();
  // The smallest that is large enough; a block has one owner.
  const PixelMemory again = AllocatePixels(3'900'000);
  EXPECT_EQ(again.get(), second);
  const PixelMemory other = AllocatePixels(3'900'000);
  EXPECT_EQ(other.get(), first);
  EXPECT_EQ(other.get_deleter().bytes, 5'000'000U);
}

TEST(PixelMemoryTest, HugeBlocksGoBackAtOnce) {
  const size_t huge = size_t{17} << 20;
  AllocatePixels(huge).reset();
  const PixelMemory next = AllocatePixels(huge - 1);
  EXPECT_EQ(next.get_deleter().bytes, huge - 1);  // not the one before
  std::fill_n(next.get(), huge - 1, uint8_t{1});
}

}  // namespace pixel_memory_test
}  // namespace octet
