#include "engine/tensor/in_place.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace octet {
namespace in_place_test {

constexpr size_t kLarge = size_t{4} << 20;

Tensor Bytes(size_t count) { return {DType::kU8, {static_cast<int64_t>(count)}}; }

TEST(InPlace, LargeTensorsHaveRoomForWhatPackedWeightsEndWith) {
  Tensor large = Bytes(kLarge);
  const size_t with_sums = kLarge + kLarge / 64;
  std::byte* const room = RoomOf(large, with_sums);
  ASSERT_EQ(room, large.data());
  std::memset(room, 7, with_sums);
  EXPECT_EQ(large.span<uint8_t>().back(), 7);
  EXPECT_EQ(RoomOf(large, 2 * kLarge), nullptr);
}

TEST(InPlace, OnlyItsOwnMemoryHasRoom) {
  const Tensor large = Bytes(kLarge);
  const auto* second = large.span<uint8_t>().data() + 1;
  EXPECT_EQ(RoomOf(Tensor(DType::kU8, {64}, large.owner(), second), 64), nullptr)
      << "a part of a tensor";
  std::vector<uint8_t> others(kLarge);
  const auto owner = std::make_shared<int>();
  EXPECT_EQ(RoomOf(Tensor(DType::kU8, {64}, owner, others.data()), 64), nullptr);
}

TEST(InPlace, BlocksGoToTheirPlaces) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  constexpr size_t kBlock = 24;
  for (const size_t count : {0, 1, 2, 7, 500}) {
    std::vector<int64_t> sources(count);
    std::iota(sources.begin(), sources.end(), int64_t{0});
    for (int round = 0; round < 3; ++round) {  // The first one leaves all where they are.
      std::vector<std::byte> blocks(count * kBlock);
      for (std::byte& byte : blocks) byte = static_cast<std::byte>(random());
      const std::vector<std::byte> before = blocks;
      std::array<std::byte, kBlock> spare;
      PermuteBlocks(blocks.data(), kBlock, sources, spare.data());
      for (size_t i = 0; i < count; ++i) {
        const auto from = static_cast<size_t>(sources[i]);
        EXPECT_EQ(std::memcmp(blocks.data() + i * kBlock, before.data() + from * kBlock, kBlock), 0)
            << "block " << i << " of " << count;
      }
      std::ranges::shuffle(sources, random);
    }
  }
}

}  // namespace in_place_test
}  // namespace octet
