#include "engine/plan/arena.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/tensor/tensor.h"
#include "tests/support/graph_builder.h"

namespace octet {
namespace arena_test {

constexpr size_t kUnit = kTensorAlignment;

// Two buffers that live at one step share no byte, and all lie inside the arena.
void ExpectDisjoint(const std::vector<BufferLife>& buffers, const ArenaLayout& layout) {
  ASSERT_EQ(layout.offsets.size(), buffers.size());
  for (size_t i = 0; i < buffers.size(); ++i) {
    EXPECT_EQ(layout.offsets[i] % kTensorAlignment, 0u);
    EXPECT_LE(layout.offsets[i] + buffers[i].bytes, layout.bytes);
    for (size_t j = 0; j < i; ++j) {
      if (buffers[i].first > buffers[j].last || buffers[j].first > buffers[i].last) continue;
      const bool apart = layout.offsets[i] + buffers[i].bytes <= layout.offsets[j] ||
                         layout.offsets[j] + buffers[j].bytes <= layout.offsets[i];
      EXPECT_TRUE(apart) << "buffers " << j << " and " << i;
    }
  }
}

TEST(ArenaTest, IsEmptyWithoutBuffers) {
  const ArenaLayout layout = LayOutArena({});
  EXPECT_EQ(layout.bytes, 0u);
  EXPECT_EQ(layout.live_peak, 0u);
}

TEST(ArenaTest, ReusesBytesOfBuffersThatAreDead) {
  const std::vector<BufferLife> chain = {
      {4 * kUnit, 0, 1}, {4 * kUnit, 1, 2}, {4 * kUnit, 2, 3}, {4 * kUnit, 3, 4}};
  const ArenaLayout layout = LayOutArena(chain);
  ExpectDisjoint(chain, layout);
  EXPECT_EQ(layout.bytes, 8 * kUnit) << "two live at a time";
  EXPECT_EQ(layout.live_peak, 8 * kUnit);
}

TEST(ArenaTest, FillsGapsBelowTheTop) {
  // The long one must not end up in the middle of what the two others need at once.
  const std::vector<BufferLife> buffers = {
      {2 * kUnit, 0, 5}, {6 * kUnit, 0, 1}, {3 * kUnit, 2, 3}, {3 * kUnit, 2, 4}};
  const ArenaLayout layout = LayOutArena(buffers);
  ExpectDisjoint(buffers, layout);
  EXPECT_EQ(layout.bytes, layout.live_peak);
}

TEST(ArenaTest, GivesEmptyBuffersAPlace) {
  const std::vector<BufferLife> buffers = {{0, 0, 3}, {1, 1, 1}, {0, 2, 2}};
  const ArenaLayout layout = LayOutArena(buffers);
  ExpectDisjoint(buffers, layout);
  EXPECT_EQ(layout.bytes, kUnit);
}

TEST(ArenaTest, KeepsRandomLivesApart) {
  std::mt19937 random(TestSeed());
  for (int round = 0; round < 50; ++round) {
    std::vector<BufferLife> buffers(1 + random() % 40);
    for (BufferLife& buffer : buffers) {
      buffer.bytes = random() % 5000;
      buffer.first = static_cast<int>(random() % 30);
      buffer.last = buffer.first + static_cast<int>(random() % 8);
    }
    const ArenaLayout layout = LayOutArena(buffers);
    SCOPED_TRACE(testing::Message() << "seed " << TestSeed() << ", round " << round);
    ExpectDisjoint(buffers, layout);
    EXPECT_GE(layout.bytes, layout.live_peak);
  }
}

}  // namespace arena_test
}  // namespace octet
