#include "server/picture/decode_memory.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

namespace octet {
namespace decode_memory_test {

constexpr size_t kMost = DecodeMemory::kMost;

TEST(DecodeMemoryTest, WhoFindsTooLittleWaits) {
  auto first = std::make_unique<DecodeMemory>(kMost - 10);
  const auto small = std::make_unique<DecodeMemory>(10);  // fits
  EXPECT_EQ(DecodeMemory::used(), kMost);
  std::atomic<bool> given = false;
  std::jthread other([&] {
    const DecodeMemory memory(20);
    given = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_FALSE(given);
  first.reset();
  other.join();
  EXPECT_TRUE(given);
  EXPECT_EQ(DecodeMemory::used(), 10U);
}

TEST(DecodeMemoryTest, MoreThanThereIsWaitsUntilItIsAlone) {
  auto first = std::make_unique<DecodeMemory>(1);
  std::atomic<bool> given = false;
  std::jthread large([&] {
    const DecodeMemory memory(kMost + 1);
    given = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_FALSE(given);
  first.reset();
  large.join();
  EXPECT_TRUE(given);
}

TEST(DecodeMemoryTest, ItMovesWithItsOwner) {
  DecodeMemory first(100);
  DecodeMemory second;
  second = std::move(first);
  const DecodeMemory third = std::move(second);
  EXPECT_EQ(DecodeMemory::used(), 100U);
  second = DecodeMemory(5);
  EXPECT_EQ(DecodeMemory::used(), 105U);
  second = DecodeMemory();
  EXPECT_EQ(DecodeMemory::used(), 100U);
}

}  // namespace decode_memory_test
}  // namespace octet
